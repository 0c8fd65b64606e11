"""From pre-activations to codes: which features fire and how strongly, differentiably where training needs it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from writesae.sae.codes import Codes
from writesae.types import Float


def top_codes(pre: Float[Tensor, "*T N"], k: int) -> Codes:
    """The `k` largest of each row that are positive; `pre` `[..., N]`, codes `[..., k]`. Differentiable."""
    value, index = pre.topk(k, dim=-1, sorted=False)
    return Codes(index, value.relu())


@torch.no_grad()
def top_entries(pre: Float[Tensor, "T N"], k: int) -> Codes:
    """`top_codes` of `[T, N]` without a graph: on a CPU, candidates by group first.

    Every one of a row's `k` largest lies in one of the `k` groups with the largest maxima, and a maximum over groups
    is quick while a selection is slow: it mispredicts branches. Groups of about `sqrt(N / k)` balance the two.
    """
    features = pre.shape[1]
    group = 1 << max(0, int(math.log2(features / k) / 2 + 0.5))
    if group < 4 or features % group or pre.device.type != "cpu":
        return top_codes(pre, k)
    groups = features // group
    best = pre.view(-1, group, groups).amax(1).topk(k, dim=1, sorted=False).indices
    members = torch.arange(0, features, groups, device=pre.device)
    candidates = (best.unsqueeze(2) + members).flatten(1)
    value, chosen = pre.gather(1, candidates).topk(k, dim=1, sorted=False)
    return Codes(candidates.gather(1, chosen), value.relu_())


def pack(dense: Float[Tensor, "*T N"]) -> Codes:
    """The non-zero entries of `[..., N]`, padded to the largest count of a row with zeros at feature 0."""
    width = max(int((dense != 0).sum(-1).max()) if dense.numel() else 0, 1)
    value, index = dense.topk(width, dim=-1, sorted=False)
    return Codes(index.masked_fill(value == 0, 0), value)


def batch_cut(pre: Float[Tensor, "T N"], k: int) -> Float[Tensor, ""]:
    """The smallest of the `k * rows` largest positive entries of `pre` `[T, N]` (0 if there are fewer)."""
    wanted = min(k * pre.shape[0], pre.numel())
    return pre.flatten().kthvalue(pre.numel() - wanted + 1).values.clamp_min(0)


def keep_batch_top(pre: Float[Tensor, "*T N"], k: int) -> Float[Tensor, "*T N"]:
    """The `k * rows` largest positive entries of `pre` `[..., N]` over all rows together, zero elsewhere."""
    flat = pre.relu().flatten()
    value, index = flat.topk(min(k * (flat.numel() // pre.shape[-1]), flat.numel()))
    return torch.zeros_like(flat).scatter(0, index, value).view_as(pre)


def step(p: Float[Tensor, "*T N"], threshold: Float[Tensor, " N"], width: Tensor | float) -> Float[Tensor, "*T N"]:
    """`1[p > threshold]` of `p` `[..., N]` and thresholds `[N]`, whose gradient is `-1 / width` in a window of that
    width around the threshold (and none for `p`)."""
    near = (p - threshold).detach().abs() < width / 2
    return (p > threshold).to(p.dtype) - near * ((threshold - threshold.detach()) / width)  # what is subtracted is 0


def jump(p: Float[Tensor, "*T N"], threshold: Float[Tensor, " N"], width: Tensor | float) -> Float[Tensor, "*T N"]:
    """`p 1[p > threshold]` where positive; gradients as in Rajamanoharan et al. 2024b: `1[p > threshold]` of `p`,
    `-threshold / width` of the threshold in the whole window around it, whether the feature fires there or not."""
    near = (p - threshold).detach().abs() < width / 2
    still = threshold.detach().clamp_min(0)
    return (p * (p > threshold)).relu() - near * (still * (threshold - threshold.detach()) / width)
