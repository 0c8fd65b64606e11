"""Everything about each atom that fires.

Effects on the model are measured at some of its firings: the write replaced by the atom, deleted, or replaced by a
random matrix. The tokens it moves are said twice: by the direct path (its value side through the head's output
projection and the unembedding), and to first order through the whole model: half the difference of two runs with a
tenth of the atom's contribution added and taken away, which is exact but for terms of third order.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from writesae.causal.closed_form import direct_path
from writesae.causal.divergence import kl_divergence
from writesae.causal.patching import Edits, patched_logits
from writesae.causal.runs import shared_runs
from writesae.errors import InputError
from writesae.evals.atoms import AtomsConfig
from writesae.evals.atoms.describe import contexts, nearest, rates, together
from writesae.evals.common.conditions import CONDITIONS
from writesae.evals.common.controls import drawn
from writesae.evals.common.drawn_firings import by_runs, check_features, firings_at, native_runs
from writesae.evals.common.firings import all_firings
from writesae.evals.common.pieces import PASSAGES, Keep, Measured, concatenated
from writesae.evals.common.result import count
from writesae.evals.common.subject import Subject
from writesae.hosts import Host
from writesae.hosts.fork import NativeRun

GROUP = 64
"""Atoms whose logit changes over the whole vocabulary are held at once."""
SMALL = 0.1
"""Share of the atom's contribution that is added and taken away."""
SCORED = ["passage", "position", "feature", "coefficient", "cosine"]


@shared_runs()
def measure(subject: Subject, config: AtomsConfig, keep: Keep) -> Measured:
    """A record is an atom. Raises InputError where none fires."""
    host, sae, site, tokens = subject.host, subject.sae, subject.site, subject.tokens
    fired = all_firings(host, sae, site, tokens, config.native_write, reading=config.reading)
    asked = check_features(sae, config.features)
    mass = fired.groupby("feature").coefficient.sum().sort_values(ascending=False)
    wanted = asked or mass.index[: config.atoms or None].tolist()
    alive = [feature for feature in wanted if feature in mass.index]
    if not alive:
        raise InputError(f"none of the {len(wanted)} features fires at {site} in {len(tokens)} passages")
    sample = _sample(fired, alive, tokens.shape[1], config)
    groups = [alive[i : i + GROUP] for i in range(0, len(alive), GROUP)]
    keep.plan(len(groups))
    scores = by_runs(subject, keep, sample, partial(_scores, subject, config))
    scores = scores.reindex(columns=[*SCORED, *(f"kl_{name}" for name in CONDITIONS)])  # where nothing can be scored
    moved = concatenated([
        keep(f"tokens-{i}", partial(_tokens, subject, config, sample, group)) for i, group in enumerate(groups)
    ])  # fmt: skip
    records = rates(fired, alive, sae, tokens.numel()).merge(_medians(scores), how="left", on="feature")
    records["scored"] = records.scored.fillna(0).astype(int)
    records = records.merge(nearest(sae, alive, config.neighbours), on="feature")
    records = records.merge(together(fired, alive, tokens, config.neighbours), on="feature")
    more = {"contexts": contexts(host, fired, alive, tokens, config), "tokens": moved, "firings": scores}
    silent = len(asked) - len(alive) if asked else 0
    refused = count(["never fires"] * silent)
    return Measured(records, len(records) + silent, refused, more)


def _sample(fired: pd.DataFrame, alive: list[int], length: int, config: AtomsConfig) -> pd.DataFrame:
    """Firings that are measured, by passage."""
    inside = fired[fired.feature.isin(alive) & (fired.position > 0) & (fired.position < length - 2)]
    mixed = inside.iloc[np.random.default_rng(config.seed).permutation(len(inside))]
    chosen = mixed.groupby("feature").head(config.firings)
    return chosen.sort_values(["passage", "position", "feature"], ignore_index=True)


def _scores(subject: Subject, config: AtomsConfig, run: NativeRun, here: pd.DataFrame, offset: int) -> pd.DataFrame:
    """KL of the three conditions at some firings of a run."""
    head = firings_at(run, subject, here, offset, [config.native_write])[config.native_write]
    firings, random = head.firings, drawn(head, "random", config.seed, offset)
    coefficient = firings.coefficient
    zero, one = torch.zeros_like(coefficient), torch.ones_like(coefficient)
    rows = ((coefficient, zero), (zero, zero), (zero, random.size))
    edits = Edits(
        [subject.site.head] * 3, firings.passage, firings.position,
        torch.stack([firings.key, firings.v, random.key], 1),
        torch.stack([firings.value, firings.w, random.value], 1),
        torch.stack([torch.stack([-one, *row], -1) for row in rows], 1),
    )  # fmt: skip
    kl = torch.empty(len(here), len(CONDITIONS), dtype=torch.float64)
    for scored in patched_logits(run, edits, config.timing):
        kl[scored.which] = kl_divergence(scored.native.unsqueeze(1), scored.patched)[:, :, 0].cpu()
    named = {f"kl_{name}": kl[:, i].numpy() for i, name in enumerate(CONDITIONS)}
    return here[SCORED].assign(**named)


def _medians(scores: pd.DataFrame) -> pd.DataFrame:
    """One row an atom that was scored."""
    by = scores.assign(win=scores.kl_atom < scores.kl_delete).groupby("feature")
    names = [f"kl_{name}" for name in CONDITIONS]
    return by[names].median().assign(wins=by.win.mean(), scored=by.size()).reset_index()


def _tokens(subject: Subject, config: AtomsConfig, sample: pd.DataFrame, group: list[int]) -> pd.DataFrame:
    """The tokens that some atoms move most, by either path."""
    host, site = subject.host, subject.site
    slot = {feature: i for i, feature in enumerate(group)}
    own = sample[sample.feature.isin(group)].reset_index(drop=True)
    moved, counts = torch.zeros(len(group), host.vocabulary, dtype=torch.float64), torch.zeros(len(group))
    for begin in range(0, len(subject.tokens), PASSAGES):
        for offset, here, run in native_runs(host, site, subject.tokens, own, begin):
            firings = firings_at(run, subject, here, offset, [config.native_write])[config.native_write].firings
            coefficient = firings.coefficient
            step = torch.stack([coefficient, -coefficient], 1)[:, :, None] * SMALL
            edits = Edits([site.head], firings.passage, firings.position, firings.v[:, None], firings.w[:, None], step)
            slots = torch.tensor([slot[f] for f in here.feature])
            for scored in patched_logits(run, edits, config.timing):
                up, down = scored.patched[:, :, 0].double().cpu().unbind(1)
                moved.index_add_(0, slots[scored.which.cpu()], (up - down) / (2 * SMALL))
            counts.index_add_(0, slots, torch.ones(len(slots)))
    first_order = moved / counts.clamp_min(1)[:, None].double()
    first_order = first_order - first_order.mean(1, keepdim=True)
    tables = [_strongest(host, group, first_order, "first order", config.tokens)]
    tables.append(_strongest(host, group, unit_direct_path(subject, group), "direct", config.tokens))
    table = pd.concat(tables, ignore_index=True)
    unscored = {feature for feature in group if counts[slot[feature]] == 0}
    return table[~((table.path == "first order") & table.feature.isin(unscored))].reset_index(drop=True)


def unit_direct_path(subject: Subject, group: list[int]) -> Tensor:
    """`W_U (W_O w)` of unit atoms, centred over the vocabulary, `[N, vocabulary]` float64."""
    w = torch.nn.functional.normalize(subject.sae.atoms().w[group].float(), dim=-1)
    logits = direct_path(subject.host, subject.site, w)
    return (logits - logits.mean(1, keepdim=True)).double().cpu()


def _strongest(host: Host, group: list[int], change: Tensor, path: str, most: int) -> pd.DataFrame:
    """The tokens with the largest and the smallest change of each atom."""
    rows = []
    most = min(most, change.shape[1] // 2)
    for sign, found in ((1, change.topk(most)), (-1, (-change).topk(most))):
        for i, feature in enumerate(group):
            for rank, (score, token) in enumerate(
                zip(found.values[i].tolist(), found.indices[i].tolist(), strict=True)
            ):
                rows.append((feature, path, sign, rank, token, host.text([token]), sign * score))
    return pd.DataFrame(rows, columns=["feature", "path", "sign", "rank", "token", "text", "score"])
