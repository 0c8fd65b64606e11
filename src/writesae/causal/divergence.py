"""How far a patched next-token distribution is from the native one."""

from __future__ import annotations

import torch
from torch import Tensor

from writesae.types import KLDirection


def kl_divergence(native: Tensor, patched: Tensor, direction: KLDirection = "native||patched") -> Tensor:
    """KL in nats over the last axis of logits, computed in float64.

    In float64 the rounding of the logits enters only to second order, so values far below 1e-6 are meaningful.
    """
    p, q = (torch.log_softmax(x.double(), -1) for x in (native, patched))
    if direction == "patched||native":
        p, q = q, p
    return (p.exp() * (p - q)).sum(-1).clamp_min(0.0)
