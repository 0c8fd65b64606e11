"""The embedded hosts that remember facts: which can be loaded here, their cards, and where they keep a fact."""

from __future__ import annotations

import json
import warnings
from functools import cache
from importlib.util import find_spec
from typing import Any

from writesae.evals.recall.changed import Cell
from writesae.hosts import EMBEDDED, Host, load
from writesae.types import Site

_NEEDS = {"memory-deltanet": "fla", "memory-gla": "fla", "memory-rwkv7": "rwkv7_hf"}
MEMORY_HOSTS = [name for name in EMBEDDED if name.startswith("memory-")]
HERE = [name for name in MEMORY_HOSTS if find_spec(_NEEDS.get(name, "torch")) is not None]
"""Those that need nothing that is not installed."""


@cache
def memory_host(name: str) -> Host:
    """One of `HERE`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fla warns of missing GPUs, rwkv7-hf of transformers
        return load(name)


def card(name: str) -> dict[str, Any]:
    """What was measured of a host."""
    found: dict[str, Any] = json.loads((EMBEDDED[name] / "card.json").read_text())
    return found


def binding_cells(name: str) -> tuple[Cell, ...]:
    """The writes that hold a fact, by the card."""
    found = []
    for said in card(name)["deleted together"]:
        site, offset = said.split("+")
        found.append(Cell(Site.parse(site), int(offset)))
    return tuple(found)
