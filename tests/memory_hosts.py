"""The embedded hosts that remember facts: which can be loaded here, their cards, and where they keep a fact."""

from __future__ import annotations

import json
import warnings
from functools import cache
from typing import Any

import pytest

from writesae.evals.recall.changed import Cell
from writesae.hosts import EMBEDDED, Host, load
from writesae.hosts.inventory import shipped
from writesae.types import Site

NEEDS = {host.name: host.needs for host in shipped() if host.name.startswith("memory-")}
"""What is to be installed for each of them; nothing where it can be loaded."""
HERE = [name for name, needs in NEEDS.items() if not needs]
"""Those that need nothing that is not installed."""
MEMORY_HOSTS = [
    pytest.param(name, marks=pytest.mark.skipif(bool(needs), reason=needs or "")) for name, needs in NEEDS.items()
]
"""All, as parameters of a test."""


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
