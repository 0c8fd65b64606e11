"""Does a write move the target's logit the way that was predicted? One write at one position, next-token logit.

Paper, appendix I.5. Contexts are texts `[n, T]`; the logit is read at their last token, and the write is made there
(`at_token`) or one token before (`after_token`). Directions: `closed` (the last token's query, the target's
unembedding through the head), `exact` (leading pair of the gradient), and `random`. Each is predicted by the exact
first order (`v^T G w`, which is not fitted) and by the closed form (decay product x <v, q> x <W_O w, W_U>, without
erase terms).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from writesae.causal.closed_form import closed_form, toward
from writesae.causal.gradients import Gradients, output_gradients
from writesae.causal.patching import Edits, patched_logits
from writesae.causal.targets import RowLogit
from writesae.edits.directions import DirectionKind, leading_pair, state_gradients, unit
from writesae.errors import InputError
from writesae.evals.common.stats import Interval, r_squared, wilson
from writesae.evals.old.parts import Parts
from writesae.evals.old.provenance import provenance
from writesae.evals.old.result import Result
from writesae.hosts import Host
from writesae.hosts.fork import native_run
from writesae.types import Site, Timing

KINDS: tuple[DirectionKind, ...] = ("closed", "exact", "random")
BATCH = 50


@dataclass(frozen=True)
class SignConfig:
    """The protocol of a sign test."""

    magnitudes: tuple[float, ...] = (0.1, 1.0, 3.0)
    """Frobenius norm of the write, in native writes (value form) of the same token."""
    timings: tuple[Timing, ...] = ("after_token", "at_token")
    ranks: tuple[int, int] = (0, 1)
    """Targets are drawn from these ranks of the native next-token distribution: (0, 1) is the top token."""
    seed: int = 0


@dataclass(frozen=True)
class SignRow:
    """One direction, predictor, timing and magnitude."""

    direction: DirectionKind
    predictor: str
    timing: Timing
    magnitude: float
    n: int
    agreement: float
    """Share of trials whose logit moved the predicted way; a trial that moved nothing counts against it."""
    interval: Interval
    """Wilson; trials come from distinct contexts."""
    pearson: float
    r2: float
    """Unfitted."""


@dataclass(frozen=True)
class SignSummary:
    """The result's table."""

    rows: tuple[SignRow, ...]


def sign_test(
    host: Host,
    site: Site,
    contexts: Tensor,
    config: SignConfig | None = None,
    progress: Callable[[int, int], None] | None = None,
    parts: Path | None = None,
) -> Result[SignConfig, SignSummary]:
    """Run the test on texts `[n, T]`, one trial a text, direction, timing and magnitude.

    Finished pieces are kept in the folder `parts`. Raises InputError for contexts under 3 tokens, or ranks outside
    the vocabulary.
    """
    config = SignConfig() if config is None else config
    host.check_site(site)
    if contexts.ndim != 2 or contexts.shape[1] < 3:
        raise InputError(f"a sign test needs contexts [n, T] of 3 tokens or more, not {tuple(contexts.shape)}")
    if not 0 <= config.ranks[0] < config.ranks[1] <= host.vocabulary:
        raise InputError(f"ranks {config.ranks} are not within a vocabulary of {host.vocabulary}")
    source = provenance(host, site, contexts)
    pieces = Parts.open(parts, "sign", source, config)
    tables = []
    for begin in range(0, len(contexts), BATCH):
        some = contexts[begin : begin + BATCH]
        tables.append(pieces.get(f"{begin}", lambda x=some, b=begin: _batch(host, site, x, config, b)))  # type: ignore[misc]
        if progress is not None:
            progress(min(begin + BATCH, len(contexts)), len(contexts))
    records = pd.concat(tables, ignore_index=True)
    summary = SignSummary(_summarise(records))
    return Result("sign", source, config, len(contexts), {}, summary, records)


def draw_targets(logits: Tensor, ranks: tuple[int, int], generator: torch.Generator) -> Tensor:
    """One token a row of `[B, vocabulary]` from these ranks (the second excluded), uniformly."""
    order = logits.argsort(-1, descending=True)
    rank = torch.randint(*ranks, (len(logits),), generator=generator)
    return order.cpu()[torch.arange(len(logits)), rank]


def batch_generator(seed: int, begin: int) -> torch.Generator:
    """The random numbers of the batch that starts at trial `begin`: its own, so that a run can go on from any."""
    return torch.Generator().manual_seed(seed * 1_000_003 + begin)


def _batch(host: Host, site: Site, contexts: Tensor, config: SignConfig, begin: int) -> pd.DataFrame:
    generator = batch_generator(config.seed, begin)
    targets = draw_targets(host.logits(contexts, keep=1)[:, -1], config.ranks, generator)
    found = output_gradients(host, contexts, RowLogit(tuple(targets.tolist())), [site.layer])
    return pd.concat(
        [_timed(host, site, contexts, targets, found, t, config, generator, begin) for t in config.timings]
    )


@torch.no_grad()
def _timed(
    host: Host,
    site: Site,
    contexts: Tensor,
    targets: Tensor,
    found: Gradients,
    timing: Timing,
    config: SignConfig,
    generator: torch.Generator,
    begin: int,
) -> pd.DataFrame:
    rows, last = len(contexts), contexts.shape[1] - 1
    position = last if timing == "at_token" else last - 1
    stream = found.streams[site.layer].heads(site.head)
    gradient = state_gradients(found, site, timing)[:, position]
    norm = stream.key[:, position, 0].norm(dim=-1) * stream.value[:, position, 0].norm(dim=-1)
    exact = leading_pair(gradient)
    noise = [torch.randn(rows, d, generator=generator).to(norm) for d in gradient.shape[1:]]
    key = torch.stack([unit(stream.query[:, last, 0]), exact.key, unit(noise[0])], 1)
    towards = toward(host, site, targets).to(norm)
    value = torch.stack([unit(towards), exact.value, unit(noise[1])], 1)
    by_gradient = torch.einsum("rmk,rkv,rmv->rm", key, gradient, value)
    local = stream.map(lambda x: x[:, position:])
    by_closed_form = closed_form(local, last - position, key, value, towards)

    count = len(config.magnitudes)
    weight = torch.zeros(rows, len(KINDS) * count, len(KINDS)).to(norm)
    for m in range(len(KINDS)):
        for c, magnitude in enumerate(config.magnitudes):
            weight[:, m * count + c, m] = magnitude * norm
    edits = Edits([site.head] * len(KINDS), torch.arange(rows), torch.full((rows,), position), key, value, weight)
    change = torch.zeros(rows, len(KINDS) * count, dtype=torch.float64)
    for scored in patched_logits(native_run(host, contexts, site.layer), edits, timing):
        chosen = targets[scored.which].to(scored.native.device)
        native = scored.native[:, 0].gather(1, chosen[:, None])
        patched = scored.patched[:, :, 0].gather(2, chosen[:, None, None].expand(-1, scored.patched.shape[1], 1))[
            ..., 0
        ]
        change[scored.which.cpu()] = (patched.double() - native.double()).cpu()
    parts = []
    for m, kind in enumerate(KINDS):
        for c, magnitude in enumerate(config.magnitudes):
            scale = magnitude * norm
            parts.append(
                pd.DataFrame(
                    {
                        "context": np.arange(begin, begin + rows),
                        "token": targets.numpy(),
                        "direction": kind,
                        "timing": timing,
                        "magnitude": magnitude,
                        "change": change[:, m * count + c].numpy(),
                        "exact": (scale * by_gradient[:, m]).double().cpu().numpy(),
                        "closed": (scale * by_closed_form[:, m]).double().cpu().numpy(),
                    }
                )
            )
    return pd.concat(parts)


def _pearson(x: np.ndarray[tuple[int], np.dtype[np.float64]], y: np.ndarray[tuple[int], np.dtype[np.float64]]) -> float:
    return float(np.corrcoef(x, y)[0, 1]) if x.std() and y.std() else float("nan")


def _summarise(records: pd.DataFrame) -> tuple[SignRow, ...]:
    rows = []
    for name, part in records.groupby(["direction", "timing", "magnitude"]):
        kind, timing, magnitude = cast(tuple[DirectionKind, Timing, float], name)
        measured = part["change"].to_numpy()
        for predictor in ("exact", "closed"):
            predicted = part[predictor].to_numpy()
            right = int(((np.sign(predicted) == np.sign(measured)) & (measured != 0)).sum())
            rows.append(
                SignRow(
                    kind, predictor, timing, magnitude, len(part), right / len(part), wilson(right, len(part)),
                    _pearson(predicted, measured), r_squared(measured, predicted),
                )
            )  # fmt: skip
    return tuple(rows)
