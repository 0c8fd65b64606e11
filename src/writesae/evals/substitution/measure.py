"""Everything is scored at random places of the passages, at the atom with the largest coefficient there.

Several heads, of one layer or of several, can be edited together: the write of every head is replaced by the top atom
of that head's own dictionary at that token (chosen natively), all in one run; the other conditions delete all the
writes, or replace each. What is taken away is what the head writes in the edited run. That is its native write, save
`at_token` in a layer above another edited one, whose inputs at that very token have already changed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial

import pandas as pd
import torch
from torch import Tensor

from writesae.causal.writes import head_writes
from writesae.errors import InputError
from writesae.evals.common.conditions import Grid
from writesae.evals.common.controls import (
    NEEDS_BACKGROUND,
    Background,
    Picked,
    ScoredHead,
    View,
    background,
    picked,
    readings_of,
)  # fmt: skip
from writesae.evals.common.drawn_firings import native_runs
from writesae.evals.common.firings import gather
from writesae.evals.common.forms import native_writes
from writesae.evals.common.pieces import Keep, Measured, concatenated, passage_groups
from writesae.evals.common.score import score_firings
from writesae.evals.common.subject import Subject
from writesae.evals.substitution import Silent, SubstitutionConfig
from writesae.evals.substitution.features import measure_features
from writesae.hosts import Host
from writesae.hosts.fork import NativeRun
from writesae.sae import SAE
from writesae.types import NativeWrite, Site

WIDTH = 12
"""Tokens of a record's context."""
REFUSED = "refused"
"""Attribute of a piece: reason -> places."""


def measure(subject: Subject, config: SubstitutionConfig, keep: Keep) -> Measured:
    """A record is a firing under one combination of the grid; an item is a place.

    Raises InputError where there are too few places, where nothing fires, and for a second dictionary of a head
    without the control `flat_svd`, or that control without one.
    """
    if config.choose == "features":
        found = measure_features(subject, config, keep)
        return found._replace(records=found.records.assign(**_texts(subject.host, subject.tokens, found.records)))
    tokens = subject.tokens
    test = _prepared(subject, config)
    places = draw(tokens, config)
    groups = [(a, b) for a, b in passage_groups(len(tokens)) if places.passage.between(a, b - 1).any()]
    keep.plan(len(groups))
    tables = [keep(f"passages-{a}", partial(_score, test, tokens, places, a, b)) for a, b in groups]
    refused: dict[str, int] = {}
    for table in tables:
        for reason, n in table.attrs[REFUSED].items():
            refused[reason] = refused.get(reason, 0) + n
    records = concatenated(tables)
    records.attrs = {}
    if records.empty:
        names = ", ".join(map(str, test.saes))
        raise InputError(f"no feature of the dictionary fires at any of {config.firings} places of {names}")
    return Measured(records, len(places), refused)


@dataclass(frozen=True)
class Test:
    """What is scored, and how."""

    host: Host
    saes: Mapping[Site, SAE]
    """By head, sorted: those whose atoms are written."""
    flats: Mapping[Site, SAE]
    """Those of the control `flat_svd`."""
    grid: Grid
    views: tuple[View, ...]
    """Forms of the write and readings that are scored."""
    silent: Silent
    common: Callable[[], dict[Site, dict[NativeWrite, Background]]]
    """What all passages say of each head, where a control asks for it."""


def _prepared(subject: Subject, config: SubstitutionConfig) -> Test:
    first, flats = subject.first_and_second()
    controlled = "flat_svd" in config.controls
    if flats and not controlled:
        raise InputError(
            f"two dictionaries of {next(iter(flats))} were given: give one of a head, or ask for the control "
            '"flat_svd" (--controls flat_svd), which is what a second one is for'
        )
    bare = next((site for site in first if site not in flats), None)
    if controlled and bare is not None:
        raise InputError(f"the control flat_svd needs a second, flat dictionary of {bare}: give it after the first")
    host, tokens, saes = subject.host, subject.tokens, dict(sorted(first.items()))
    forms = native_writes(host, tuple(saes), tokens, config.native_writes)
    grid = replace(config, native_writes=forms)

    @cache
    def common() -> dict[Site, dict[NativeWrite, Background]]:
        if not NEEDS_BACKGROUND.intersection(config.controls):
            return {}
        return {site: background(host, sae, site, tokens, forms) for site, sae in saes.items()}

    views = tuple(View(form, how) for form in forms for how in readings_of(list(saes.values()), config.readings))
    return Test(host, saes, flats, grid, views, config.silent, common)


def draw(tokens: Tensor, config: SubstitutionConfig) -> pd.DataFrame:
    """Places without replacement in passages `[B, T]` without padding, in order (passage, position): at least one
    token from the start, and far enough from the end to score. Raises InputError where there are too few."""
    batch, length = tokens.shape
    room = length - 2 - config.horizon
    if batch * max(room, 0) < config.firings:
        raise InputError(
            f"{config.firings} firings were asked for, but {batch} passages of {length} tokens hold only "
            f"{batch * max(room, 0)} places: pass more text or ask for fewer"
        )
    generator = torch.Generator().manual_seed(config.seed)
    chosen = torch.randperm(batch * room, generator=generator)[: config.firings].sort().values
    return pd.DataFrame({"passage": (chosen // room).numpy(), "position": (chosen % room + 1).numpy()})


def _score(test: Test, tokens: Tensor, places: pd.DataFrame, begin: int, end: int) -> pd.DataFrame:
    """The records of the places in the passages `begin` to `end`; `attrs` say how many were refused, and why."""
    here = places[places.passage.between(begin, end - 1)]
    tables, refused = [], dict[str, int]()
    for offset, some, run in native_runs(test.host, min(test.saes), tokens, here, begin):
        heads, reasons = _choose(test, run, some, offset)
        table = score_firings(run, heads, test.grid, offset)
        tables.append(table.assign(**_texts(test.host, tokens, table)))
        for reason, n in reasons.items():
            refused[reason] = refused.get(reason, 0) + n
    whole = concatenated(tables)
    whole.attrs = {REFUSED: refused}
    return whole


def _choose(
    test: Test, run: NativeRun, places: pd.DataFrame, offset: int
) -> tuple[dict[View, list[ScoredHead]], dict[str, int]]:
    """The heads with what stands at the places where every dictionary fires in every reading (with `silent="leave"`,
    where any does), for every form of the write; and how many places were refused for each reason."""
    passage, position = (torch.tensor(places[name].to_numpy()) for name in ("passage", "position"))
    passage = passage - offset
    writes = {site: head_writes(run, site.head, site.layer) for site in test.saes}
    found = dict[Site, dict[View, Picked]]()
    for site, sae in test.saes.items():
        codes = writes[site].at(sae, passage, position)
        found[site] = {view: picked(sae, writes[site], codes, view, passage, position) for view in test.views}
    fires = torch.stack([
        torch.stack([one.value[:, 0].cpu() > 0 for one in found[site].values()]).all(0) for site in test.saes
    ])  # fmt: skip
    kept = fires.all(0) if test.silent == "refuse" else fires.any(0)
    if len(test.saes) == 1 or test.silent == "leave":
        refused = {"no feature fires": int((~kept).sum())}
    else:  # named after the first head that is silent
        first = fires.int().argmin(0)[~kept]
        refused = {f"no feature fires at {site}": int((first == i).sum()) for i, site in enumerate(test.saes)}
    passage, position, common = passage[kept], position[kept], test.common()
    heads: dict[View, list[ScoredHead]] = {view: [] for view in test.views}
    for index, (site, sae) in enumerate(test.saes.items()):
        for view, some in heads.items():
            active = Picked(*(x[kept] for x in found[site][view]))
            coefficient = torch.where(fires[index, kept].to(active.value.device), active.value[:, 0], 0)
            feature, form = active.feature[:, 0], view.native_write
            firings = gather(sae, writes[site], passage, position, feature, coefficient, form)
            known = common[site][form] if common else None
            some.append(ScoredHead(site, sae, writes[site], firings, test.flats.get(site), known, active))
    return heads, {reason: n for reason, n in refused.items() if n}


def _texts(host: Host, tokens: Tensor, records: pd.DataFrame) -> dict[str, list[str]]:
    """The text up to and including the edited token of every record, and the token's; none without a tokenizer."""
    if not host.has_tokenizer:
        return {}
    rows = list(zip(records.passage.tolist(), records.position.tolist(), strict=True))
    context = {(b, t): host.text(tokens[b, max(0, t - WIDTH + 1) : t + 1].tolist()) for b, t in dict.fromkeys(rows)}
    word = {token: host.text([token]) for token in records.token.unique().tolist()}
    return {"context": [context[row] for row in rows], "token_text": [word[token] for token in records.token]}
