"""Write targets' directions near the end of prompts, and see whether the targets are said: one trial a prompt.

What `installs` and `proper_nouns` share. Several heads are written at together, each along its own direction.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import pandas as pd
from torch import Tensor

from writesae.causal.actions import Edit, Install
from writesae.causal.budget import passages_at_once
from writesae.causal.rounding import nudged_logits
from writesae.causal.schedule import At
from writesae.edits.directions import Direction, make_many_directions
from writesae.edits.generation import generate
from writesae.errors import InputError
from writesae.evals.common.conditions import Continued
from writesae.evals.common.draws import unit_rows
from writesae.hosts import Host
from writesae.types import DirectionKind, Site, Timing

PIECE = 48
"""Prompts of one piece: they are short."""


@dataclass(frozen=True)
class Prompts:
    """Prompts and what the host says after them unedited."""

    host: Host
    sites: tuple[Site, ...]
    """Where is written."""
    tokens: Tensor
    """`[n, T]`."""
    passages: tuple[int, ...]
    """The passage that each is of."""
    logits: Tensor
    """Next-token logits, `[n, vocabulary]`, on the CPU."""
    floor: Tensor
    """The largest difference of any log probability between two native runs, one of them nudged, `[n]`: rounding."""
    said: list[list[int]]
    """New tokens."""


def natively(host: Host, sites: tuple[Site, ...], tokens: Tensor, passages: tuple[int, ...], new: int) -> Prompts:
    """Continue prompts `[n, T]` unedited, by so many new tokens."""
    native = generate(host, tokens, (), new, stop_at_end=False)
    pair = (host.logits(tokens, keep=1), nudged_logits(host, tokens, sites, keep=1))
    one, other = (x[:, -1].log_softmax(-1) for x in pair)
    return Prompts(
        host, sites, tokens, passages, native.logits.cpu(), (one - other).abs().amax(-1).cpu(), native.tokens
    )


def batches(host: Host, sites: tuple[Site, ...], length: int, begin: int, end: int) -> Iterator[range]:
    """Prompts `begin` to `end` in runs of as many as fit, with the graph of a gradient."""
    at_once = passages_at_once(host, length + 1, min(site.layer for site in sites), read=2, graph=True, most=PIECE)
    return (range(a, min(a + at_once, end)) for a in range(begin, end, at_once))


def trials(
    prompts: Prompts, targets: Tensor, config: Continued, last_tokens: tuple[int, ...], *key: object
) -> pd.DataFrame:
    """One row a prompt and way of writing; `targets` is one token a prompt, and `key` names them for random draws."""
    wanted, own = targets.tolist(), targets[:, None]
    native = prompts.logits.log_softmax(-1).gather(1, own)[:, 0]
    fixed = {
        "passage": prompts.passages,
        "target": wanted,
        "rank": (prompts.logits > prompts.logits.gather(1, own)).sum(1),
        "native": [token in row for token, row in zip(wanted, prompts.said, strict=True)],
        "floor": prompts.floor.double(),
    }
    tables = []
    for kind, last, timing in product(config.directions, last_tokens, config.timings):
        made = _directions(prompts, wanted, config.seed, kind, last, timing, *key)
        where = At(tuple(range(-last, 0)))
        for form, magnitude in product(config.native_writes, config.magnitudes):
            installs = {site: Install(*pair, magnitude, form, label=kind) for site, pair in made.items()}
            edits = [Edit(site, what, where, timing) for site, what in installs.items()]
            said = generate(prompts.host, prompts.tokens, edits, config.new_tokens, stop_at_end=False)
            pairs = list(zip(wanted, said.tokens, strict=True))
            found = {
                "included": [token in row for token, row in pairs],
                "lift": (said.logits.cpu().log_softmax(-1).gather(1, own)[:, 0] - native).double(),
                "share": [row.count(token) / len(row) for token, row in pairs],
            }
            cell = {"direction": kind, "last": last, "timing": timing, "native_write": form, "magnitude": magnitude}
            tables.append(pd.DataFrame(fixed | found).assign(**cell))
    return pd.concat(tables, ignore_index=True)


def _directions(
    prompts: Prompts, targets: list[int], seed: int, kind: DirectionKind, last: int, timing: Timing, *key: object
) -> dict[Site, Direction]:
    host, where = prompts.host, tuple(range(-last, 0))
    if kind != "random":
        return make_many_directions(host, prompts.sites, prompts.tokens, tuple(targets), kind, where, timing)
    made = {}
    for site in prompts.sites:
        layer = host.layer(site.layer)
        sizes = [(last, layer.d_k), (last, layer.d_v)]
        made[site] = Direction(*unit_rows(seed, site, "random", *key, passages=prompts.passages, sizes=sizes))
    return made


def check_last(last: tuple[int, ...], length: int) -> None:
    """Raise InputError for more last tokens than a prompt has."""
    if max(last) > length:
        raise InputError(f"{max(last)} last tokens of prompts of {length} were to be written at")
