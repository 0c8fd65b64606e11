"""Does a formula say how a rank-1 write moves the logits? Three predictors beside the measured change.

`closed`: the paper's product (appendix A) of decays, read, output projection and unembedding, no norm anywhere.
`direct`: the same with the erase terms, the gated norm's and the final norm's Jacobian: the direct path, complete.
`exact`: all first-order effects, through every read and every layer above (MATH.md section 6).
The write `eps * size * v w^T` (unit v, w; size the site's median native write) is added after a token, and the
logits are read some tokens later. R^2 is given with nothing fitted, and with one factor fitted a cell.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from writesae.errors import InputError
from writesae.evals.controls import normalize
from writesae.evals.first_order import closed_gradients, direct_gradients, forward_from, logit_gradients
from writesae.evals.patching import Edits, patched_logits
from writesae.evals.provenance import provenance
from writesae.evals.result import Result, count
from writesae.evals.stats import r_squared, scaled_r_squared
from writesae.evals.writes import head_writes
from writesae.hosts import Host
from writesae.hosts.fork import NativeRun, native_run
from writesae.recurrence import Stream, adjoint_products
from writesae.sae import SAE
from writesae.types import Site

PREDICTORS = ("closed", "direct", "exact")
MEASURABLE = 30.0
"""An atom counts at an epsilon where its effect is this many times the rounding of the logits (root mean square)."""
PLACES_AT_ONCE = 8


@dataclass(frozen=True)
class LogitShiftConfig:
    """The grid of one logit-shift evaluation, timing `after_token`."""

    atoms: int = 50
    """Atoms, those with the largest summed coefficients."""
    places: int = 32
    """Passages, one write each, at a random token."""
    epsilons: tuple[float, ...] = (0.03, 0.1, 0.3, 1.0)
    """Sizes of the write, in median native writes."""
    horizons: tuple[int, ...] = (1, 4)
    """How many tokens later the logits are read."""
    ranks: tuple[int, ...] = (0, 9, 99)
    """Which tokens, by their rank in the native distribution there (0 is the most likely one)."""
    seed: int = 0


@dataclass(frozen=True)
class Fit:
    """One predictor over one part of the grid."""

    predictor: str
    epsilon: float
    horizon: int
    atoms: int
    """With a measurable effect."""
    r2: float
    """Nothing fitted, median over atoms."""
    r2_least: float
    """Smallest over atoms."""
    r2_pooled: float
    """Nothing fitted, all atoms together."""
    r2_fitted: float
    """One factor fitted an atom, median over atoms."""
    sign: float
    """Share of effects beyond the rounding whose sign is as predicted."""


@dataclass(frozen=True)
class RankFit:
    """One predictor over all tokens of one native rank."""

    predictor: str
    rank: int
    r2_pooled: float
    sign: float


@dataclass(frozen=True)
class LogitShiftSummary:
    """How well each predictor does."""

    fits: tuple[Fit, ...]
    by_rank: tuple[RankFit, ...]
    """At the smallest epsilon."""
    noise: float
    """Root mean square difference of native logits between two ways to compute them: the rounding."""

    def fit(self, predictor: str, epsilon: float, horizon: int) -> Fit:
        """One cell of the grid."""
        return next(f for f in self.fits if (f.predictor, f.epsilon, f.horizon) == (predictor, epsilon, horizon))


def logit_shift(
    host: Host, sae: SAE, site: Site, tokens: Tensor, config: LogitShiftConfig | None = None
) -> Result[LogitShiftConfig, LogitShiftSummary]:
    """Measure and predict on passages `[B, T]`; an item is one (atom, epsilon, horizon).

    Raises InputError for passages that are too few or short, ranks beyond the vocabulary, or a silent dictionary.
    """
    config = LogitShiftConfig() if config is None else config
    source = provenance(host, site, tokens, sae)
    room = tokens.shape[1] - max(config.horizons) - 2
    if len(tokens) < config.places or room < 1:
        raise InputError(
            f"{config.places} places {max(config.horizons)} tokens before their reading need as many passages of at "
            f"least {max(config.horizons) + 3} tokens, not {len(tokens)} of {tokens.shape[1]}"
        )
    if max(config.ranks) >= host.vocabulary or min(config.ranks) < 0:
        raise InputError(f"token ranks {config.ranks} must lie in 0 to {host.vocabulary - 1} for {host.name}")
    text = tokens[: config.places]
    position = torch.randint(1, room + 1, (len(text),), generator=torch.Generator().manual_seed(config.seed))
    feature, size = _atoms_and_size(host, sae, site, text, config.atoms)
    tables = []
    for begin in range(0, len(text), PLACES_AT_ONCE):
        part = slice(begin, begin + PLACES_AT_ONCE)
        table = _cells(host, sae, site, text[part], position[part], feature, size, config)
        tables.append(table.assign(passage=table.passage + begin))
    records = pd.concat(tables, ignore_index=True)
    quiet = ~_measurable(records).groupby(["feature", "epsilon", "horizon"]).first()
    refused = count(["no effect above the rounding of the logits" if q else "" for q in quiet])
    summary = summarise(records)
    return Result("logit_shift", source, config, len(quiet), refused, summary, records)


def _atoms_and_size(host: Host, sae: SAE, site: Site, tokens: Tensor, atoms: int) -> tuple[Tensor, float]:
    """The atoms that fire most, and the median norm of a native (delta) write."""
    total, norms = torch.zeros(sae.config.features), []
    for begin in range(0, len(tokens), PLACES_AT_ONCE):
        written = head_writes(native_run(host, tokens[begin : begin + PLACES_AT_ONCE], site.layer), site.head).written
        codes = sae.encode_written(written)
        total.index_add_(0, codes.index.flatten().cpu(), codes.value.flatten().cpu())
        norms.append((written.key.norm(dim=-1) * written.update.norm(dim=-1)).flatten())
    alive = int((total > 0).sum())
    if alive == 0:
        raise InputError(f"no feature of the dictionary fires at {site} in {len(tokens)} passages")
    return total.topk(min(atoms, alive)).indices, float(torch.cat(norms).median())


def _cells(
    host: Host,
    sae: SAE,
    site: Site,
    tokens: Tensor,
    position: Tensor,
    feature: Tensor,
    size: float,
    config: LogitShiftConfig,
) -> pd.DataFrame:
    atoms = sae.atoms()
    v, w = normalize(atoms.v[feature]), normalize(atoms.w[feature])
    forward = forward_from(host, tokens, site.layer)
    rows, steps = torch.arange(len(tokens)), torch.tensor(config.horizons)
    order = forward.logits.detach()[rows[:, None], position[:, None] + steps].argsort(-1, descending=True)
    token = order[:, :, list(config.ranks)]  # [R, horizons, ranks]
    run = native_run(host, tokens, site.layer)
    measured, noise = _measure(run, site.head, position, v, w, token, size, config, forward.logits.detach())

    local = position[:, None] + torch.arange(max(config.horizons) + 1)
    stream = forward.stream.heads(site.head).map(lambda x: x.detach()[rows[:, None], local])
    tables = []
    for i, horizon in enumerate(config.horizons):
        scored = position + horizon
        for j, rank in enumerate(config.ranks):
            here = token[:, i, j]
            whole = logit_gradients(forward, scored, here)[rows[:, None], local, site.head].unsqueeze(2)
            direct = torch.zeros_like(whole)
            direct[:, horizon, 0] = direct_gradients(host, tokens, site.layer, forward, scored, here)[:, site.head]
            slopes = {
                "closed": _closed(stream, horizon, v, w, closed_gradients(host, site.layer, here)[:, site.head]),
                "direct": adjoint_products(stream, direct, v, w, at_token=False)[:, 0],
                "exact": adjoint_products(stream, whole, v, w, at_token=False)[:, 0],
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
    full: Tensor,
) -> tuple[Tensor, Tensor]:
    """Measured changes `[R, epsilons, atoms, horizons, ranks]`, and how far the native logits are from those of the
    whole forward pass, `[R, horizons, ranks]`."""
    places, n = len(position), len(v)
    steps = torch.tensor(config.horizons) - 1
    found = torch.empty(places, len(config.epsilons), n, *token.shape[1:], dtype=torch.float64)
    noise = torch.empty(token.shape, dtype=torch.float64)
    for e, epsilon in enumerate(config.epsilons):
        weight = (torch.eye(n) * epsilon * size).expand(places, n, n)
        edits = Edits(
            [head] * n, torch.arange(places), position, v.expand(places, -1, -1), w.expand(places, -1, -1), weight
        )
        for scored in patched_logits(run, edits, "after_token", max(config.horizons)):
            here = token[scored.which]
            native = scored.native[:, steps].gather(-1, here)
            patched = scored.patched[:, :, steps].gather(-1, here.unsqueeze(1).expand(-1, n, -1, -1))
            found[scored.which, e] = (patched.double() - native.double().unsqueeze(1)).cpu()
            again = full[scored.which[:, None], position[scored.which][:, None] + steps + 1].gather(-1, here)
            noise[scored.which] = (again.double() - native.double()).cpu()
    return found, noise


def _closed(stream: Stream, horizon: int, v: Tensor, w: Tensor, gradient: Tensor) -> Tensor:
    """Decays of the tokens between, the read of the scored token, `W_O w . W_U`: `[R, atoms]`."""
    kept = stream.log_decay[:, 1 : horizon + 1, 0].sum(1).exp()
    return ((kept * stream.query[:, horizon, 0]) @ v.T) * (gradient @ w.T)


def _measurable(records: pd.DataFrame) -> pd.Series[bool]:
    """For each row whether its (atom, epsilon, horizon) has an effect above the rounding."""
    keys = [records[name] for name in ("feature", "epsilon", "horizon")]
    effect = np.sqrt(records.measured.pow(2).groupby(keys).transform("mean"))
    floor = float(np.sqrt(records.noise.pow(2).mean()))
    flags: pd.Series[bool] = (effect > MEASURABLE * floor).set_axis(pd.MultiIndex.from_arrays(keys))
    return flags


def _sign(table: pd.DataFrame, predictor: str, floor: float) -> float:
    loud = table[table.measured.abs() > MEASURABLE * floor]
    return float((np.sign(loud.measured) == np.sign(loud[predictor])).mean()) if len(loud) else float("nan")


def summarise(records: pd.DataFrame) -> LogitShiftSummary:
    """The summary of the records; nothing else enters it."""
    floor = float(np.sqrt(records.noise.pow(2).mean()))
    loud = records[_measurable(records).to_numpy()]
    fits, ranks = [], []
    for predictor in PREDICTORS:
        for _, cell in loud.groupby(["epsilon", "horizon"]):
            by_atom = [atom for _, atom in cell.groupby("feature")]
            plain = [r_squared(atom.measured, atom[predictor]) for atom in by_atom]
            fitted = [scaled_r_squared(atom.measured, atom[predictor]) for atom in by_atom]
            pooled, sign = r_squared(cell.measured, cell[predictor]), _sign(cell, predictor, floor)
            middle = (float(np.median(plain)), float(np.min(plain)), pooled, float(np.median(fitted)), sign)
            fits.append(Fit(predictor, float(cell.epsilon.iloc[0]), int(cell.horizon.iloc[0]), len(by_atom), *middle))
        small = loud[loud.epsilon == records.epsilon.min()]
        for _, cell in small.groupby("rank"):
            pooled = r_squared(cell.measured, cell[predictor])
            ranks.append(RankFit(predictor, int(cell["rank"].iloc[0]), pooled, _sign(cell, predictor, floor)))
    return LogitShiftSummary(tuple(fits), tuple(ranks), floor)
