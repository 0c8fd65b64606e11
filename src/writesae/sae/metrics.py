"""How well a dictionary reconstructs: worked out from sums over tokens, so that batches do not matter."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from writesae.errors import InputError
from writesae.sae.batch import Batch
from writesae.sae.encoding import preactivations
from writesae.sae.model import SAE
from writesae.sae.sparse_loss import blocks


@dataclass(frozen=True)
class Metrics:
    """Reconstruction of held-out matrices, with codes as they are when the dictionary is used."""

    explained_variance: float
    """`1 - sum_t ||X_t - X^_t||^2 / sum_t ||X_t - mean X||^2`."""
    mse: float
    """Mean squared error an entry of the matrix."""
    alive: int
    """Features that fired at least once."""
    dead: int
    """Features that never fired."""
    l0: float
    """Mean active features a token."""
    tokens: int
    """Matrices that were looked at."""


def evaluate(sae: SAE, batches: Iterable[Batch], scale: float = 1.0) -> Metrics:
    """Metrics over batches whose matrices are `scale` times the raw ones; MSE is given for the raw ones.

    Raises InputError if there is no token.
    """
    error = square = active = 0.0
    total = torch.zeros(sae.bias.shape, dtype=torch.float64, device=sae.bias.device)
    fired = torch.zeros(sae.config.features, dtype=torch.bool, device=sae.bias.device)
    tokens = 0
    with torch.no_grad():
        for batch in batches:
            for part in blocks(sae, batch):
                matrices = part.matrices()
                codes = sae.codes(preactivations(sae, part, matrices))
                used = codes.value > 0
                fired[codes.index[used]] = True
                active += float(used.sum())
                error += float((matrices - sae.decode(codes)).square().sum())
                square += float(matrices.square().sum())
                total += matrices.sum(0)
                tokens += matrices.shape[0]
    if tokens == 0:
        raise InputError("a dictionary was to be evaluated on 0 tokens; at least 1 is needed")
    variance = square - float(total.square().sum()) / tokens
    alive = int(fired.sum())
    return Metrics(
        explained_variance=1 - error / variance if variance > 0 else float("nan"),
        mse=error / (tokens * sae.bias.numel() * scale**2),
        alive=alive,
        dead=sae.config.features - alive,
        l0=active / tokens,
        tokens=tokens,
    )
