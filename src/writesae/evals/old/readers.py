"""Which later heads read an atom, against how much they read a random write of the same size (Table 1, I.2).

The paper does not define its measure. Here: the atom, at the native write's norm, is added after a token; a later
head's reading is the norm of what changes in its recurrence's output at the next token, and its ratio is that over
the same for a random rank-1 matrix of the same norm (medians over firings).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from writesae.causal.budget import rows_at_once
from writesae.causal.patching import edit_response
from writesae.errors import InputError
from writesae.evals.common.drawn_firings import draw_firings, in_parts, native_runs
from writesae.evals.old.configs import ReadersConfig as ReadersConfig
from writesae.evals.old.parts import Parts
from writesae.evals.old.provenance import provenance
from writesae.evals.old.result import Result
from writesae.evals.old.selectivity import directions
from writesae.hosts import Host, KernelCall, KernelResult, Tap
from writesae.hosts.fork import NativeRun, Rows
from writesae.sae import SAE
from writesae.types import Site


@dataclass(frozen=True)
class Reader:
    """A later head and how it reads one atom."""

    feature: int
    site: str
    ratio: float
    """Median change by the atom over median change by random directions."""


@dataclass(frozen=True)
class ReadersSummary:
    """Over atoms and later heads."""

    atoms: int
    median: float
    """Median ratio over atoms and heads."""
    strongest: tuple[Reader, ...]
    """Each atom's strongest reader, strongest first."""


def readers(
    host: Host,
    sae: SAE,
    site: Site,
    tokens: Tensor,
    config: ReadersConfig | None = None,
    folder: Path | None = None,
) -> Result[ReadersConfig, ReadersSummary]:
    """Measure on passages `[B, T]`; an item is an atom, a record a firing and later head.

    In `folder` finished passages are kept, and a run that was stopped goes on there. Raises InputError where no
    recurrent layer lies above, or no atom fires often enough.
    """
    config = ReadersConfig() if config is None else config
    source = provenance(host, site, tokens, sae)
    if site.layer == max(host.layers):
        raise InputError(f"{host.name} has no recurrent layer above {site}: nothing later can read its writes")
    drawn = draw_firings(host, sae, site, tokens, config)
    parts = Parts.open(folder, "readers", source, config)
    records = in_parts(parts, drawn.firings, len(tokens), partial(_score, host, sae, site, tokens, config))
    summary = summarise(records, config)
    return Result("readers", source, config, drawn.attempted, drawn.refused, summary, records)


def _score(
    host: Host, sae: SAE, site: Site, tokens: Tensor, config: ReadersConfig, firings: pd.DataFrame, start: int
) -> pd.DataFrame:
    runs = native_runs(host, site, tokens, firings, start)
    return pd.concat([_score_run(run, sae, site, here, begin, config) for begin, here, run in runs], ignore_index=True)


def _score_run(
    run: NativeRun, sae: SAE, site: Site, here: pd.DataFrame, begin: int, config: ReadersConfig
) -> pd.DataFrame:
    """One row a firing and later head, of the firings of one run."""
    edits = directions(run, sae, site, here, config.seed, begin)
    tables = []
    for index in torch.split(edits.position.argsort(), rows_at_once(run, 4, 1)):
        part = edits[index]
        rows = Rows(run, part.passage, part.position + 1, 1, 4)
        outputs = later_outputs(rows, edit_response(run, part, "after_token", 1))
        places = here.iloc[index.numpy()].reset_index(drop=True)
        for layer, output in outputs.items():
            change = (output[:, 1:3] - output[:, :1]).double().norm(dim=-1).cpu().numpy()  # [r, (atom, random), H]
            for head in range(change.shape[2]):
                measured = {"reader": str(Site(layer, head)), "atom": change[:, 0, head], "random": change[:, 1, head]}
                tables.append(places[["passage", "position", "feature"]].assign(**measured))
    order = ["passage", "position", "feature"]  # not that of the batches
    return pd.concat(tables, ignore_index=True).sort_values(order, kind="stable", ignore_index=True)


def later_outputs(rows: Rows, response: Tensor) -> dict[int, Tensor]:
    """The recurrence's outputs of every layer above the patched one at the rows' first token, `[R, copies, H, V]`."""
    found: dict[int, Tensor] = {}

    def after(call: KernelCall, result: KernelResult) -> KernelResult:
        if call.layer > rows.run.layer:
            found[call.layer] = result.output[:, 0].reshape(-1, rows.copies, *result.output.shape[2:])
        return result

    with rows.run.host.tap(Tap(after=after)):
        rows.logits(response)
    return found


def summarise(records: pd.DataFrame, config: ReadersConfig) -> ReadersSummary:
    """The summary of the records."""
    medians = records.groupby(["feature", "reader"])[["atom", "random"]].median()
    table = (medians["atom"] / medians["random"]).rename("ratio").reset_index()
    best = table.loc[table.groupby("feature").ratio.idxmax()].sort_values("ratio", ascending=False)
    found = [Reader(int(r["feature"]), str(r["reader"]), float(r["ratio"])) for r in best.to_dict("records")]
    return ReadersSummary(int(records.feature.nunique()), float(table.ratio.median()), tuple(found))
