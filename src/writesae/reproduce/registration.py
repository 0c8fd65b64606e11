"""What will be measured and what would count, written down and hashed before anything runs."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from pathlib import Path

from writesae.config import Json, to_json
from writesae.disk import claim as claim_folder
from writesae.disk import json_bytes, read_json, write_json
from writesae.errors import DataError, OutputError
from writesae.evals.common.result import plain
from writesae.reproduce.bindings import BINDINGS, MEASUREMENTS
from writesae.reproduce.claims import claim
from writesae.reproduce.config import ReproduceConfig
from writesae.reproduce.dictionaries import KINDS

FILE = "registration.json"
KIND = "writesae.registration"
RUN = "reproduction"


def begin(config: ReproduceConfig, out: Path) -> None:
    """Make `out` the folder of this reproduction; raises OutputError where it is something else's."""
    claim_folder(out, RUN, {"kind": RUN, "config": settings(config)})


def settings(config: ReproduceConfig) -> dict[str, Json]:
    """What makes a reproduction the one that it is."""
    return {name: value for name, value in _mapping(to_json(config)).items() if name != "workers"}


def plan(config: ReproduceConfig) -> dict[str, Json]:
    """Every hypothesis with its threshold and direction, what is measured for it, and all sizes, seeds and splits."""
    wanted = config.wanted()
    bound = [one for one in BINDINGS if one.claim in wanted]
    hypotheses: list[Json] = [
        {
            "claim": one.claim, "published": claim(one.claim).number(one.published) if one.published else None,
            "by family": {family: claim(one.claim).number(path) for family, path in one.by_family.items()},
            "no effect": one.nothing, "rising": one.rising, "claims no effect": one.no_effect, "family": one.family,
            "host": one.host, "measurements": list(one.asks),
        }
        for one in bound
    ]  # fmt: skip
    asked = dict.fromkeys(name for one in bound for name in one.asks)
    return {
        "config": settings(config),
        "sizes": plain(config.sizes),
        "split": "writesae.text(...).split(0.8): dictionaries see the first part, tests the second; on hosts "
        "that have learnt facts, passages drawn under two seeds",
        "dictionaries": plain(KINDS),
        "measurements": {name: plain(asdict(MEASUREMENTS[name])) for name in asked},
        "hypotheses": hypotheses,
    }


def digest(asked: dict[str, Json]) -> str:
    """SHA-256 of a plan."""
    return hashlib.sha256(json_bytes(asked, FILE)).hexdigest()


def register(config: ReproduceConfig, out: Path) -> str:
    """Write the plan into an empty folder and return its hash. Raises OutputError where anything is there already."""
    if out.exists() and any(out.iterdir()):
        raise OutputError(f"{out} holds something already: a plan is registered before anything runs, in a new folder")
    begin(config, out)
    asked = plan(config)
    write_json(out / FILE, {"kind": KIND, "sha256": digest(asked), "plan": asked})
    return digest(asked)


def kept(config: ReproduceConfig, out: Path) -> dict[str, Json] | None:
    """Hash of the folder's registered plan and whether it is the one that is run now; None where none is registered.

    Raises DataError where the file was changed since.
    """
    if not (out / FILE).exists():
        return None
    data = _mapping(read_json(out / FILE))
    registered = _mapping(data.get("plan"))
    if data.get("kind") != KIND or data.get("sha256") != digest(registered):
        raise DataError(f"{out / FILE} is not the plan that was registered: its hash does not fit")
    return {"sha256": digest(registered), "kept": registered == plan(config)}


def _mapping(data: Json) -> dict[str, Json]:
    return dict(data) if isinstance(data, dict) else {}
