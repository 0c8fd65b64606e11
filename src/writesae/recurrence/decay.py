"""Decays over many tokens, as sums of logs."""

from __future__ import annotations

import torch
from torch import Tensor

from writesae.types import Float

FORGOTTEN = -1e4
"""Stands for the log of a decay of exactly 0: `exp` of it is 0, and differences of its sums are finite."""


def log_sums(
    log_decay: Float[Tensor, " *shape"], dim: int
) -> tuple[Float[Tensor, " *shape"], Float[Tensor, " *shape"]]:
    """Logs of the decay from the start up to each token, without and with its own, float64.

    A decay from one token to another is `exp` of the difference of two sums, which may be a thousand times as large:
    in float32 it would lose as many digits.
    """
    logs = log_decay.double().clamp_min(FORGOTTEN)
    upto = logs.cumsum(dim)
    first = torch.zeros_like(upto.narrow(dim, 0, 1))
    return torch.cat([first, upto.narrow(dim, 0, upto.shape[dim] - 1)], dim), upto
