"""Wherever the top feature of a token belongs to the class, what the head writes there in the edited run is taken out,
or gives way to something else: once a write is gone, a head with erase terms writes something else at the next token.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import pandas as pd
import torch
from torch import Tensor

from writesae.causal.passages import edited_losses
from writesae.causal.patching import Edits
from writesae.causal.writes import HeadWrites
from writesae.errors import InputError
from writesae.evals.common.classes import labels, portraits
from writesae.evals.common.controls import normalize
from writesae.evals.common.drawn_firings import check_features
from writesae.evals.common.draws import generator_for
from writesae.evals.common.firings import firings_by_form, runs
from writesae.evals.common.forms import native_writes
from writesae.evals.common.pieces import Keep, Measured, concatenated
from writesae.evals.common.subject import Subject
from writesae.evals.passage_loss import PassageLossConfig
from writesae.evals.passage_loss.summary import MORE
from writesae.recurrence import Stream, replay
from writesae.types import Amplitude, NativeWrite

PLACE = ["passage", "position"]
REPLACING = ("atom", "random")
"""What stands in the place of a write, where it is not just deleted."""


def measure(subject: Subject, config: PassageLossConfig, keep: Keep) -> Measured:
    """An item is a passage under one form of the write, a record the same under one timing and amplitude; a row of
    `firings` is a write that is replaced. Raises InputError where no feature is of the class, or none is a token's
    top one."""
    keep.plan(1)
    forms = native_writes(subject.host, subject.sites, subject.tokens, config.native_writes)
    fired = keep("firings", lambda: _firings(subject, config, forms))

    def piece(begin: int, end: int) -> pd.DataFrame:
        here, tables = fired[fired.passage.between(begin, end - 1)], [pd.DataFrame()]
        for first, stream, writes in runs(subject.host, subject.site, subject.tokens[begin:end]) if len(here) else ():
            last = begin + first + len(writes.value) - 1
            own = here[here.passage.between(begin + first, last)]
            if len(own):
                tables.append(_losses(subject, config, forms, own, stream, writes, begin + first))
        return concatenated(tables)

    records = keep.by_passages(len(subject.tokens), piece)
    attempted = len(subject.tokens) * len(forms)
    silent = attempted - len(fired[["passage", "native_write"]].drop_duplicates())
    return Measured(records, attempted, {"no firing of the class": silent} if silent else {}, {"firings": fired})


def _firings(subject: Subject, config: PassageLossConfig, forms: Sequence[NativeWrite]) -> pd.DataFrame:
    """The writes that are replaced, for each form of the write: where a token's top feature is one of those asked for,
    or of the class."""
    sae, site, tokens = subject.sae, subject.site, subject.tokens
    known = check_features(sae, config.features)
    fired = firings_by_form(subject.host, sae, site, tokens, forms, reading=config.reading)
    top, tables, count = fired[fired.order == 0], [], 0
    for form in forms:
        kinds = {} if known else labels(portraits(fired, sae.config.features, 0, [form]), 1, config.seed)
        chosen = known or [feature for feature, kind in kinds.items() if kind == config.kind]
        count = max(count, len(chosen))
        tables.append(top[top.feature.isin(chosen)].assign(native_write=form)[list(MORE["firings"])])
    if not count:
        raise InputError(f"no feature is a {config.kind} at {site}: there is no firing to edit")
    if not sum(map(len, tables)):
        raise InputError(f"none of the {count} features fires as the top one anywhere in {len(tokens)} passages")
    return pd.concat(tables, ignore_index=True)


def _losses(
    subject: Subject, config: PassageLossConfig, forms: Sequence[NativeWrite], here: pd.DataFrame, stream: Stream,
    writes: HeadWrites, offset: int,
) -> pd.DataFrame:  # fmt: skip
    """The records of some passages that were recorded together, of which `offset` is the first one's number."""
    places = here.drop_duplicates(PLACE).sort_values(PLACE)
    numbers = sorted(places.passage.unique())
    tokens, layer = subject.tokens[numbers], subject.site.layer
    edits, rows = _edits(subject, config, forms, places, here, stream, writes, offset)
    tables = []
    for timing in config.timings:
        losses = edited_losses(subject.host, tokens, {layer: edits}, timing).sum(-1).cpu().numpy()
        for form, amplitude in product(forms, config.amplitudes):
            count = here[here.native_write == form].groupby("passage").size().reindex(numbers, fill_value=0)
            where = {"native": 0, "again": 1, "delete": rows[form, "delete", None]}
            where |= {name: rows[form, name, amplitude] for name in REPLACING}
            cell = {"timing": timing, "native_write": form, "amplitude": amplitude}
            table = pd.DataFrame(
                {"passage": numbers, **cell, "firings": count.to_numpy(), "tokens": tokens.shape[1] - 1}
            )
            table = table.assign(**{f"nll_{name}": losses[row] for name, row in where.items()})
            tables.append(table[table.firings > 0])
    return pd.concat(tables, ignore_index=True)


Condition = tuple[NativeWrite, str, Amplitude | None]
"""The form of the write that is taken out, what replaces it, and how large."""


def _edits(
    subject: Subject, config: PassageLossConfig, forms: Sequence[NativeWrite], places: pd.DataFrame, here: pd.DataFrame,
    stream: Stream, writes: HeadWrites, offset: int,
) -> tuple[Edits, dict[Condition, int]]:  # fmt: skip
    """All conditions at all places, and the row of each; row 0 is the native run, and row 1 the same nudged by one unit
    in the last place of the state. Components: the head's own write in each form, the atom, a random matrix."""
    number, position, feature = (torch.tensor(places[c].to_numpy()) for c in (*PLACE, "feature"))
    at, atoms = (number - offset, position), subject.sae.atoms()
    key, sides = writes.written.key[at], [writes.side(form)[at] for form in forms]
    v, w = atoms.v[feature], atoms.w[feature]
    x, y = _random(subject, config, number, position, v, w)
    size = v.norm(dim=-1) * w.norm(dim=-1) * torch.tensor(places.coefficient.to_numpy()).to(v)
    state = replay(stream, keep=at).states.flatten(1).norm(dim=-1)

    weights: list[dict[int, Tensor]] = []
    rows: dict[Condition, int] = {}
    for f, form in enumerate(forms):
        norm = key.norm(dim=-1) * sides[f].norm(dim=-1)
        own = pd.MultiIndex.from_frame(here[here.native_write == form][PLACE])
        inside = torch.tensor(pd.MultiIndex.from_frame(places[PLACE]).isin(own)).to(norm)
        if f == 0:
            weights.append({0: torch.finfo(subject.host.dtype).eps * state / norm.clamp_min(1e-30)})
        weights.append({f: -inside})
        rows[form, "delete", None] = len(weights)
        for amplitude, (i, name) in product(config.amplitudes, enumerate(REPLACING)):
            weights.append({f: -inside, len(forms) + i: inside * (size if amplitude == "coefficient" else norm)})
            rows[form, name, amplitude] = len(weights)
    weight = key.new_zeros(len(key), len(weights), len(forms) + len(REPLACING))
    for line, parts in enumerate(weights):
        for component, amount in parts.items():
            weight[:, line, component] = amount
    passage = torch.searchsorted(torch.unique(number), number)
    keys, values = torch.stack([*[key] * len(forms), normalize(v), x], 1), torch.stack([*sides, normalize(w), y], 1)
    heads = [subject.site.head] * weight.shape[2]
    return Edits(heads, passage, position, keys, values, weight, dict(enumerate(forms))), rows


def _random(
    subject: Subject, config: PassageLossConfig, number: Tensor, position: Tensor, v: Tensor, w: Tensor
) -> tuple[Tensor, Tensor]:
    """Unit sides of a random matrix at each place, drawn for every token of its passage."""
    x, y = torch.empty_like(v), torch.empty_like(w)
    for passage in torch.unique(number).tolist():
        mine, generator = number == passage, generator_for(config.seed, str(subject.site), passage, "random")
        for side in (x, y):
            drawn = torch.randn(subject.tokens.shape[1], side.shape[1], generator=generator)
            side[mine] = drawn[position[mine]].to(side)
    return normalize(x), normalize(y)
