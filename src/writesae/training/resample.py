"""Give dead features a new start at what the dictionary reconstructs worst."""

from __future__ import annotations

import torch
from torch import Tensor

from writesae.sae.batch import Batch
from writesae.sae.config import Factored, JumpReLU
from writesae.sae.encoding import preactivations
from writesae.sae.model import SAE
from writesae.sae.sparse_loss import blocks

ROUNDS = 8
"""Power iterations for the leading direction of a residual."""


@torch.no_grad()
def leading_pair(matrices: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Unit vectors `v` `[n, K]`, `w` `[n, V]` near each matrix's leading singular pair, with `v^T X w > 0`."""
    w = torch.randn(matrices.shape[0], matrices.shape[2], 1, generator=generator).to(matrices.device)
    v = matrices @ w
    for _ in range(ROUNDS):
        v = torch.nn.functional.normalize(matrices @ w, dim=1)
        w = torch.nn.functional.normalize(matrices.mT @ v, dim=1)
    return v.squeeze(2), w.squeeze(2)


@torch.no_grad()
def resample(sae: SAE, optimiser: torch.optim.Optimizer, batch: Batch, dead: Tensor, generator: torch.Generator) -> int:
    """Restart features `dead` (`[N]` bool) at the residuals of `batch`; returns how many were restarted.

    Tokens are drawn with probability proportional to their squared error; an atom is the residual's leading pair, its
    encoder is the same pair at the mean norm of the living, offsets start afresh, and the optimiser forgets the rows.
    """
    residuals = []
    for part in blocks(sae, batch):
        matrices = part.matrices()
        residuals.append(matrices - sae.decode(sae.codes(preactivations(sae, part, matrices))))
    residual = torch.cat(residuals)
    error = residual.square().sum((1, 2)).double()
    rows = dead.nonzero().squeeze(1)[: int((error > 0).sum())]
    if len(rows) == 0:
        return 0
    token = torch.multinomial(error.cpu(), len(rows), generator=generator).to(rows.device)
    v, w = leading_pair(residual[token], generator)
    _restart(sae, rows, v, w, ~dead)
    forget_rows(sae, optimiser, rows)
    return len(rows)


def _restart(sae: SAE, rows: Tensor, v: Tensor, w: Tensor, alive: Tensor) -> None:
    """Write the new directions into a dictionary's parameters."""
    outer = v.unsqueeze(2) * w.unsqueeze(1)
    if isinstance(sae.config.decoder, Factored):
        rank = sae.v_dec.shape[1]
        for name, side in (("v_dec", v), ("w_dec", w)):  # rank r: r equal shares, which training pulls apart
            getattr(sae, name)[rows] = side.unsqueeze(1).expand(-1, rank, -1) / rank**0.5
    else:
        sae.dec[rows] = outer
    if hasattr(sae, "enc"):
        sae.enc[rows] = outer * _mean_norm(sae.enc, alive)
    elif hasattr(sae, "v_enc"):
        rank = sae.v_enc.shape[1]
        for name, side in (("v_enc", v), ("w_enc", w)):
            factors = getattr(sae, name)
            factors[rows] = side.unsqueeze(1).expand(-1, rank, -1) * (_mean_norm(factors, alive) / rank**0.5)
    sae.b_enc[rows] = 0
    sae.b_enc[rows] = -sae.preactivations(sae.bias)[rows]
    for name in ("r_mag", "b_mag", "r_gate", "b_gate"):
        if hasattr(sae, name):
            getattr(sae, name)[rows] = 0
    if isinstance(sae.config.sparsity, JumpReLU) and alive.any():
        sae.threshold[rows] = sae.threshold[alive].mean()


def _mean_norm(factors: Tensor, alive: Tensor) -> Tensor:
    norms = factors.flatten(1).square().sum(1).sqrt()
    return norms[alive].mean() if bool(alive.any()) else torch.ones_like(norms[0])


@torch.no_grad()
def forget_rows(sae: SAE, optimiser: torch.optim.Optimizer, rows: Tensor) -> None:
    """Zero the optimiser's moments of these features in every parameter that has a row a feature."""
    for name, parameter in sae.named_parameters():
        if name == "bias":
            continue
        for moment in ("exp_avg", "exp_avg_sq"):
            state = optimiser.state.get(parameter, {})
            if moment in state:
                state[moment][rows] = 0
