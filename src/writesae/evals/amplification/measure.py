"""Find a class's features on some passages, amplify them while the others are continued, and count."""

from __future__ import annotations

from functools import partial

import pandas as pd
import torch
from torch import Tensor

from writesae.causal.actions import ChangeFeatures, Edit
from writesae.causal.budget import generations_at_once
from writesae.causal.identity import check_reading
from writesae.causal.schedule import Always
from writesae.edits.generation import Sampling, generate
from writesae.errors import InputError
from writesae.evals.amplification import AmplificationConfig
from writesae.evals.common.draws import generator_for
from writesae.evals.common.firings import runs
from writesae.evals.common.forms import native_writes
from writesae.evals.common.patterns import matches, matching
from writesae.evals.common.pieces import Keep, Measured, concatenated
from writesae.evals.common.subject import Subject
from writesae.hosts import Host
from writesae.sae import SAE
from writesae.types import NativeWrite, Site, Timing


def measure(subject: Subject, config: AmplificationConfig, keep: Keep) -> Measured:
    """A record is a continuation. Raises InputError for a class without tokens, too few passages, or a dictionary of
    which too few features fire."""
    host, tokens = subject.host, subject.tokens
    check_reading(config.reading, [sae for _, sae in subject.saes])
    if len(tokens) <= config.found_on:
        raise InputError(
            f"{len(tokens)} passages were given, of which {config.found_on} are to show the class's features: give "
            "more, or a smaller found_on"
        )
    if tokens.shape[1] < config.prompt:
        raise InputError(f"prompts of {config.prompt} tokens were asked for of passages of {tokens.shape[1]}")
    found_on, prompts = tokens[: config.found_on], tokens[config.found_on :, : config.prompt]
    saes, form = dict(subject.saes), native_writes(host, subject.sites, tokens, ())[0]
    inside = matching(host, found_on, config.pattern)
    features = concatenated(
        [class_features(host, sae, site, found_on, inside, config, form) for site, sae in saes.items()]
    )
    runs: list[tuple[str, Timing | None, float]] = [("native", None, 1.0)]
    runs += [(c, t, d) for c in ("class", "other_atom") for t in config.timings for d in config.doses]
    change = partial(ChangeFeatures, reading=config.reading, native_write=form)
    keep.plan(len(runs))
    tables = []
    for condition, timing, dose in runs:
        edits = [
            Edit(site, change(sae, _chosen(features, site, condition), dose), Always(), timing)
            for site, sae in saes.items()
            if timing is not None
        ]
        make = partial(_said, host, prompts, edits, config)
        table = keep(f"{condition}-{timing}-{dose:g}", make)
        tables.append(table.assign(condition=condition, timing=timing or "", dose=dose))
    return Measured(concatenated(tables), len(prompts), more={"features": features})


def _chosen(features: pd.DataFrame, site: Site, condition: str) -> tuple[int, ...]:
    own = features[(features.site == str(site)) & (features.condition == condition)]
    return tuple(own.feature.tolist())


def _said(host: Host, prompts: Tensor, edits: list[Edit], config: AmplificationConfig) -> pd.DataFrame:
    """The continuations of all prompts; what one says does not depend on those beside it."""
    sampling = Sampling(config.temperature, config.top_k, config.top_p, config.seed)
    at_once = generations_at_once(host, config.prompt + config.new_tokens)
    tables = []
    for begin in range(0, len(prompts), at_once):
        part = prompts[begin : begin + at_once]
        first = config.found_on + begin
        said = generate(host, part, edits, config.new_tokens, sampling, stop_at_end=False, first=first)
        counts = [sum(matches(host, row, config.pattern)) for row in said.tokens]
        tables.append(pd.DataFrame({"passage": range(first, first + len(part)), "count": counts, "text": said.texts}))
    return concatenated(tables)


def class_features(
    host: Host, sae: SAE, site: Site, tokens: Tensor, inside: Tensor, config: AmplificationConfig,
    native_write: NativeWrite = "delta",
) -> pd.DataFrame:  # fmt: skip
    """The features that fire most at tokens of a class (`inside`) beyond how often they fire elsewhere, in passages
    `[B, T]`, and as many random ones of the others that fire. Raises InputError where too few features fire.
    """
    member, counts = inside.to(host.device), torch.zeros(2, sae.config.features, dtype=torch.long)
    for begin, stream, writes in runs(host, site, tokens):
        codes = writes.read(sae, config.reading, native_write)
        here = member[begin : begin + len(stream.key), :, None]
        for row, where in enumerate((here, ~here)):
            fires = codes.index[(codes.value > 0) & where]
            counts[row] += fires.flatten().bincount(minlength=sae.config.features).cpu()
    alive = counts.sum(0).nonzero()[:, 0]
    rates = pd.DataFrame(
        {
            "feature": alive,
            "inside": counts[0, alive] / inside.sum(),
            "outside": counts[1, alive] / (~inside).sum(),
        }
    )
    if len(rates) < 2 * config.top:
        raise InputError(
            f"{len(rates)} features of {site} fire on {len(tokens)} passages; {config.top} of the class and as "
            "many others are needed: ask for fewer, or give more text"
        )
    order = (rates.outside - rates.inside).sort_values(kind="stable").index
    own, others = rates.loc[order[: config.top]], rates.loc[order[config.top :]].sort_index()
    drawn = torch.randperm(len(others), generator=generator_for(config.seed, site, "other_atom"))[: config.top]
    others = others.iloc[drawn.tolist()]
    chosen = pd.concat([own.assign(condition="class"), others.assign(condition="other_atom")], ignore_index=True)
    return chosen.assign(site=str(site))
