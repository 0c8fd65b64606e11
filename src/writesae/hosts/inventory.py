"""What is supported, and what of it can run here."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import cast

import torch

from writesae.disk import read_json
from writesae.hosts.checkpoints import FLA_TYPES
from writesae.hosts.internals import SINCE
from writesae.hosts.registry import ARCHITECTURES, Architecture
from writesae.hosts.sources import EMBEDDED
from writesae.hosts.versions import DISTRIBUTIONS, EXTRAS, installed_version, kernel_package, release


@dataclass(frozen=True)
class Served:
    """One family as one package has it."""

    family: str
    models: tuple[str, ...]
    can: str
    """What is possible with them."""
    package: str
    """Distribution name of the package that contains the models."""
    version: str | None
    """Its installed version; None where it is not installed."""
    devices: str
    """Where such a model can run here and by which kernels, or what to install."""


def inventory() -> list[Served]:
    """Every supported family and package, in the registry's order."""
    rows = []
    for (family, package, can), group in groupby(ARCHITECTURES, key=lambda a: (a.family, a.package, _abilities(a))):
        models = tuple(_named(model) for architecture in group for model in architecture.models)
        found = installed_version(package)
        devices = _devices(family, package) if found else f"pip install 'writesae[{EXTRAS[package]}]'"
        rows.append(Served(family, models, can, DISTRIBUTIONS[package], found, devices))
    return rows


def _abilities(architecture: Architecture) -> str:
    if architecture.audit_only:
        return "spectrum"
    return "capture, edit, attribute" + (" (no closed form)" if architecture.no_direct_path else "")


def _named(model: str) -> str:
    """A class, with the release that has it where the installed one is older."""
    younger = _younger(model)
    return f"{model} ({younger})" if younger else model


def _younger(model: str) -> str:
    """The release that a class needs, where the installed one is older."""
    since = SINCE.get(model, ())
    return "" if release() >= since else f"transformers {'.'.join(map(str, since))} or newer"


def _devices(family: str, package: str) -> str:
    if not torch.cuda.is_available():
        return "cpu (torch)"
    fast = kernel_package(family)
    on_gpu = "torch" if package == "rwkv7_hf" or installed_version(fast) is None else fast
    return f"cpu (torch), cuda ({on_gpu})"


@dataclass(frozen=True)
class Shipped:
    """One host that ships with the package."""

    name: str
    model: str
    """Its class."""
    quality: str
    """How good it is, by its card."""
    needs: str
    """What to install for it; empty where nothing is missing."""


def shipped() -> list[Shipped]:
    """Every embedded host, by name."""
    rows = []
    for name, folder in EMBEDDED.items():
        config = cast("dict[str, object]", read_json(folder / "config.json"))
        card = cast("dict[str, object]", read_json(folder / "card.json"))
        (model,) = cast("list[str]", config["architectures"])
        kind = str(config["model_type"])
        serving = {"rwkv7": ["rwkv7_hf", "fla"]}.get(kind, ["fla"]) if kind in FLA_TYPES else []
        missing = serving and not any(installed_version(package) for package in serving)
        needs = f"pip install 'writesae[{EXTRAS[serving[0]]}]'" if missing else _younger(model)
        rows.append(Shipped(name, model, str(card["quality"]), needs))
    return rows
