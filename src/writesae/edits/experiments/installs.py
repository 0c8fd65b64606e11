"""Can a token be made to appear? Write its direction near the prompt's end, generate, and look (paper, section 4).

prompts x directions x magnitudes x positions x rank classes of the target, against the native continuation and against
random directions of the same norm.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import cast

import numpy as np
import pandas as pd
import torch
from scipy.stats import binomtest
from statsmodels.stats.multitest import multipletests
from torch import Tensor

from writesae.edits.actions import Edit, Install
from writesae.edits.directions import DirectionKind, make_many_directions
from writesae.edits.engine import editing
from writesae.edits.experiments.sign import draw_targets
from writesae.edits.generation import generate
from writesae.edits.schedule import At
from writesae.edits.seen import NativeWrite
from writesae.errors import InputError
from writesae.evals.stats import Interval, wilson
from writesae.hosts import Host
from writesae.types import Protocol, Site

BATCH = 50
SATURATED = 0.5


@dataclass(frozen=True)
class InstallSweep:
    """The protocol of an install sweep."""

    directions: tuple[DirectionKind, ...] = ("closed", "exact", "random")
    magnitudes: tuple[float, ...] = (1.5, 3.0, 6.0)
    """In native writes."""
    positions: tuple[int, ...] = (3,)
    """How many last tokens of the prompt are written at."""
    ranks: tuple[tuple[int, int], ...] = ((100, 1000),)
    """Classes of targets by their rank in the native next-token distribution; one target a prompt and class."""
    new_tokens: int = 20
    timing: Protocol = "after_token"
    form: NativeWrite = "value"
    seed: int = 0


@dataclass(frozen=True)
class InstallRow:
    """One direction, magnitude, number of positions and rank class."""

    direction: DirectionKind
    magnitude: float
    positions: int
    ranks: tuple[int, int]
    n: int
    rate: float
    """Share of continuations that contain the target."""
    interval: Interval
    native: float
    native_interval: Interval
    random: float
    """The same with random directions of the same norm; nan where they were not run."""
    lift: float
    """Median change of the target's log probability at the first generated token, nats."""
    saturated: float
    """Share of continuations in which the target is half of the tokens or more."""
    p_native: float
    """Exact McNemar test against the native continuations, Holm-corrected over the rows."""
    p_random: float


@dataclass(frozen=True)
class InstallResult:
    """The result, with one record a continuation."""

    sites: tuple[Site, ...]
    host: str
    revision: str
    config: InstallSweep
    rows: tuple[InstallRow, ...]
    records: pd.DataFrame = field(repr=False)


def install_sweep(
    host: Host,
    sites: Site | Sequence[Site],
    prompts: Tensor,
    config: InstallSweep | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> InstallResult:
    """Run the sweep on prompts `[n, T]`, greedy; several sites are written at together.

    Raises InputError for a site the host does not have, or ranks outside the vocabulary.
    """
    config = InstallSweep() if config is None else config
    sites = (sites,) if isinstance(sites, Site) else tuple(sites)
    if any(not 0 <= low < high <= host.vocabulary for low, high in config.ranks):
        raise InputError(f"rank classes {config.ranks} are not within a vocabulary of {host.vocabulary}")
    generator = torch.Generator().manual_seed(config.seed)
    records: list[dict[str, object]] = []
    for begin in range(0, len(prompts), BATCH):
        part = prompts[begin : begin + BATCH]
        native_logits = host.logits(part, keep=1)[:, -1]
        native = generate(host, part, (), config.new_tokens, stop_at_end=False).tokens
        for ranks in config.ranks:
            targets = draw_targets(native_logits, ranks, generator)
            base = native_logits.log_softmax(-1).cpu().gather(1, targets[:, None])[:, 0]
            for kind in config.directions:
                for places in config.positions:
                    for magnitude, edits in _installs(host, sites, part, targets, kind, places, config, begin):
                        with torch.no_grad(), editing(host, edits):
                            first = (
                                host.run(part, keep=1)[:, -1].log_softmax(-1).cpu().gather(1, targets[:, None])[:, 0]
                            )
                        said = generate(host, part, edits, config.new_tokens, stop_at_end=False).tokens
                        for r, target in enumerate(targets.tolist()):
                            records.append(
                                {
                                    "prompt": begin + r, "target": target, "low": ranks[0], "high": ranks[1],
                                    "direction": kind, "positions": places, "magnitude": magnitude,
                                    "included": target in said[r], "native": target in native[r],
                                    "lift": float(first[r] - base[r]),
                                    "share": said[r].count(target) / len(said[r]),
                                }
                            )  # fmt: skip
        if progress is not None:
            progress(min(begin + BATCH, len(prompts)), len(prompts))
    table = pd.DataFrame(records)
    return InstallResult(sites, host.name, host.revision, config, _summarise(table), table)


def _installs(
    host: Host,
    sites: tuple[Site, ...],
    prompts: Tensor,
    targets: Tensor,
    kind: DirectionKind,
    places: int,
    config: InstallSweep,
    begin: int,
) -> list[tuple[float, list[Edit]]]:
    where = tuple(range(-places, 0))
    made = make_many_directions(
        host,
        sites,
        prompts,
        tuple(targets.tolist()),
        kind,
        where,
        config.timing,
        seed=config.seed + 7919 * begin + places,
    )
    return [
        (m, [Edit(s, Install(*d, m, config.form, label=kind), At(where), config.timing) for s, d in made.items()])
        for m in config.magnitudes
    ]


def _discordant(
    ours: np.ndarray[tuple[int], np.dtype[np.bool_]], other: np.ndarray[tuple[int], np.dtype[np.bool_]]
) -> float:
    gained, lost = int((ours & ~other).sum()), int((~ours & other).sum())
    return 1.0 if gained + lost == 0 else float(binomtest(gained, gained + lost).pvalue)


_Name = tuple[DirectionKind, float, int, int, int]
"""Direction, magnitude, positions, and the target's ranks."""


def _summarise(table: pd.DataFrame) -> tuple[InstallRow, ...]:
    by = ["direction", "magnitude", "positions", "low", "high"]
    groups = {cast(_Name, name): part.sort_values("prompt") for name, part in table.groupby(by)}
    raw: list[float] = []
    for name, part in groups.items():
        ours = part["included"].to_numpy(bool)
        random = groups.get(("random", *name[1:]))
        raw.append(_discordant(ours, part["native"].to_numpy(bool)))
        raw.append(float("nan") if random is None else _discordant(ours, random["included"].to_numpy(bool)))
    known = ~np.isnan(raw)
    corrected = np.full(len(raw), np.nan)
    corrected[known] = multipletests(np.array(raw)[known], method="holm")[1]
    rows = []
    for i, (name, part) in enumerate(groups.items()):
        random = groups.get(("random", *name[1:]))
        n, hits, before = len(part), int(part["included"].sum()), int(part["native"].sum())
        rows.append(
            InstallRow(
                name[0], name[1], name[2], (name[3], name[4]), n, hits / n, wilson(hits, n), before / n,
                wilson(before, n), float("nan") if random is None else float(random["included"].mean()),
                float(part["lift"].median()), float((part["share"] >= SATURATED).mean()),
                float(corrected[2 * i]), float(corrected[2 * i + 1]),
            )
        )  # fmt: skip
    return tuple(rows)
