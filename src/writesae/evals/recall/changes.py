"""Everything that is done to the writes that hold a fact: deleted, replaced, and others deleted for comparison."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from writesae.causal.actions import Action
from writesae.evals.common.controls import readings_of
from writesae.evals.recall import RecallConfig
from writesae.evals.recall.changed import Cell, deletion, written_form
from writesae.evals.recall.located import cells_of
from writesae.evals.recall.sufficient import AllInstead, AtomInstead, RandomInstead
from writesae.hosts import Host
from writesae.sae import SAE
from writesae.sae.config import Flat
from writesae.types import Site

CONTROLS = 4
"""Sets of other writes that are deleted for comparison, at most."""


class Change(NamedTuple):
    """What is done to the writes at some cells."""

    condition: str
    reading: str
    amplitude: str
    draw: int
    """Which set of other writes."""
    cells: tuple[Cell, ...]
    action: Callable[[Site], Action]


def changes(
    host: Host, saes: Mapping[Site, SAE], cells: Sequence[Cell], config: RecallConfig, reach: int, begin: int
) -> list[Change]:
    """Everything that is done to a fact's writes, in passages of which `begin` is the first."""
    form, own, gone = written_form(host), tuple(cells), deletion(host)
    noise = RandomInstead((config.seed, begin), form)
    made = [
        Change("delete", "", "", 0, own, gone),
        Change("everything", "", "", 0, tuple(cells_of(host, reach)), gone),
        *(Change("other", "", "", i, some, gone) for i, some in enumerate(others(host, cells, config.seed))),
        Change("random", "", "norm", 0, own, lambda site: noise),
    ]

    def instead(make: Callable[[SAE], Action]) -> Callable[[Site], Action]:
        by_site = {site: make(sae) for site, sae in saes.items()}
        return by_site.__getitem__

    def add(condition: str, reading: str, amplitude: str, make: Callable[[SAE], Action]) -> None:
        made.append(Change(condition, reading, amplitude, 0, own, instead(make)))

    flat = any(isinstance(sae.config.decoder, Flat) for sae in saes.values())
    for how in readings_of(list(saes.values()), config.readings) if saes else ():
        for size in config.amplitudes:
            add("atom", how, size, partial(AtomInstead, choice=how, amount=size, native_write=form))
            if flat:
                add(
                    "flat_svd",
                    how,
                    size,
                    partial(AtomInstead, choice=how, amount=size, native_write=form, rank_one=True),
                )
        add("all_active", how, "coefficient", partial(AllInstead, choice=how, native_write=form))
    for size in config.amplitudes if saes else ():
        if size != "coefficient":
            add("nearest", "", size, partial(AtomInstead, choice="cosine", amount=size, native_write=form))
    return made


def others(host: Host, cells: Sequence[Cell], seed: int) -> list[tuple[Cell, ...]]:
    """Sets of as many other writes at the same tokens, at random; fewer in a set where there are too few."""
    offsets = dict.fromkeys(cell.offset for cell in cells)
    left = [cell for offset in offsets for site in host.sites if (cell := Cell(site, offset)) not in cells]
    mixed = [left[i] for i in np.random.default_rng(seed).permutation(len(left))]
    sets = [tuple(mixed[i : i + len(cells)]) for i in range(0, len(mixed), len(cells))]
    return [some for some in sets if len(some) == len(cells) or some is sets[0]][:CONTROLS]
