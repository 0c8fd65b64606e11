"""Can a proper noun be installed or erased? The published null of names, with what it takes to call it a null.

Contexts end right before a name of the text, so that the name is the target and often said without any edit. Its
direction is written there as it is (installing) and turned round (erasing). The same is done with ordinary words. That
no difference was found shows nothing by itself: an equivalence test asks whether one of `margin` or more is excluded.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from statsmodels.stats.weightstats import ttost_paired
from torch import Tensor

from writesae.edits.directions import DirectionKind
from writesae.errors import InputError
from writesae.evals.common.stats import Interval, clustered, holm, mann_whitney, wilcoxon
from writesae.evals.old.probes.installs import InstallSweep, install_sweep, sign_test_over_prompts
from writesae.evals.old.probes.texts import measured_on
from writesae.evals.old.result import Result
from writesae.hosts import Host
from writesae.types import Site, Timing

ALPHA = 0.05
Class = Literal["name", "word"]
Verdict = Literal["effect", "null", "undecided"]


@dataclass(frozen=True)
class NamesConfig:
    """The protocol of the proper-noun probe."""

    directions: tuple[DirectionKind, ...] = ("closed", "exact", "random")
    magnitudes: tuple[float, ...] = (-3.0, 3.0)
    """In native writes; negative ones erase along the direction."""
    positions: int = 3
    """How many last tokens of the context are written at."""
    length: int = 24
    """Tokens a context."""
    new_tokens: int = 20
    timing: Timing = "after_token"
    margin: float = 0.05
    """Differences of inclusion below this are called none."""
    seed: int = 0


@dataclass(frozen=True)
class NamesRow:
    """One class of targets, direction and magnitude."""

    targets: Class
    direction: DirectionKind
    magnitude: float
    n: int
    native: float
    """Share of unedited continuations that contain the target."""
    rate: float
    difference: Interval
    """Of the edited minus the unedited share, bootstrap over contexts."""
    p: float
    """McNemar's exact test, Holm-corrected over the table."""
    p_equivalent: float
    """Two one-sided tests that the difference is smaller than the margin, Holm-corrected over the table."""
    verdict: Verdict
    """`effect`: p below 0.05; `null`: p_equivalent below 0.05; `undecided`: neither."""
    lift: float
    """Mean change of the target's log probability at the first generated token, nats."""
    lift_interval: Interval
    p_lift: float
    """Wilcoxon signed-rank test of the lift against none, Holm-corrected over the table."""
    p_words: float
    """Mann-Whitney test of the lift against ordinary words, Holm-corrected; nan for words."""


@dataclass(frozen=True)
class NamesSummary:
    """How many tokens count as names, and the table."""

    names: int
    words: int
    rows: tuple[NamesRow, ...]


def name_tokens(host: Host) -> tuple[frozenset[int], frozenset[int]]:
    """Token ids of names and of ordinary words.

    A name is a capitalised word of three letters or more whose lower-case spelling is no token (` America`, not
    ` The`); a word is a lower-case one whose capitalised spelling is no token. Raises InputError where there are none.
    """
    texts = {i: host.text([i]) for i in range(len(host.tokenizer))}
    known = set(texts.values())
    names = frozenset(i for i, t in texts.items() if re.fullmatch(" [A-Z][a-z]{2,}", t) and t.lower() not in known)
    words = frozenset(i for i, t in texts.items() if re.fullmatch(" [a-z]{3,}", t) and t.title() not in known)
    if not names or not words:
        raise InputError(
            f"the tokens of {host.name} hold {len(names)} names and {len(words)} words: nothing to compare"
        )
    return names, words


def contexts_before(texts: Tensor, ids: frozenset[int], length: int) -> tuple[Tensor, Tensor]:
    """The first place of each text `[n, T]` where, after `length` tokens or more, a token of these ids comes next:
    the `length` tokens before it, `[m, length]`, and the token, `[m, 1]`."""
    found = torch.isin(texts, torch.tensor(sorted(ids)))
    found[:, :length] = False
    rows = found.any(1).nonzero()[:, 0]
    place = found[rows].int().argmax(1)
    contexts = [texts[r, p - length : p] for r, p in zip(rows.tolist(), place.tolist(), strict=True)]
    if not contexts:
        return texts.new_zeros(0, length), texts.new_zeros(0, 1)
    return torch.stack(contexts), texts[rows, place][:, None]


def proper_nouns(
    host: Host,
    sites: tuple[Site, ...],
    texts: Tensor,
    n: int,
    config: NamesConfig | None = None,
    progress: Callable[[int, int], None] | None = None,
    parts: Path | None = None,
) -> Result[NamesConfig, NamesSummary]:
    """Run the probe on `n` contexts of each class, cut from texts `[m, T]` with `T > config.length`.

    Finished pieces are kept in the folder `parts`. Raises InputError where the texts hold too few names or words.
    """
    config = NamesConfig() if config is None else config
    if not 0 < config.margin < 1 or n < 1:
        raise InputError(f"a margin of {config.margin:g} and {n} contexts were asked for: give a share, and 1 or more")
    classes = dict(zip(("name", "word"), name_tokens(host), strict=True))
    sweep = InstallSweep(
        config.directions, config.magnitudes, (config.positions,), ((0, host.vocabulary),), 1, config.new_tokens,
        config.timing, seed=config.seed,
    )  # fmt: skip
    cut = {name: contexts_before(texts, ids, config.length) for name, ids in classes.items()}
    for name, (contexts, _) in cut.items():
        if len(contexts) < n:
            raise InputError(
                f"{len(texts)} texts hold {len(contexts)} {name}s after {config.length} tokens, {n} were asked for: "
                "ask for fewer, or give more or longer text"
            )
    tables = []
    for index, (name, (contexts, targets)) in enumerate(cut.items()):

        def tell(done: int, total: int, before: int = index * n) -> None:
            if progress is not None:
                progress(before + done, 2 * n)

        folder = None if parts is None else parts / name
        found = install_sweep(host, sites, contexts[:n], sweep, tell, folder, targets[:n])
        tables.append(found.records.assign(targets=name))
    records = pd.concat(tables, ignore_index=True)
    source = measured_on(host, sites, (texts,))
    summary = NamesSummary(len(classes["name"]), len(classes["word"]), _summarise(records, config))
    return Result("proper-nouns", source, config, 2 * n, {}, summary, records)


def equivalence(difference: NDArray[np.float64], margin: float) -> float:
    """p of two one-sided paired t tests that the mean difference lies within `margin` of 0.

    Where no pair differs there is no variance to test with: the chance that none of n pairs differs if a share of
    `margin` does.
    """
    if not difference.any():
        return float((1 - margin) ** len(difference))
    return float(ttost_paired(difference, np.zeros(len(difference)), -margin, margin)[0])


def _summarise(records: pd.DataFrame, config: NamesConfig) -> tuple[NamesRow, ...]:
    groups = {
        cast(tuple[Class, DirectionKind, float], name): part.sort_values("prompt")
        for name, part in records.groupby(["targets", "direction", "magnitude"])
    }
    change = {name: part["included"].to_numpy(float) - part["native"].to_numpy(float) for name, part in groups.items()}
    p = holm([sign_test_over_prompts(part, part["native"].to_numpy(bool)) for part in groups.values()])
    same = holm([equivalence(x, config.margin) for x in change.values()])
    lifts = [wilcoxon(part["lift"], np.zeros(len(part))).p for part in groups.values()]
    p_lift = holm([1.0 if np.isnan(x) else x for x in lifts])
    names = [name for name in groups if name[0] == "name"]
    against = holm([mann_whitney(groups[name]["lift"], groups["word", *name[1:]]["lift"]).p for name in names])
    p_words = dict(zip(names, against, strict=True))
    rows = []
    for i, (name, part) in enumerate(groups.items()):
        verdict: Verdict = "effect" if p[i] < ALPHA else "null" if same[i] < ALPHA else "undecided"
        rows.append(
            NamesRow(
                *name, len(part), float(part["native"].mean()), float(part["included"].mean()),
                clustered(change[name], part["prompt"], config.seed), p[i], same[i], verdict,
                float(part["lift"].mean()), clustered(part["lift"], part["prompt"], config.seed), p_lift[i],
                p_words.get(name, float("nan")),
            )
        )  # fmt: skip
    return tuple(rows)
