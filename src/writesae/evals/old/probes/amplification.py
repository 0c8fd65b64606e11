"""Does amplifying the features of a class of tokens change how many of them are said? With doses and a random control.

Paper section 4, Table 4: newlines a generation of 400 tokens. The features of the class are those that fire most at its
tokens beyond how often they fire elsewhere; one or several heads are amplified together, each with its own dictionary.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from writesae.causal.actions import Edit, ScaleFeatures
from writesae.causal.schedule import Always
from writesae.causal.writes import head_writes
from writesae.edits.generation import Sampling, generate
from writesae.errors import InputError
from writesae.evals.common.stats import Interval, clustered, holm, wilcoxon
from writesae.evals.old.parts import Parts
from writesae.evals.old.probes.erasure import firings
from writesae.evals.old.probes.texts import measured_on
from writesae.evals.old.result import Result
from writesae.hosts import Host
from writesae.hosts.fork import native_run
from writesae.sae import SAE
from writesae.types import Site, Timing


@dataclass(frozen=True)
class AmplificationConfig:
    """The protocol of an amplification test."""

    pattern: str = r"\n"
    """The class: tokens whose text matches this regular expression."""
    doses: tuple[float, ...] = (2.0, 5.0, 10.0)
    """Factors of the features' coefficients, at every token."""
    features: int = 10
    """How many of the class's features are amplified at each head, and how many random ones in the control."""
    new_tokens: int = 400
    sampling: Sampling = field(default_factory=Sampling)
    timing: Timing = "after_token"
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
    change: Interval
    """Of the mean difference to the unedited generations, bootstrap over prompts."""
    changed: float
    """Share of the generations that differ from the unedited one in any token."""
    cohens_d: float
    """Paired: mean difference over its standard deviation; 0 where nothing changed."""
    p: float
    """Paired Wilcoxon, Holm-corrected over the rows; 1 where nothing changed."""
    p_random: float
    """The same against the random features at the same dose; nan for the control itself."""


@dataclass(frozen=True)
class AmplificationSummary:
    """The features by head, and the table."""

    features: dict[str, tuple[int, ...]]
    random_features: dict[str, tuple[int, ...]]
    rows: tuple[AmplificationRow, ...]


def tokens_matching(host: Host, pattern: str) -> frozenset[int]:
    r"""Ids of the tokens whose text matches a regular expression: `\n` for newlines, `^ [A-Z][a-z]+$` for words that
    look like names. Raises InputError where none does, or for what is no regular expression."""
    try:
        wanted = re.compile(pattern)
    except re.error as error:
        raise InputError(f"{pattern!r} is no regular expression: {error}") from error
    found = frozenset(i for i in range(len(host.tokenizer)) if wanted.search(host.text([i])))
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
        raise InputError(f"fewer than {count} features of {site} fire on the passages: ask for fewer, or give text")
    lift = fired[inside].mean(0) - fired[~inside].mean(0)
    return tuple(lift.topk(count).indices.tolist())


def amplification(
    host: Host,
    dictionaries: Mapping[Site, SAE],
    passages: Tensor,
    prompts: Tensor,
    config: AmplificationConfig | None = None,
    progress: Callable[[int, int], None] | None = None,
    parts: Path | None = None,
) -> Result[AmplificationConfig, AmplificationSummary]:
    """Choose the class's features on `passages` `[B, T]`, amplify them while continuing `prompts` `[n, T]`, and count
    the tokens of the class.

    Finished pieces are kept in the folder `parts`. Raises InputError as `class_features` does.
    """
    config = AmplificationConfig() if config is None else config
    sites = tuple(dictionaries)
    source = measured_on(host, sites, (prompts, passages), tuple(dictionaries.values()))
    ids = tokens_matching(host, config.pattern)
    draw = np.random.default_rng(config.seed)
    chosen, random = {}, {}
    for site, sae in dictionaries.items():
        chosen[site] = class_features(host, sae, site, passages, ids, config.features)
        others = [i for i in range(sae.config.features) if i not in chosen[site]]
        picked = draw.choice(others, min(config.features, len(others)), replace=False)
        random[site] = tuple(int(i) for i in picked)
    runs: list[tuple[str, float, list[Edit]]] = [("native", 1.0, [])]
    for name, features in (("class", chosen), ("random", random)):
        for dose in config.doses:
            what = {site: ScaleFeatures(sae, features[site], dose) for site, sae in dictionaries.items()}
            runs.append((name, dose, [Edit(site, w, Always(), config.timing) for site, w in what.items()]))
    pieces = Parts.open(parts, "amplification", source, config)
    tables: list[pd.DataFrame] = []
    for name, dose, edits in runs:

        def make(name: str = name, dose: float = dose, edits: list[Edit] = edits) -> pd.DataFrame:
            said = generate(host, prompts, edits, config.new_tokens, config.sampling, stop_at_end=False)
            counts = [sum(token in ids for token in row) for row in said.tokens]
            table = pd.DataFrame({"prompt": range(len(prompts)), "condition": name, "dose": dose, "count": counts})
            return table.assign(text=said.texts)

        tables.append(pieces.get(f"{name}-{dose:g}", make))
        if progress is not None:
            progress(len(tables), len(runs))
    records = pd.concat(tables, ignore_index=True)
    named = [{str(site): features for site, features in which.items()} for which in (chosen, random)]
    summary = AmplificationSummary(named[0], named[1], _summarise(records, config.seed))
    return Result("amplification", source, config, len(prompts), {}, summary, records)


def _summarise(records: pd.DataFrame, seed: int) -> tuple[AmplificationRow, ...]:
    groups = {
        cast(tuple[str, float], name): part.sort_values("prompt")
        for name, part in records.groupby(["condition", "dose"], sort=False)
    }
    counts = {name: part["count"].to_numpy(float) for name, part in groups.items()}
    unedited = groups["native", 1.0]["text"].to_numpy()
    native = counts.pop(("native", 1.0))
    pairs = {(name, "native"): (x, native) for name, x in counts.items()}
    pairs |= {(name, "random"): (x, counts["random", name[1]]) for name, x in counts.items() if name[0] == "class"}
    raw = [wilcoxon(*pair).p for pair in pairs.values()]
    corrected = dict(zip(pairs, holm([1.0 if np.isnan(p) else p for p in raw]), strict=True))
    rows = []
    for name, x in counts.items():
        change = x - native
        spread = float(change.std(ddof=1)) if len(change) > 1 else 0.0
        rows.append(
            AmplificationRow(
                name[0], float(name[1]), len(x), float(native.mean()), float(x.mean()),
                clustered(change, np.arange(len(x)), seed), float((groups[name]["text"] != unedited).mean()),
                float(change.mean()) / spread if spread else 0.0, corrected[name, "native"],
                corrected.get((name, "random"), float("nan")),
            )
        )  # fmt: skip
    return tuple(rows)
