"""Can a token be made to appear? Write its direction near the prompt's end, generate, and look (paper, section 4).

prompts x targets x rank classes x directions x positions x magnitudes, against the native continuation and against
random directions of the same norm. A negative magnitude writes the opposite: it erases along the direction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.stats import binomtest
from torch import Tensor

from writesae.causal.actions import Edit, Install
from writesae.causal.engine import editing
from writesae.causal.schedule import At
from writesae.edits.directions import DirectionKind, make_many_directions
from writesae.edits.generation import generate
from writesae.errors import InputError
from writesae.evals.common.stats import Interval, clustered, holm, wilcoxon, wilson
from writesae.evals.old.parts import Parts
from writesae.evals.old.probes.sign import batch_generator, draw_targets
from writesae.evals.old.probes.texts import measured_on
from writesae.evals.old.result import Result
from writesae.hosts import Host
from writesae.types import NativeWrite, Site, Timing

BATCH = 50
SATURATED = 0.5


@dataclass(frozen=True)
class InstallSweep:
    """The protocol of an install sweep."""

    directions: tuple[DirectionKind, ...] = ("closed", "exact", "random")
    magnitudes: tuple[float, ...] = (1.5, 3.0, 6.0)
    """In native writes."""
    positions: tuple[int, ...] = (3,)
    """How many consecutive last tokens of the prompt are written at."""
    ranks: tuple[tuple[int, int], ...] = ((100, 1000),)
    """Classes of targets by their rank in the native next-token distribution, the second rank excluded."""
    targets: int = 1
    """Targets a prompt and class."""
    new_tokens: int = 20
    timing: Timing = "after_token"
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
    """Continuations."""
    rate: float
    """Share of continuations that contain the target."""
    interval: Interval
    """Wilson where a prompt has one target, else bootstrap over prompts."""
    native: float
    native_interval: Interval
    random: float
    """The same with random directions of the same norm; nan where they were not run."""
    lift: float
    """Median change of the target's log probability at the first generated token, nats."""
    lift_mean: float
    lift_interval: Interval
    """Of the mean, bootstrap over prompts."""
    saturated: float
    """Share of continuations in which the target is half of the tokens or more."""
    p_native: float
    """Sign test over prompts against the native continuations (McNemar's exact test where a prompt has one target),
    Holm-corrected over all of the table's tests of inclusion."""
    p_random: float
    """The same against random directions; nan where they were not run."""
    p_lift: float
    """Wilcoxon signed-rank test of the lift over prompts against none, Holm-corrected over the rows."""


@dataclass(frozen=True)
class InstallSummary:
    """The result's table."""

    rows: tuple[InstallRow, ...]


def install_sweep(
    host: Host,
    sites: Site | Sequence[Site],
    prompts: Tensor,
    config: InstallSweep | None = None,
    progress: Callable[[int, int], None] | None = None,
    parts: Path | None = None,
    targets: Tensor | None = None,
) -> Result[InstallSweep, InstallSummary]:
    """Run the sweep on prompts `[n, T]`, greedy; several sites are written at together.

    Targets are drawn by rank, or given as token ids `[n, targets]`. Finished pieces are kept in the folder `parts`.
    Raises InputError for a site the host does not have, or ranks outside the vocabulary.
    """
    config = InstallSweep() if config is None else config
    sites = (sites,) if isinstance(sites, Site) else tuple(sites)
    if any(not 0 <= low < high <= host.vocabulary for low, high in config.ranks):
        raise InputError(f"rank classes {config.ranks} are not within a vocabulary of {host.vocabulary}")
    if config.targets < 1 or not (config.magnitudes and config.positions and config.directions and config.ranks):
        raise InputError("an install sweep needs a direction, a magnitude, a number of positions, ranks and a target")
    source = measured_on(host, sites, [prompts] if targets is None else [prompts, targets])
    pieces, tables = Parts.open(parts, "installs", source, config), []
    for begin in range(0, len(prompts), BATCH):
        given = None if targets is None else targets[begin : begin + BATCH]

        def make(begin: int = begin, given: Tensor | None = given) -> pd.DataFrame:
            return _batch(host, sites, prompts[begin : begin + BATCH], given, config, begin)

        tables.append(pieces.get(f"{begin}", make))
        if progress is not None:
            progress(min(begin + BATCH, len(prompts)), len(prompts))
    table = pd.concat(tables, ignore_index=True)
    summary = InstallSummary(_summarise(table, config.seed))
    return Result("installs", source, config, len(prompts), {}, summary, table)


def _batch(
    host: Host, sites: tuple[Site, ...], prompts: Tensor, given: Tensor | None, config: InstallSweep, begin: int
) -> pd.DataFrame:
    generator = batch_generator(config.seed, begin)
    logits = host.logits(prompts, keep=1)[:, -1].cpu()
    native = generate(host, prompts, (), config.new_tokens, stop_at_end=False).tokens
    tables = []
    for ranks in config.ranks:
        for which in range(config.targets):
            targets = draw_targets(logits, ranks, generator) if given is None else given[:, which]
            rank = (logits > logits.gather(1, targets[:, None])).sum(1)
            for kind in config.directions:
                for places in config.positions:
                    for magnitude, edits in _installs(host, sites, prompts, targets, kind, places, config, begin):
                        lift, said = _edited(host, prompts, targets, logits, edits, config)
                        trial = {
                            "prompt": range(begin, begin + len(prompts)), "target": targets, "rank": rank,
                            "included": [t in row for t, row in zip(targets.tolist(), said, strict=True)],
                            "native": [t in row for t, row in zip(targets.tolist(), native, strict=True)],
                            "lift": lift,
                            "share": [row.count(t) / len(row) for t, row in zip(targets.tolist(), said, strict=True)],
                        }  # fmt: skip
                        tables.append(
                            pd.DataFrame(trial).assign(
                                which=which, low=ranks[0], high=ranks[1], direction=kind, positions=places,
                                magnitude=magnitude,
                            )
                        )  # fmt: skip
    return pd.concat(tables, ignore_index=True)


@torch.no_grad()
def _edited(
    host: Host, prompts: Tensor, targets: Tensor, logits: Tensor, edits: list[Edit], config: InstallSweep
) -> tuple[NDArray[np.float64], list[list[int]]]:
    """Change of the targets' log probability at the first new token, and all new tokens."""
    with editing(host, edits):
        first = host.run(prompts, keep=1)[:, -1].cpu()
    change = (first.log_softmax(-1) - logits.log_softmax(-1)).gather(1, targets[:, None])[:, 0]
    said = generate(host, prompts, edits, config.new_tokens, stop_at_end=False).tokens
    return change.double().numpy(), said


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


def sign_test_over_prompts(part: pd.DataFrame, other: NDArray[np.bool_]) -> float:
    """Prompts whose continuations contain their targets more often than the other ones, against those less often.

    With one target a prompt this is McNemar's exact test; 1 where no prompt differs.
    """
    net = np.sign(part["included"].to_numpy(int) - other.astype(int))
    by_prompt = np.sign(pd.Series(net).groupby(part["prompt"].to_numpy()).sum())
    gained, lost = int((by_prompt > 0).sum()), int((by_prompt < 0).sum())
    return 1.0 if gained + lost == 0 else float(binomtest(gained, gained + lost).pvalue)


_Name = tuple[DirectionKind, float, int, int, int]
"""Direction, magnitude, positions, and the target's ranks."""


def _rate(part: pd.DataFrame, column: str, seed: int) -> Interval:
    x = part[column].to_numpy(float)
    one = part["prompt"].is_unique
    return wilson(int(x.sum()), len(x)) if one else clustered(x, part["prompt"], seed)


def _summarise(table: pd.DataFrame, seed: int) -> tuple[InstallRow, ...]:
    by = ["direction", "magnitude", "positions", "low", "high"]
    groups = {cast(_Name, name): part.sort_values(["prompt", "which"]) for name, part in table.groupby(by)}
    tests: dict[tuple[_Name, str], float] = {}
    for name, part in groups.items():
        tests[name, "native"] = sign_test_over_prompts(part, part["native"].to_numpy(bool))
        random = groups.get(("random", *name[1:]))
        if random is not None and name[0] != "random":
            tests[name, "random"] = sign_test_over_prompts(part, random["included"].to_numpy(bool))
    corrected = dict(zip(tests, holm(list(tests.values())), strict=True))
    lifts = [wilcoxon(x := part.groupby("prompt")["lift"].mean(), np.zeros(len(x))).p for part in groups.values()]
    p_lift = holm([1.0 if np.isnan(p) else p for p in lifts])
    rows = []
    for (name, part), p in zip(groups.items(), p_lift, strict=True):
        random = groups.get(("random", *name[1:]))
        rows.append(
            InstallRow(
                name[0], name[1], name[2], (name[3], name[4]), len(part), float(part["included"].mean()),
                _rate(part, "included", seed), float(part["native"].mean()), _rate(part, "native", seed),
                float("nan") if random is None else float(random["included"].mean()), float(part["lift"].median()),
                float(part["lift"].mean()), clustered(part["lift"], part["prompt"], seed),
                float((part["share"] >= SATURATED).mean()), corrected[name, "native"],
                corrected.get((name, "random"), float("nan")), p,
            )
        )  # fmt: skip
    return tuple(rows)
