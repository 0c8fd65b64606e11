"""At a firing the atom and other directions are added in turn. Selectivity is one minus the share of the K most moved
tokens (by absolute logit change, centred) that the atom and the other direction have in common."""

from __future__ import annotations

import pandas as pd
import torch
from torch import Tensor

from writesae.causal.divergence import kl_divergence
from writesae.causal.patching import patched_logits
from writesae.errors import InputError
from writesae.evals.common.conditions import ADDED
from writesae.evals.common.directions import directions
from writesae.evals.common.drawn_firings import by_runs, draw_firings
from writesae.evals.common.forms import native_writes
from writesae.evals.common.pieces import Keep, Measured
from writesae.evals.common.subject import Subject
from writesae.evals.selectivity import SelectivityConfig
from writesae.evals.selectivity.summary import AGAINST
from writesae.hosts.fork import NativeRun


def measure(subject: Subject, config: SelectivityConfig, keep: Keep) -> Measured:
    """An item is an atom, a record a firing under one timing and form of the native write. Raises InputError where no
    atom fires often enough, or K exceeds the vocabulary."""
    if config.top > subject.host.vocabulary:
        raise InputError(f"the {config.top} most moved of {subject.host.vocabulary} tokens were asked for")
    forms = native_writes(subject.host, subject.sites, subject.tokens, config.native_writes)
    drawn = draw_firings(subject, config, forms[0])

    def score(run: NativeRun, here: pd.DataFrame, offset: int) -> pd.DataFrame:
        edits = directions(run, subject.sae, subject.site, here, ADDED, forms, config.seed, offset)
        tables = []
        for timing in config.timings:
            kl = torch.empty(len(here), len(forms) * len(ADDED) + 1, dtype=torch.float64)
            overlap = torch.empty(len(here), len(forms), len(AGAINST), dtype=torch.float64)
            for scored in patched_logits(run, edits, timing):
                kl[scored.which] = kl_divergence(scored.native[:, :1], scored.edited[:, :, 0]).cpu()
                change = scored.patched[:, :, 0].double() - scored.native[:, :1].double()
                by_form = change.view(len(change), len(forms), len(ADDED), -1)
                overlap[scored.which] = overlaps(by_form, config.top).cpu()
            for f, form in enumerate(forms):
                effects = {f"kl_{name}": kl[:, 1 + f * len(ADDED) + i] for i, name in enumerate(ADDED)}
                effects["floor"] = kl[:, 0]
                shared = {f"overlap_{name}": overlap[:, f, i] for i, name in enumerate(AGAINST)}
                columns = {name: x.numpy() for name, x in (effects | shared).items()}
                tables.append(here.assign(timing=timing, native_write=form, **columns))
        return pd.concat(tables, ignore_index=True)

    return Measured(by_runs(subject, keep, drawn.firings, score), drawn.attempted, drawn.refused)


def overlaps(change: Tensor, top: int) -> Tensor:
    """Share of the `top` most moved tokens that the first condition has in common with each other one, `[..., C - 1]`.

    `change` is `[..., C, vocabulary]`; the mean over the vocabulary is taken off first: it moves no probability.
    """
    moved = torch.abs(change - change.mean(-1, keepdim=True))
    best = torch.zeros_like(moved, dtype=torch.bool).scatter(-1, moved.topk(top).indices, True)
    return (best[..., :1, :] & best[..., 1:, :]).sum(-1).double() / top
