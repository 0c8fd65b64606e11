"""From what was asked on a command line to training configurations."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal, Protocol

from writesae.config import Json, from_json
from writesae.disk import read_json
from writesae.errors import ConfigError, InputError
from writesae.sae.config import BatchTopK, Gated, JumpReLU, SoftGated, Sparsity, TopK
from writesae.sae.presets import preset
from writesae.training.config import TrainConfig
from writesae.training.data import WriteStore, head_shape
from writesae.types import Site, Target

SPARSITIES = ("topk", "batch-topk", "jumprelu", "gated", "soft-gated")


class Request(Protocol):
    """The flags that describe one or several runs."""

    @property
    def sites(self) -> str:
        """Heads or layers, separated by commas."""

    @property
    def target(self) -> Target | Literal["write"]:
        """What is modelled; `write` means `write-delta`."""

    @property
    def preset(self) -> str:
        """Name of the composition."""

    @property
    def sparsity(self) -> str:
        """Name of the sparsity."""

    @property
    def k(self) -> int:
        """Active features."""

    @property
    def features(self) -> int:
        """Atoms."""

    @property
    def epochs(self) -> float:
        """Passes."""

    @property
    def steps(self) -> int | None:
        """Steps instead of passes."""

    @property
    def batch(self) -> int:
        """Tokens a step."""

    @property
    def chunk(self) -> int | None:
        """Consecutive tokens in a step."""

    @property
    def stride(self) -> int:
        """Distance between a chunk's tokens."""

    @property
    def lr(self) -> float:
        """First learning rate."""

    @property
    def lr_end(self) -> float:
        """Last learning rate."""

    @property
    def init(self) -> Literal["random", "writes"]:
        """Where atoms start."""

    @property
    def seeds(self) -> str:
        """Seeds, separated by commas."""

    @property
    def device(self) -> str:
        """Where to train."""

    @property
    def threads(self) -> int:
        """CPU threads."""

    @property
    def config(self) -> Path | None:
        """A file that replaces the other flags."""


def run_name(config: TrainConfig) -> str:
    """Folder name of a run among several."""
    return f"{config.site}_{config.target}_seed{config.seed}"


def configs(request: Request, store: WriteStore) -> list[TrainConfig]:
    """One configuration a head and seed. Raises InputError for sites or seeds that make no sense."""
    return [_config(request, site, seed) for site in sites(request.sites, store) for seed in _seeds(request.seeds)]


def sites(text: str, store: WriteStore) -> list[Site]:
    """`L5.H0,L6` as sites, a layer standing for all its heads; raises InputError for what the store does not hold."""
    found: list[Site] = []
    for word in text.split(","):
        layer = re.fullmatch(r"L(\d+)", word.strip())
        if layer is None:
            found.append(Site.parse(word.strip()))
            continue
        index = int(layer[1])
        head_shape(store, Site(index, 0))
        found += [Site(index, head) for head in range(store.layers[index].heads)]
    for site in found:
        head_shape(store, site)
    if len(set(found)) < len(found):
        raise InputError(f"sites {text!r} name a head twice")
    return found


def _seeds(text: str) -> list[int]:
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() for word in words) or len(set(words)) < len(words):
        raise InputError(f'seeds {text!r} are not written like "0" or "0,1,2"')
    return [int(word) for word in words]


def sparsity_of(name: str, k: int) -> Sparsity:
    """The sparsity of a name with its usual settings; raises ConfigError for an unknown one."""
    if name == "topk":
        return TopK(k)
    if name == "batch-topk":
        return BatchTopK(k)
    if name == "jumprelu":
        return JumpReLU(float(k))
    if name == "gated":
        return Gated()
    if name == "soft-gated":
        return SoftGated()
    raise ConfigError(f"unknown sparsity {name!r}; choose one of {', '.join(SPARSITIES)}")


def _config(request: Request, site: Site, seed: int) -> TrainConfig:
    if request.config is not None:
        data = read_json(request.config)
        if not isinstance(data, dict):
            raise ConfigError(f"{request.config} holds no JSON object")
        whole: dict[str, Json] = {**data, "site": str(site), "seed": seed}
        return from_json(TrainConfig, whole)
    parts = preset(request.preset)
    return TrainConfig(
        site=site,
        target="write-delta" if request.target == "write" else request.target,
        features=request.features,
        encoder=parts.encoder,
        sparsity=sparsity_of(request.sparsity, request.k),
        decoder=parts.decoder,
        epochs=request.epochs,
        steps=request.steps,
        batch=request.batch,
        chunk=request.chunk,
        stride=request.stride,
        lr=request.lr,
        lr_end=request.lr_end,
        init=request.init,
        seed=seed,
        device=request.device,
        threads=request.threads,
    )
