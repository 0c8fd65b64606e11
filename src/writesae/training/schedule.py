"""What changes with the step: learning rate, k, bandwidth. Pure functions."""

from __future__ import annotations

import math

from writesae.sae.config import BatchTopK, TopK
from writesae.training.config import TrainConfig


def learning_rate(config: TrainConfig, step: int, steps: int) -> float:
    """Linear warm-up, then a cosine from `lr` to `lr_end` that ends with the last step."""
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    rest = max(1, steps - 1 - config.warmup)
    share = min(1.0, (step - config.warmup) / rest)
    return config.lr_end + (config.lr - config.lr_end) * 0.5 * (1 + math.cos(math.pi * share))


def active_features(config: TrainConfig, step: int) -> int | None:
    """`k` at a step, falling linearly from `k_start`; None for other sparsities."""
    if not isinstance(config.sparsity, TopK | BatchTopK):
        return None
    k = config.sparsity.k
    if config.k_start is None or step >= config.k_steps:
        return k
    return round(config.k_start + (k - config.k_start) * step / config.k_steps)


def bandwidth(config: TrainConfig, first: float, step: int, steps: int) -> float:
    """JumpReLU's window, from its width at the start to `bandwidth_end` times it."""
    return first * (1 + (config.bandwidth_end - 1) * step / max(1, steps - 1))
