"""Does a formula say how a rank-1 write moves the logits? Three predictors beside the measured change.

`closed`: the paper's product (appendix A) of decays, read, output projection and unembedding, no norm anywhere.
`direct`: the same with the erase terms, the gated norm's and the final norm's Jacobian: the direct path, complete.
`exact`: all first-order effects, through every read and every layer above (MATH.md section 6).
The write `eps * size * v w^T` (unit v, w; size the site's median native write) is added at a token, which reads it
itself (`at_token`) or not (`after_token`), and the logits are read there or some tokens later. R^2 is given with
nothing fitted, and with one factor fitted a cell.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor

from writesae.causal.budget import passages_at_once
from writesae.causal.closed_form import closed_form, toward
from writesae.causal.gradients import Forward, direct_gradients, forward, logit_gradients
from writesae.causal.patching import Edits, first_step, patched_logits
from writesae.causal.precision import fits_widened, in_float64, widened
from writesae.causal.writes import head_writes
from writesae.errors import InputError
from writesae.evals.common.controls import normalize
from writesae.evals.common.drawn_firings import check_features
from writesae.evals.old.configs import LogitShiftConfig as LogitShiftConfig
from writesae.evals.old.logit_shift_summary import CELL, hidden, measurable
from writesae.evals.old.logit_shift_summary import LogitShiftSummary as LogitShiftSummary
from writesae.evals.old.logit_shift_summary import summarise as summarise
from writesae.evals.old.parts import Parts
from writesae.evals.old.provenance import provenance
from writesae.evals.old.result import Result, count
from writesae.hosts import Host
from writesae.hosts.fork import NativeRun, native_run
from writesae.recurrence import adjoint_products
from writesae.sae import SAE
from writesae.types import Site, Timing

PLACES_AT_ONCE = 8


@torch.no_grad()
def logit_shift(
    host: Host,
    sae: SAE,
    site: Site,
    tokens: Tensor,
    config: LogitShiftConfig | None = None,
    folder: Path | None = None,
) -> Result[LogitShiftConfig, LogitShiftSummary]:
    """Measure and predict on passages `[B, T]`; an item is one (atom, timing, epsilon, horizon).

    In `folder` finished passages are kept, and a run that was stopped goes on there. Raises InputError for passages
    that are too few or short, ranks beyond the vocabulary, or a dictionary or atoms that never fire.
    """
    config = LogitShiftConfig() if config is None else config
    source = provenance(host, site, tokens, sae)
    room = tokens.shape[1] - max(config.horizons) - 2
    if len(tokens) < config.places or room < 1:
        raise InputError(
            f"{config.places} places {max(config.horizons)} tokens before their reading need as many passages of at "
            f"least {max(config.horizons) + 3} tokens, not {len(tokens)} of {tokens.shape[1]}"
        )
    if max(config.ranks) >= host.vocabulary:
        raise InputError(f"token ranks {config.ranks} must lie in 0 to {host.vocabulary - 1} for {host.name}")
    text = tokens[: config.places]
    atoms = _atoms(host, sae, site, text, config)
    parts = Parts.open(folder, "logit_shift", source, config)
    records = _measured(host, sae, site, text, atoms, config, parts, wide=config.precision == "float64")
    if config.precision == "auto" and hidden(records) and fits_widened(host):
        records = _measured(host, sae, site, text, atoms, config, parts, wide=True)
    quiet = ~measurable(records).groupby(CELL).first()
    refused = count(["no effect above the rounding of the logits" if q else "" for q in quiet])
    if atoms.silent:
        refused["never fires"] = atoms.silent * len(quiet) // len(atoms.feature)
    attempted, summary = len(quiet) + refused.get("never fires", 0), summarise(records, config)
    return Result("logit_shift", source, config, attempted, refused, summary, records)


class _Atoms(NamedTuple):
    feature: Tensor
    size: float
    """Median norm of a native (delta) write."""
    silent: int
    """How many of those asked for never fire."""


def _atoms(host: Host, sae: SAE, site: Site, tokens: Tensor, config: LogitShiftConfig) -> _Atoms:
    """The atoms asked for, else those with the largest summed coefficients."""
    asked = check_features(sae, config.features)
    total, norms = torch.zeros(sae.config.features), []
    for begin in range(0, len(tokens), PLACES_AT_ONCE):
        written = head_writes(native_run(host, tokens[begin : begin + PLACES_AT_ONCE], site.layer), site.head).written
        codes = sae.encode_written(written)
        total.index_add_(0, codes.index.flatten().cpu(), codes.value.flatten().cpu())
        norms.append((written.key.norm(dim=-1) * written.update.norm(dim=-1)).flatten())
    wanted = torch.tensor(asked) if asked else total.topk(min(config.atoms, len(total))).indices
    alive = wanted[total[wanted] > 0]
    if len(alive) == 0:
        what = f"of the {len(asked)} features" if asked else "feature of the dictionary"
        raise InputError(f"no {what} fires at {site} in {len(tokens)} passages")
    return _Atoms(alive, float(torch.cat(norms).median()), len(wanted) - len(alive))


def _measured(
    host: Host, sae: SAE, site: Site, text: Tensor, atoms: _Atoms, config: LogitShiftConfig, parts: Parts, wide: bool
) -> pd.DataFrame:
    """All records at one precision."""
    room = text.shape[1] - max(config.horizons) - 2
    position = torch.randint(1, room + 1, (len(text),), generator=torch.Generator().manual_seed(config.seed))
    copies: list[Host] = []

    def cells(part: slice) -> pd.DataFrame:
        if not wide:
            return _cells(host, sae, site, text[part], position[part], atoms, config)
        with in_float64():
            copies.extend([] if copies else [widened(host)])
            return _cells(copies[0], sae, site, text[part], position[part], atoms, config)

    tables, precision = [], "float64" if wide else "float32"
    for begin in range(0, len(text), PLACES_AT_ONCE):
        table = parts.get(f"{precision}-{begin}", partial(cells, slice(begin, begin + PLACES_AT_ONCE)))
        tables.append(table.assign(passage=table.passage + begin, precision=precision))
    return pd.concat(tables, ignore_index=True)


def _cells(
    host: Host, sae: SAE, site: Site, tokens: Tensor, position: Tensor, atoms: _Atoms, config: LogitShiftConfig
) -> pd.DataFrame:
    found, tables = sae.atoms(), []
    at_once = passages_at_once(host, tokens.shape[1], site.layer, read=max(config.horizons) + 1, graph=True)
    for begin in range(0, len(tokens), at_once):
        part = slice(begin, begin + at_once)
        run = native_run(host, tokens[part], site.layer)
        read = position[part, None] + torch.arange(max(config.horizons) + 1)  # all that either timing scores
        graph = forward(host, tokens[part], [site.layer], read)
        v, w = (normalize(x[atoms.feature].to(run.streams[site.layer].key)) for x in (found.v, found.w))
        for timing in config.timings:
            table = _cells_of(host, site, run, graph, position[part], atoms, v, w, config, timing)
            tables.append(table.assign(passage=table.passage + begin, protocol=timing))
    return pd.concat(tables, ignore_index=True)


def _cells_of(
    host: Host,
    site: Site,
    run: NativeRun,
    graph: Forward,
    position: Tensor,
    atoms: _Atoms,
    v: Tensor,
    w: Tensor,
    config: LogitShiftConfig,
    timing: Timing,
) -> pd.DataFrame:
    tokens, (feature, size, _) = run.tokens, atoms
    rows, steps = torch.arange(len(tokens)), torch.tensor(config.horizons) - 1 + first_step(timing)
    full = graph.logits.detach()[:, steps]  # [R, horizons, vocabulary]
    order = full.argsort(-1, descending=True)
    token = order[:, :, list(config.ranks)]  # [R, horizons, ranks]
    measured, noise = _measure(run, site.head, position, v, w, token, size, config, timing, full)

    local = position[:, None] + torch.arange(int(steps.max()) + 1)
    stream = graph.streams[site.layer].heads(site.head).map(lambda x: x[rows[:, None], local])
    tables = []
    for i, (horizon, step) in enumerate(zip(config.horizons, steps.tolist(), strict=True)):
        scored = position + step
        for j, rank in enumerate(config.ranks):
            here = token[:, i, j]
            whole = logit_gradients(graph, site.layer, torch.full_like(rows, step), here)
            whole = whole[rows[:, None], local, site.head].unsqueeze(2)
            direct = torch.zeros_like(whole)
            direct[:, step, 0] = direct_gradients(graph, site.layer, scored, here)[:, site.head]
            at_token = timing == "at_token"
            slopes = {
                "closed": closed_form(stream, step, v, w, toward(host, site, here)),
                "direct": adjoint_products(stream, direct, v, w, at_token=at_token)[:, 0],
                "exact": adjoint_products(stream, whole, v, w, at_token=at_token)[:, 0],
            }
            for e, epsilon in enumerate(config.epsilons):
                columns = {name: (slope * epsilon * size).flatten().cpu().numpy() for name, slope in slopes.items()}
                grid = {
                    "feature": feature.repeat(len(tokens)),
                    "passage": rows.repeat_interleave(len(feature)),
                    "position": position.repeat_interleave(len(feature)),
                    "token": here.repeat_interleave(len(feature)).cpu(),
                    "measured": measured[:, e, :, i, j].flatten(),
                    "noise": noise[:, i, j].repeat_interleave(len(feature)),
                }
                table = pd.DataFrame({name: x.numpy() for name, x in grid.items()} | columns)
                tables.append(table.assign(epsilon=epsilon, horizon=horizon, rank=rank))
    return pd.concat(tables, ignore_index=True)


def _measure(
    run: NativeRun,
    head: int,
    position: Tensor,
    v: Tensor,
    w: Tensor,
    token: Tensor,
    size: float,
    config: LogitShiftConfig,
    timing: Timing,
    full: Tensor,
) -> tuple[Tensor, Tensor]:
    """Measured changes `[R, epsilons, atoms, horizons, ranks]`, and how far the native logits are from those of the
    whole forward pass (`full`), `[R, horizons, ranks]`."""
    places, n = len(position), len(v)
    steps = torch.tensor(config.horizons) - 1
    found = torch.empty(places, len(config.epsilons), n, *token.shape[1:], dtype=torch.float64)
    noise = torch.empty(token.shape, dtype=torch.float64)
    for e, epsilon in enumerate(config.epsilons):
        weight = (torch.eye(n) * epsilon * size).expand(places, n, n)
        edits = Edits(
            [head] * n, torch.arange(places), position, v.expand(places, -1, -1), w.expand(places, -1, -1), weight
        )
        for scored in patched_logits(run, edits, timing, max(config.horizons)):
            here = token[scored.which]
            native = scored.native[:, steps].gather(-1, here)
            patched = scored.patched[:, :, steps].gather(-1, here.unsqueeze(1).expand(-1, n, -1, -1))
            found[scored.which, e] = (patched.double() - native.double().unsqueeze(1)).cpu()
            again = full[scored.which].gather(-1, here)
            noise[scored.which] = (again.double() - native.double()).cpu()
    return found, noise
