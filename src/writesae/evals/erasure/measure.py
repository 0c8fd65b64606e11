"""The change of the followed token's log probability where a feature's write is taken out, and where it is added.

The control adds, at a place where the feature does not fire, the very write of one of the firings: pair by pair, what
is added elsewhere is what is taken out, and so has its norm.
"""

from __future__ import annotations

from functools import partial
from itertools import product

import pandas as pd
import torch
from torch import Tensor

from writesae.causal.closed_form import pointed_at
from writesae.causal.patching import Edits, patched_logits
from writesae.errors import InputError
from writesae.evals.common.drawn_firings import by_runs, check_features, native_runs
from writesae.evals.common.draws import generator_for
from writesae.evals.common.firings import all_firings, runs
from writesae.evals.common.followed import token_changes
from writesae.evals.common.pieces import PASSAGES, Keep, Measured
from writesae.evals.common.subject import Subject
from writesae.evals.erasure import ErasureConfig
from writesae.hosts.fork import NativeRun
from writesae.types import NativeWrite, Timing

Writes = dict[NativeWrite, tuple[Tensor, Tensor]]
"""Native writes of some places by form: keys `[P, K]` and values `[P, V]`."""


def measure(subject: Subject, config: ErasureConfig, keep: Keep) -> Measured:
    """A record is a place at one dose. Raises InputError for a feature that never fires, or fires everywhere."""
    fired = all_firings(
        subject.host, subject.sae, subject.site, subject.tokens, config.native_writes[0], reading=config.reading
    )
    features = check_features(subject.sae, config.features)
    features = features or [int(_inside(subject, fired).feature.value_counts().index[0])]
    looked, tested = _halves(subject, config)
    keep.plan(len(features) if looked else 0)
    tables = []
    for feature in features:
        places = _pairs(subject, config, fired, feature, tested)
        tokens = _followed(subject, config, fired, feature, looked, keep)
        tables.append(places.assign(**{f"token_{timing}_{form}": token for (timing, form), token in tokens.items()}))
    drawn = pd.concat(tables, ignore_index=True)
    writes = native_writes(subject, drawn, config)
    drawn["row"] = range(len(drawn))
    records = by_runs(subject, keep, drawn, partial(_scored, subject, config, writes))
    return Measured(records, len(drawn))


def _inside(subject: Subject, fired: pd.DataFrame) -> pd.DataFrame:
    """The firings that can be scored: rows start after a token and end before one."""
    return fired[(fired.position > 0) & (fired.position < subject.tokens.shape[1] - 1)]


def _halves(subject: Subject, config: ErasureConfig) -> tuple[set[int], set[int]]:
    """Passages in which the followed token is found (none where it is known), and those in which it is followed."""
    count = len(subject.tokens)
    mixed = torch.randperm(count, generator=generator_for(config.seed, "half")).tolist()
    half = count // 2 if config.follow == "measured" and config.token is None else 0
    return set(mixed[:half]), set(mixed[half:])


def _pairs(
    subject: Subject, config: ErasureConfig, fired: pd.DataFrame, feature: int, passages: set[int]
) -> pd.DataFrame:
    """Firings of a feature and as many places where it does not fire, in pairs: one row a place, with the place whose
    write it gets."""
    batch, length = subject.tokens.shape
    own = fired[fired.feature == feature]
    at = torch.zeros(batch, length, dtype=torch.bool)
    at[own.passage.tolist(), own.position.tolist()] = True
    asked = torch.zeros_like(at)
    asked[sorted(passages), 1 : length - 1] = True
    fires, quiet = (at & asked).nonzero(), (~at & asked).nonzero()
    count = min(len(fires), len(quiet), config.firings)
    if not count:
        raise InputError(
            f"feature {feature} fires at {len(fires)} of {int(asked.sum())} places that can be scored: nothing to "
            "compare"
        )
    chosen = {}
    for name, places in (("delete", fires), ("elsewhere", quiet)):
        order = torch.randperm(len(places), generator=generator_for(config.seed, subject.site, feature, name))
        chosen[name] = places[order[:count]]
    source = chosen["delete"]
    tables = []
    for name, places in chosen.items():
        columns = {"passage": places[:, 0], "position": places[:, 1], "from_passage": source[:, 0]}
        table = pd.DataFrame(columns | {"from_position": source[:, 1]})
        tables.append(table.assign(feature=feature, condition=name, pair=range(count)))
    return pd.concat(tables, ignore_index=True)


def _followed(
    subject: Subject, config: ErasureConfig, fired: pd.DataFrame, feature: int, looked: set[int], keep: Keep
) -> dict[tuple[Timing, NativeWrite], int]:
    """The token whose log probability is followed, by timing and native write."""
    grid = [(timing, form) for timing in config.timings for form in config.native_writes]
    if not looked:
        known = config.token
        closed = pointed_at(subject.host, subject.site, subject.sae.atoms().w[feature]) if known is None else known
        return dict.fromkeys(grid, closed)
    places = _pairs(subject, config, fired, feature, looked)
    places = places[places.condition == "delete"]

    def make() -> pd.DataFrame:
        tokens = [loses_most(subject, config, places, timing, form) for timing, form in grid]
        return pd.DataFrame({"token": tokens})

    return dict(zip(grid, keep(f"token-{feature}", make)["token"].astype(int).tolist(), strict=True))


def loses_most(subject: Subject, config: ErasureConfig, places: pd.DataFrame, timing: Timing, form: NativeWrite) -> int:
    """The token whose log probability falls most, on average, when the write of these places is taken out once."""
    writes, total = native_writes(subject, places, config), torch.zeros(())
    places = places.assign(row=range(len(places)))
    for begin in range(0, len(subject.tokens), PASSAGES):
        for offset, some, run in native_runs(subject.host, subject.site, subject.tokens, places, begin):
            edits = _edits(subject, some, offset, writes[form], (1.0,))
            for scored in patched_logits(run, edits, timing):
                change = scored.patched[:, 0, 0].log_softmax(-1) - scored.native[:, 0].log_softmax(-1)
                total = total.to(change.device) + change.double().sum(0)
    return int(total.argmin())


def native_writes(subject: Subject, places: pd.DataFrame, config: ErasureConfig) -> Writes:
    """The native writes that the places get, in their order."""
    passage, position = (torch.tensor(places[f"from_{c}"].tolist()) for c in ("passage", "position"))
    found: Writes = {}
    for begin, stream, writes in runs(subject.host, subject.site, subject.tokens):
        here = ((passage >= begin) & (passage < begin + len(stream.key))).nonzero()[:, 0]
        for form in config.native_writes:
            key, value = writes.written.key, writes.side(form)
            if form not in found:
                found[form] = key.new_empty(len(places), key.shape[-1]), value.new_empty(len(places), value.shape[-1])
            for whole, x in zip(found[form], (key, value), strict=True):
                whole[here] = x[passage[here] - begin, position[here]]
    return found


def _edits(
    subject: Subject, here: pd.DataFrame, offset: int, writes: tuple[Tensor, Tensor], doses: tuple[float, ...]
) -> Edits:
    """Take out or add the write of each place, at every dose."""
    passage, position, row = (torch.tensor(here[c].tolist()) for c in ("passage", "position", "row"))
    key, value = (x[row][:, None] for x in writes)
    sign = torch.tensor([-1.0 if name == "delete" else 1.0 for name in here.condition])
    weight = sign[:, None] * torch.tensor(doses)
    return Edits([subject.site.head], passage - offset, position, key, value, weight[..., None].to(key))


def _scored(
    subject: Subject, config: ErasureConfig, writes: Writes, run: NativeRun, here: pd.DataFrame, offset: int
) -> pd.DataFrame:
    """The records of some places of one native run."""
    host, tables = subject.host, []
    here = here.sort_values(["passage", "position"])
    for timing, form in product(config.timings, config.native_writes):
        token = torch.tensor(here[f"token_{timing}_{form}"].tolist())
        edits = _edits(subject, here, offset, writes[form], config.doses)
        change, floor = token_changes(run, edits, token, timing, log_probability=True)
        size = (edits.key.norm(dim=-1) * edits.value.norm(dim=-1))[:, 0].double().cpu()
        names = {t: host.text([t]) if host.has_tokenizer else f"token {t}" for t in set(token.tolist())}
        told = here[["feature", "condition", "pair", "passage", "position"]].assign(
            token=token.tolist(), text=[names[t] for t in token.tolist()], timing=timing, native_write=form,
            floor=floor.numpy(),
        )  # fmt: skip
        for d, dose in enumerate(config.doses):
            tables.append(told.assign(dose=dose, norm=(dose * size).numpy(), change=change[:, d].numpy()))
    return pd.concat(tables, ignore_index=True)
