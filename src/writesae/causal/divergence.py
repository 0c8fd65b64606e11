"""How far a patched next-token distribution is from the native one, and what it says of a text: in float64."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from writesae.types import KLDirection

FAR = 300.0
"""Change of a logit from which on the ratio of two probabilities is not computed."""


def kl_divergence(native: Tensor, patched: Tensor, direction: KLDirection = "native||patched") -> Tensor:
    """KL in nats over the last axis of logits, computed in float64."""
    return kl_divergences(native, patched, (direction,))[0]


def kl_divergences(native: Tensor, patched: Tensor, directions: Sequence[KLDirection]) -> Tensor:
    """The same in several directions, the first axis.

    With `p` the native probabilities and `d` the change of the logits less its mean under `p`, KL(p||q) is
    `log sum p exp(d)` and KL(q||p) is `sum q d` less that. Nothing large is subtracted, so that the rounding of the
    logits enters to second order alone, and values far below 1e-6 are meaningful (`rounding_floor`).
    """
    wide = native.double()
    p = torch.softmax(wide, -1)
    change = patched - wide  # in float64
    change -= _mean(p, change).unsqueeze(-1)
    if change.numel() and float(change.max()) > FAR:
        return _far(wide, patched.double(), directions)
    grown = change.expm1_() if tuple(directions) == ("native||patched",) else torch.expm1(change)
    total = _mean(p, grown)
    log = torch.log1p(total)
    ways = {"native||patched": lambda: log, "patched||native": lambda: _mean(p, grown * change) / (1 + total) - log}
    return torch.stack([ways[direction]().clamp_min(0.0) for direction in directions])


def _far(native: Tensor, patched: Tensor, directions: Sequence[KLDirection]) -> Tensor:
    """The same from logarithms of both distributions, where their ratio may not be a number."""
    p, q = (torch.log_softmax(x, -1) for x in (native, patched))
    ways = {"native||patched": lambda: p.exp() * (p - q), "patched||native": lambda: q.exp() * (q - p)}
    return torch.stack([ways[direction]().sum(-1).clamp_min(0.0) for direction in directions])


def _mean(p: Tensor, x: Tensor) -> Tensor:
    """The mean of `x` over its last axis under probabilities `p`."""
    return torch.einsum("...v,...v->...", p, x)


def rounding_floor(native: Tensor, again: Tensor) -> Tensor:
    """The KL in nats that rounding alone makes, over the last axis of logits: between two native runs that are rounded
    differently (`Scored.native` and `.again`), and at least what logits of this size can hold.

    It is one draw of a random number: against the same runs in float64, a KL of ten times the floor is real.
    """
    return torch.maximum(kl_divergence(native, again), smallest_kl(native))


def smallest_kl(logits: Tensor) -> Tensor:
    """The KL of two distributions that differ by independent errors of half a unit in the last place of the largest of
    these logits, `(u / 2)^2`, and at least the rounding of the KL itself."""
    largest = logits.abs().amax(-1)
    unit = torch.nextafter(largest, torch.full_like(largest, torch.inf)) - largest
    return ((unit.double() / 2) ** 2).clamp_min(torch.finfo(torch.float64).eps)


def token_losses(logits: Tensor, tokens: Tensor) -> Tensor:
    """Negative log-likelihood of every next token of texts `[B, T]` by logits `[B, T, vocabulary]`: `[B, T - 1]`, nats,
    float64. One text at a time is widened."""
    each = [
        cross_entropy(row[:-1].double(), text[1:].to(row.device), reduction="none")
        for row, text in zip(logits, tokens, strict=True)
    ]
    return torch.stack(each)
