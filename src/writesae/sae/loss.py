"""The training loss in its obvious dense form: the reference for every faster one.

    loss = mean_t ||X_t - X^_t||_F^2  +  penalty of the sparsity  +  weight * mean_t ||R_t - R^_t||_F^2

`R = X - X^` is the residual, held constant, and `R^` is what the dead features make of it, without the decoder bias
(adding it there would count it twice). Matryoshka prefixes and levels average the first term over the reconstructions.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from writesae.sae.codes import Codes
from writesae.sae.config import BatchTopK, Gated, JumpReLU, SAEConfig, SoftGated
from writesae.sae.model import SAE
from writesae.sae.sparsity import batch_cut, step
from writesae.types import Bool, Float, Int


class Dead(NamedTuple):
    """The auxiliary loss on features that have stopped firing."""

    mask: Bool[Tensor, "*G N"]
    """Which features are dead, `[N]` bool."""
    k: int
    """Most dead features that model a token's residual."""
    weight: float
    """Weight of the term."""


class Loss(NamedTuple):
    """A step's loss and what the trainer watches. The terms are scalars; their sum is what is minimised."""

    error: Float[Tensor, " *G"]
    """Mean squared Frobenius error, averaged over the reconstructions that are trained."""
    full: Float[Tensor, " *G"]
    """The same of the whole dictionary, without a gradient."""
    penalty: Float[Tensor, " *G"]
    """Sparsity penalty (0 for TopK)."""
    aux: Float[Tensor, " *G"]
    """Weighted auxiliary loss (0 without dead features)."""
    fired: Int[Tensor, "*G N"]
    """How many tokens each feature fired at, `[N]` int64."""
    cut: Float[Tensor, " *G"]
    """BatchTopK: the smallest code of the batch; 0 otherwise."""

    @property
    def total(self) -> Tensor:
        """What is minimised."""
        return self.error + self.penalty + self.aux


def training_codes(sae: SAE, pre: Float[Tensor, "T N"]) -> tuple[Float[Tensor, "T N"], Float[Tensor, ""]]:
    """Dense codes `[T, N]` as they are while training, and BatchTopK's cut."""
    if isinstance(sae.config.sparsity, BatchTopK):
        cut = batch_cut(pre.detach(), sae.config.sparsity.k)
        return pre * ((pre >= cut) & (pre > 0)), cut
    codes = sae.activations(pre)
    return (codes.dense(sae.config.features) if isinstance(codes, Codes) else codes), pre.new_zeros(())


def trained_subsets(
    config: SAEConfig, index: Int[Tensor, "T J"], value: Float[Tensor, "T J"]
) -> list[Bool[Tensor, "T J"]]:
    """Which of a token's codes take part in each reconstruction that is trained beside the full one.

    Bool masks of the shape of `index` and `value` (`[T, J]`): Matryoshka prefixes, then the strongest few.
    """
    prefixes = [index < size for size in config.prefixes]
    return prefixes + [value >= value.topk(level, dim=1).values[:, -1:] for level in config.levels]


def sparsity_penalty(sae: SAE, pre: Float[Tensor, "T N"], codes: Float[Tensor, "T N"]) -> Float[Tensor, ""]:
    """The part of the penalty that needs codes only; the hard gate's frozen reconstruction is added by the caller."""
    sparsity = sae.config.sparsity
    if isinstance(sparsity, JumpReLU):
        l0 = step(pre, sae.threshold, sae.window()).sum(-1).mean()
        return sparsity.weight * (l0 / sparsity.l0 - 1) ** 2
    if isinstance(sparsity, Gated):
        return sparsity.weight * pre.relu().sum(-1).mean()
    if isinstance(sparsity, SoftGated):
        return sparsity.weight * codes.sum(-1).mean()
    return pre.new_zeros(())


def dead_codes(pre: Float[Tensor, "T N"], dead: Dead) -> Float[Tensor, "T N"]:
    """Codes `[T, N]` of the `k` strongest dead features of each token, zero elsewhere."""
    masked = pre.masked_fill(~dead.mask, -torch.inf)
    value, index = masked.topk(min(dead.k, int(dead.mask.sum())), dim=-1, sorted=False)
    return torch.zeros_like(pre).scatter(-1, index, value.relu())


def dense_loss(sae: SAE, matrices: Float[Tensor, "T K V"], dead: Dead | None = None) -> Loss:
    """The loss on `matrices` `[T, K, V]`; every term is differentiable by autograd. Any composition."""
    pre = sae.preactivations(matrices)
    codes, cut = training_codes(sae, pre)
    atoms = sae.atom_matrices()

    def error(mask: Tensor) -> Tensor:
        made = torch.einsum("tn,nkv->tkv", codes * mask, atoms)
        return (matrices - sae.bias - made).square().sum((1, 2)).mean()

    feature = torch.arange(sae.config.features, device=codes.device)
    masks = [*trained_subsets(sae.config, feature.expand_as(codes), codes.detach()), torch.ones_like(codes)]
    errors = torch.stack([error(mask) for mask in masks])
    penalty = sparsity_penalty(sae, pre, codes)
    if isinstance(sae.config.sparsity, Gated):
        frozen = torch.einsum("tn,nkv->tkv", pre.relu(), atoms.detach()) + sae.bias.detach()
        penalty = penalty + (matrices - frozen).square().sum((1, 2)).mean()
    aux = pre.new_zeros(())
    if dead is not None and dead.mask.any():
        residual = (matrices - sae.bias - torch.einsum("tn,nkv->tkv", codes, atoms)).detach()
        made = torch.einsum("tn,nkv->tkv", dead_codes(pre, dead), atoms)
        aux = dead.weight * (residual - made).square().sum((1, 2)).mean()
    return Loss(errors.mean(), errors[-1].detach(), penalty, aux, (codes.detach() > 0).sum(0), cut)
