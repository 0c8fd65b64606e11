"""A later head's reading of a write is the norm of what changes in its recurrence's output at the first token that the
edited state can reach. The paper does not define its measure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor

from writesae.causal.patching import Edits, patched_logits
from writesae.errors import InputError
from writesae.evals.common.directions import directions
from writesae.evals.common.drawn_firings import by_runs, draw_firings
from writesae.evals.common.forms import native_writes
from writesae.evals.common.pieces import Keep, Measured
from writesae.evals.common.subject import Subject
from writesae.evals.readers import ReadersConfig
from writesae.evals.readers.summary import ADDED
from writesae.hosts import KernelCall, KernelResult, Tap
from writesae.hosts.fork import NativeRun, nudged
from writesae.types import Site, Timing


def measure(subject: Subject, config: ReadersConfig, keep: Keep) -> Measured:
    """An item is an atom, a record a firing and later head under one timing and form of the native write. Raises
    InputError where no recurrent layer lies above, or no atom fires often enough."""
    host, site = subject.host, subject.site
    if site.layer == max(host.layers):
        raise InputError(f"{host.name} has no recurrent layer above {site}: nothing later can read its writes")
    forms = native_writes(host, subject.sites, subject.tokens, config.native_writes)
    drawn = draw_firings(subject, config, forms[0])

    def score(run: NativeRun, here: pd.DataFrame, offset: int) -> pd.DataFrame:
        edits = directions(run, subject.sae, site, here, ADDED, forms, config.seed, offset)
        tables = []
        for timing in config.timings:
            for which, layer, change in readings(run, edits, timing):
                places = here.iloc[which.numpy()].assign(timing=timing)
                for head in range(change.shape[2]):
                    own = change[:, :, head].numpy()
                    for f, form in enumerate(forms):
                        columns = {name: own[:, f * len(ADDED) + i] for i, name in enumerate(ADDED)}
                        about = places.assign(native_write=form, reader=str(Site(layer, head)), floor=own[:, -1])
                        tables.append(about.assign(**columns))
        order = ["passage", "position", "feature"]  # not that of the batches
        return pd.concat(tables).sort_values(order, kind="stable", ignore_index=True)

    return Measured(by_runs(subject, keep, drawn.firings, score), drawn.attempted, drawn.refused)


class Reading(NamedTuple):
    """What some edits change in one later layer."""

    which: Tensor
    """`[r]`, indices of these edits."""
    layer: int
    change: Tensor
    """Norms of the change by each condition, and last of that by rounding, `[r, C + 1, H]`, on the CPU."""


def readings(run: NativeRun, edits: Edits, timing: Timing) -> Iterator[Reading]:
    """The norms of what edits change in the outputs of every layer above, at the first token that they reach. What
    rounding changes is seen in a native row that is nudged by one unit in the last place where it leaves this layer."""
    found: dict[int, Tensor] = {}
    copies = edits.weight.shape[1] + 2
    again = replace(edits, weight=torch.cat([edits.weight, torch.zeros_like(edits.weight[:, :1])], 1))

    def after(call: KernelCall, result: KernelResult) -> KernelResult:
        if call.layer > run.layer:
            found[call.layer] = result.output[:, 0]
        if call.layer != run.layer:
            return result
        output = result.output.clone()
        output[copies - 1 :: copies] = nudged(output[copies - 1 :: copies])
        return result._replace(output=output)

    with run.host.tap(Tap(after=after)):
        for scored in patched_logits(run, again, timing):
            for layer, output in found.items():
                rows = output.view(len(scored.which), copies, *output.shape[1:]).double()  # native, conditions, nudged
                yield Reading(scored.which, layer, (rows[:, 1:] - rows[:, :1]).norm(dim=-1).cpu())
