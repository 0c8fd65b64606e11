"""Does amplifying the features of a class of tokens change how many of them are said? With doses and a random control.

Paper section 4, Table 4 (newlines and sentence boundaries), and its proper-noun null: the same test, another class.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

import numpy as np
import pandas as pd
import torch
from scipy.stats import wilcoxon
from statsmodels.stats.multitest import multipletests
from torch import Tensor

from writesae.edits.actions import Edit, ScaleFeatures
from writesae.edits.experiments.erasure import firings
from writesae.edits.generation import Sampling, generate
from writesae.edits.schedule import Always
from writesae.errors import InputError
from writesae.evals.writes import head_writes
from writesae.hosts import Host
from writesae.hosts.fork import native_run
from writesae.sae import SAE
from writesae.types import Protocol, Site


@dataclass(frozen=True)
class AmplificationConfig:
    """The protocol of an amplification test."""

    doses: tuple[float, ...] = (2.0, 5.0, 10.0)
    """Factors of the features' coefficients, at every token."""
    features: int = 10
    """How many of the class's features are amplified, and how many random ones in the control."""
    new_tokens: int = 400
    sampling: Sampling = field(default_factory=Sampling)
    timing: Protocol = "after_token"
    seed: int = 0
    """Of the random features."""


@dataclass(frozen=True)
class AmplificationRow:
    """One set of features at one dose, against the unedited generations of the same prompts."""

    condition: str
    """`class` or `random`."""
    dose: float
    n: int
    native: float
    """Mean number of class tokens in the unedited generations."""
    mean: float
    cohens_d: float
    """Paired: mean difference over its standard deviation; 0 where nothing changed."""
    p: float
    """Paired Wilcoxon, Holm-corrected over the rows; 1 where nothing changed."""
    p_random: float
    """The same against the random features at the same dose; nan for the control itself."""


@dataclass(frozen=True)
class Amplification:
    """The result, with one record a generation."""

    site: Site
    host: str
    revision: str
    features: tuple[int, ...]
    random_features: tuple[int, ...]
    config: AmplificationConfig
    rows: tuple[AmplificationRow, ...]
    records: pd.DataFrame = field(repr=False)


def tokens_matching(host: Host, pattern: str) -> frozenset[int]:
    r"""Ids of the tokens whose text matches a regular expression: `\n` for newlines, `^ [A-Z][a-z]+$` for words that
    look like names. Raises InputError where none does."""
    found = frozenset(i for i in range(len(host.tokenizer)) if re.search(pattern, host.text([i])))
    if not found:
        raise InputError(f"no token of {host.name} matches {pattern!r}")
    return found


@torch.no_grad()
def class_features(
    host: Host, sae: SAE, site: Site, passages: Tensor, ids: frozenset[int], count: int
) -> tuple[int, ...]:
    """The features that fire most at tokens of a class beyond how often they fire elsewhere, in passages `[B, T]`.

    Raises InputError where the passages hold no token of the class, or fewer than `count` features fire.
    """
    fired = firings(sae, head_writes(native_run(host, passages, site.layer), site.head)).float()
    inside = torch.isin(passages, torch.tensor(sorted(ids))).to(fired.device)
    if not inside.any() or inside.all():
        raise InputError(
            f"{int(inside.sum())} of {inside.numel()} tokens of the passages are of the class: cannot compare"
        )
    if int(fired.flatten(0, 1).any(0).sum()) < count:
        raise InputError(f"fewer than {count} features fire on the passages: ask for fewer, or give more text")
    lift = fired[inside].mean(0) - fired[~inside].mean(0)
    return tuple(lift.topk(count).indices.tolist())


def amplification(
    host: Host,
    sae: SAE,
    site: Site,
    passages: Tensor,
    prompts: Tensor,
    ids: frozenset[int],
    config: AmplificationConfig | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Amplification:
    """Choose the class's features on `passages` `[B, T]`, amplify them while continuing `prompts` `[n, T]`, and count
    the tokens of the class (`ids`, see `tokens_matching`). Raises InputError as `class_features` does."""
    config = AmplificationConfig() if config is None else config
    chosen = class_features(host, sae, site, passages, ids, config.features)
    others = [i for i in range(sae.config.features) if i not in chosen]
    picked = np.random.default_rng(config.seed).choice(others, min(config.features, len(others)), replace=False)
    random = tuple(int(i) for i in picked)
    runs: list[tuple[str, float, list[Edit]]] = [("native", 1.0, [])]
    for name, features in (("class", chosen), ("random", random)):
        for dose in config.doses:
            runs.append((name, dose, [Edit(site, ScaleFeatures(sae, features, dose), Always(), config.timing)]))
    tables = []
    for done, (name, dose, edits) in enumerate(runs):
        said = generate(host, prompts, edits, config.new_tokens, config.sampling, stop_at_end=False).tokens
        counts = [sum(token in ids for token in row) for row in said]
        tables.append(pd.DataFrame({"prompt": range(len(prompts)), "condition": name, "dose": dose, "count": counts}))
        if progress is not None:
            progress(done + 1, len(runs))
    records = pd.concat(tables, ignore_index=True)
    return Amplification(site, host.name, host.revision, chosen, random, config, _summarise(records), records)


def _paired(x: np.ndarray[tuple[int], np.dtype[np.float64]]) -> float:
    return float(wilcoxon(x).pvalue) if np.any(x != 0) else 1.0


def _summarise(records: pd.DataFrame) -> tuple[AmplificationRow, ...]:
    counts = {
        cast(tuple[str, float], name): part.sort_values("prompt")["count"].to_numpy(float)
        for name, part in records.groupby(["condition", "dose"])
    }
    native = counts.pop(("native", 1.0))
    names = list(counts)
    tests = [(name, counts[name] - native) for name in names]
    tests += [(name, counts[name] - counts["random", name[1]]) for name in names if name[0] == "class"]
    corrected = multipletests([_paired(x) for _, x in tests], method="holm")[1]
    against = {name: float(p) for (name, _), p in zip(tests[len(names) :], corrected[len(names) :], strict=True)}
    rows = []
    for (name, change), p in zip(tests[: len(names)], corrected[: len(names)], strict=True):
        spread = float(change.std(ddof=1)) if len(change) > 1 else 0.0
        rows.append(
            AmplificationRow(
                name[0], float(name[1]), len(change), float(native.mean()), float(counts[name].mean()),
                float(change.mean()) / spread if spread else 0.0, float(p), against.get(name, float("nan")),
            )
        )  # fmt: skip
    return tuple(rows)
