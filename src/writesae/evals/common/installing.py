"""Write targets' directions near the end of prompts, and see whether the targets are said: one trial a prompt.

What `installs` and `proper_nouns` share. Several heads are written at together, each along its own direction.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from writesae.causal.actions import Edit, Install
from writesae.causal.budget import passages_at_once
from writesae.causal.engine import editing
from writesae.causal.schedule import At
from writesae.edits.directions import Direction, make_many_directions
from writesae.edits.generation import generate
from writesae.errors import InputError
from writesae.evals.common.draws import unit_rows
from writesae.hosts import Host
from writesae.types import DirectionKind, NativeWrite, Site, Timing

PIECE = 48
"""Prompts of one piece: they are short."""


@dataclass(frozen=True)
class Sweep:
    """What is written at each prompt: the grid of all of these."""

    sites: tuple[Site, ...]
    directions: tuple[DirectionKind, ...]
    magnitudes: tuple[float, ...]
    last: tuple[int, ...]
    timings: tuple[Timing, ...]
    native_writes: tuple[NativeWrite, ...]
    new_tokens: int
    seed: int


@dataclass(frozen=True)
class Prompts:
    """Prompts and what the host says after them unedited."""

    host: Host
    tokens: Tensor
    """`[n, T]`."""
    passages: tuple[int, ...]
    """The passage that each is of."""
    logits: Tensor
    """Next-token logits, `[n, vocabulary]`, on the CPU."""
    floor: Tensor
    """The largest difference of any log probability to a second native run, in which the prompts stand in another
    order, `[n]`: rounding."""
    said: list[list[int]]
    """New tokens."""


@torch.no_grad()
def natively(host: Host, tokens: Tensor, passages: tuple[int, ...], new_tokens: int) -> Prompts:
    """Run prompts `[n, T]` as they are."""
    logits = host.logits(tokens, keep=1)[:, -1]
    again = host.logits(tokens.flip(0), keep=1)[:, -1].flip(0)
    floor = (logits.log_softmax(-1) - again.log_softmax(-1)).abs().amax(-1)
    said = generate(host, tokens, (), new_tokens, stop_at_end=False).tokens
    return Prompts(host, tokens, passages, logits.cpu(), floor.cpu(), said)


def batches(host: Host, sites: tuple[Site, ...], length: int, begin: int, end: int) -> Iterator[range]:
    """Prompts `begin` to `end` in runs of as many as fit, with the graph of a gradient."""
    at_once = passages_at_once(host, length + 1, min(site.layer for site in sites), read=2, graph=True, most=PIECE)
    return (range(a, min(a + at_once, end)) for a in range(begin, end, at_once))


def trials(prompts: Prompts, targets: Tensor, sweep: Sweep, *key: object) -> pd.DataFrame:
    """One row a prompt and cell of the grid; `targets` is one token a prompt, and `key` names them for random draws."""
    logits, wanted = prompts.logits, targets.tolist()
    own = logits.gather(1, targets[:, None])
    fixed = {
        "passage": prompts.passages,
        "target": wanted,
        "rank": (logits > own).sum(1),
        "native": [token in said for token, said in zip(wanted, prompts.said, strict=True)],
        "floor": prompts.floor.double(),
    }
    tables = []
    for kind in sweep.directions:
        for places in sweep.last:
            for timing in sweep.timings:
                made = _directions(prompts, wanted, sweep, kind, places, timing, *key)
                for form in sweep.native_writes:
                    for magnitude in sweep.magnitudes:
                        where = At(tuple(range(-places, 0)))
                        edits = [
                            Edit(site, Install(*pair, magnitude, form, label=kind), where, timing)
                            for site, pair in made.items()
                        ]
                        lift, said = _edited(prompts, targets, edits, sweep.new_tokens)
                        found = {
                            "included": [token in row for token, row in zip(wanted, said, strict=True)],
                            "lift": lift,
                            "share": [row.count(token) / len(row) for token, row in zip(wanted, said, strict=True)],
                        }
                        cell = {"direction": kind, "last": places, "timing": timing, "native_write": form}
                        tables.append(pd.DataFrame(fixed | found).assign(**cell, magnitude=magnitude))
    return pd.concat(tables, ignore_index=True)


def _directions(
    prompts: Prompts, targets: list[int], sweep: Sweep, kind: DirectionKind, places: int, timing: Timing, *key: object
) -> dict[Site, Direction]:
    host, where = prompts.host, tuple(range(-places, 0))
    if kind != "random":
        return make_many_directions(host, sweep.sites, prompts.tokens, tuple(targets), kind, where, timing)
    made = {}
    for site in sweep.sites:
        layer = host.layer(site.layer)
        sizes = [(places, layer.d_k), (places, layer.d_v)]
        made[site] = Direction(*unit_rows(sweep.seed, site, "random", *key, passages=prompts.passages, sizes=sizes))
    return made


@torch.no_grad()
def _edited(
    prompts: Prompts, targets: Tensor, edits: list[Edit], new_tokens: int
) -> tuple[NDArray[np.float64], list[list[int]]]:
    """Change of the targets' log probability at the first new token, and all new tokens."""
    with editing(prompts.host, edits):
        first = prompts.host.run(prompts.tokens, keep=1)[:, -1].cpu()
    change = (first.log_softmax(-1) - prompts.logits.log_softmax(-1)).gather(1, targets[:, None])[:, 0]
    said = generate(prompts.host, prompts.tokens, edits, new_tokens, stop_at_end=False).tokens
    return change.double().numpy(), said


def check_last(last: tuple[int, ...], length: int) -> None:
    """Raise InputError for more last tokens than a prompt has."""
    if max(last) > length:
        raise InputError(f"{max(last)} last tokens of prompts of {length} were to be written at")
