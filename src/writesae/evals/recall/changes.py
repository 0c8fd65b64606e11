"""Everything that is done to the writes that hold a fact: deleted, replaced, and others deleted for comparison."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import product
from typing import Literal, NamedTuple

import numpy as np

from writesae.causal.actions import Action
from writesae.evals.common.controls import readings_of
from writesae.evals.recall import RecallConfig
from writesae.evals.recall.changed import Cell, deletion, written_form
from writesae.evals.recall.located import cells_of
from writesae.evals.recall.sufficient import AllInstead, AtomInstead, RandomInstead
from writesae.evals.recall.summary import BY
from writesae.hosts import Host
from writesae.sae import SAE
from writesae.sae.config import Flat
from writesae.types import Site

CONTROLS = 4
"""Sets of other writes that are deleted for comparison, at most."""

Kind = Literal["states", "writes"]
"""What a dictionary models."""


class Change(NamedTuple):
    """What is done to the writes at some cells."""

    condition: str
    dictionary: str
    reading: str
    amplitude: str
    draw: int
    """Which set of other writes."""
    cells: tuple[Cell, ...]
    action: Callable[[Site], Action]

    @property
    def how(self) -> dict[str, str]:
        """What tells it from others, but for the draw."""
        return {name: getattr(self, name) for name in BY}


def changes(
    host: Host, saes: Mapping[Kind, Mapping[Site, SAE]], cells: Sequence[Cell], config: RecallConfig, reach: int,
    begin: int,
) -> list[Change]:  # fmt: skip
    """Everything that is done to a fact's writes, in passages of which `begin` is the first."""
    form, own, gone = written_form(host), tuple(cells), deletion(host)
    noise = RandomInstead((config.seed, begin), form)
    every = "attention" if host.attends else "everything"
    made = [
        Change("delete", "", "", "", 0, own, gone),
        Change(every, "", "", "", 0, tuple(cells_of(host, reach)), gone),
        *(Change("other", "", "", "", i, some, gone) for i, some in enumerate(others(host, cells, config.seed))),
        Change("random", "", "", "norm", 0, own, lambda site: noise),
    ]
    for kind, group in saes.items():
        readings, atom = readings_of(list(group.values()), config.readings), partial(AtomInstead, native_write=form)

        def add(condition: str, reading: str, amplitude: str, make: Callable[[SAE], Action]) -> None:
            by_site = {site: make(sae) for site, sae in group.items()}  # noqa: B023  called within this turn
            made.append(Change(condition, kind, reading, amplitude, 0, own, by_site.__getitem__))  # noqa: B023

        flat = any(isinstance(sae.config.decoder, Flat) for sae in group.values())
        for how in readings:
            for cut, size in product((False, True) if flat else (False,), config.amplitudes):
                one = partial(atom, choice=how, amount=size, rank_one=cut)
                add("flat_svd" if cut else "atom", how, size, one)
            add("all_active", how, "coefficient", partial(AllInstead, choice=how, native_write=form))
        for size in config.amplitudes:
            if size != "coefficient":
                add("nearest", "", size, partial(atom, choice="cosine", amount=size))
    return made


def others(host: Host, cells: Sequence[Cell], seed: int) -> list[tuple[Cell, ...]]:
    """Sets of as many other writes at the same tokens, at random; fewer in a set where there are too few."""
    offsets = dict.fromkeys(cell.offset for cell in cells)
    left = [cell for offset in offsets for site in host.sites if (cell := Cell(site, offset)) not in cells]
    mixed = [left[i] for i in np.random.default_rng(seed).permutation(len(left))]
    sets = [tuple(mixed[i : i + len(cells)]) for i in range(0, len(mixed), len(cells))]
    return [some for some in sets if len(some) == len(cells) or some is sets[0]][:CONTROLS]
