"""How a dictionary starts: the scale of the data, the decoder bias at its mean, and atoms at random or from writes."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from writesae.errors import DataError
from writesae.sae.batch import Batch, rows
from writesae.sae.config import JumpReLU, SAEConfig
from writesae.sae.encoding import preactivations
from writesae.sae.model import SAE
from writesae.sae.sparse_loss import blocks
from writesae.sae.workspace import Workspace
from writesae.types import Site

SLICE_NUMBERS = 1 << 18
"""Numbers in the matrices that are summed at once."""


class Moments(NamedTuple):
    """What a sample of matrices says about their scale."""

    mean: Tensor
    """Mean matrix, `[K, V]`."""
    variance: float
    """Mean squared Frobenius distance from it."""


@torch.no_grad()
def moments(batches: list[Batch], site: Site) -> Moments:
    """Mean and variance of the modelled matrices of a head; raises DataError if they do not vary."""
    total = square = None
    work, tokens = Workspace(), 0
    for batch in batches:
        limit = max(1, SLICE_NUMBERS // (batch.key.shape[-1] * batch.update.shape[-1]))
        for _, _, matrices in batch.slices(limit, work):  # float32 within a slice, float64 across them
            flat = matrices.flatten()
            sums = matrices.sum(0).double(), flat.dot(flat).double()
            total, square = sums if total is None or square is None else (total + sums[0], square + sums[1])
            tokens += len(matrices)
    if total is None or square is None:
        raise DataError(f"{site}: there are no training matrices to sample: every sequence is padding")
    mean = total / tokens
    variance = float(square / tokens - mean.square().sum())
    if not variance > 0:
        raise DataError(
            f"{site}: {tokens} sampled training matrices have variance {variance}: there is nothing to learn. "
            "Does the head write at all?"
        )
    return Moments(mean.float(), variance)


@torch.no_grad()
def initial_sae(config: SAEConfig, sample: list[Batch], mean: Tensor, from_writes: bool, seed: int) -> SAE:
    """A dictionary at the start of training, for data of variance 1 and this mean.

    The decoder bias is the data's mean and the encoder bias removes it from the pre-activations. With `from_writes`
    each atom is a write of the sample, normalised (for rank `r`, `r` writes), and the encoder starts as the decoder.
    """
    generator = torch.Generator().manual_seed(seed)
    sae = SAE(config, generator).to(sample[0].key.device)
    if from_writes:
        _atoms_from_writes(sae, sample, generator)
    sae.bias.copy_(mean)
    sae.b_enc.copy_(-sae.preactivations(sae.bias))
    if isinstance(config.sparsity, JumpReLU):
        _place_thresholds(sae, config.sparsity, sample[0])
    if not config.tied:
        _fit_encoder_scale(sae, sample[0])
    return sae


def _fit_encoder_scale(sae: SAE, batch: Batch) -> None:
    """Scale the codes so that the first reconstruction is as good as one factor can make it.

    Atoms overlap, so codes that are plain inner products overshoot several-fold and the first steps would go into
    undoing that.
    """
    product = square = 0.0
    for part in blocks(sae, rows(batch, 0, max(1, 4096 // batch.length))):
        matrices = part.matrices()
        made = sae.decode(sae.codes(preactivations(sae, part, matrices))) - sae.bias
        product += float((made * (matrices - sae.bias)).sum())
        square += float(made.square().sum())
    if product <= 0:
        return
    factor = product / square
    (sae.v_enc if hasattr(sae, "v_enc") else sae.enc).mul_(factor)
    sae.b_enc.mul_(factor)
    if isinstance(sae.config.sparsity, JumpReLU):
        sae.threshold.mul_(factor)
        sae.width = None if sae.width is None else sae.width * factor


def _atoms_from_writes(sae: SAE, sample: list[Batch], generator: torch.Generator) -> None:
    key = torch.cat([b.key.flatten(0, -2) for b in sample])
    update = torch.cat([b.update.flatten(0, -2) for b in sample])
    usable = ((key.norm(dim=1) > 0) & (update.norm(dim=1) > 0)).nonzero().squeeze(1)
    if len(usable) == 0:
        raise DataError("atoms were to start from real writes, but every sampled write is zero")
    features = sae.config.features

    def pick(rank: int) -> tuple[Tensor, Tensor]:
        wanted = features * rank
        order = torch.randperm(len(usable), generator=generator)
        chosen = usable[order.repeat(-(-wanted // len(usable)))[:wanted].to(usable.device)]
        shape = (features, rank, -1)
        v = torch.nn.functional.normalize(key[chosen], dim=1).view(shape)
        return v, torch.nn.functional.normalize(update[chosen], dim=1).view(shape) / rank**0.5

    if hasattr(sae, "v_dec"):
        v, w = pick(sae.v_dec.shape[1])
        sae.v_dec.copy_(v)
        sae.w_dec.copy_(w)
    else:
        v, w = pick(1)
        sae.dec.copy_(torch.einsum("nrk,nrv->nkv", v, w))
    if hasattr(sae, "enc"):
        sae.enc.copy_(sae.atom_matrices())
    elif hasattr(sae, "v_enc"):
        same = hasattr(sae, "v_dec") and sae.v_enc.shape == sae.v_dec.shape
        v, w = (sae.v_dec, sae.w_dec) if same else pick(sae.v_enc.shape[1])
        sae.v_enc.copy_(v)
        sae.w_enc.copy_(w)


def _place_thresholds(sae: SAE, sparsity: JumpReLU, batch: Batch) -> None:
    """Start with about `l0` features a token, and a window in the units of what fires."""
    parts = blocks(sae, batch)
    pre = torch.cat([preactivations(sae, part, part.matrices()) for part in parts])
    wanted = max(1, min(pre.numel() - 1, round(sparsity.l0 * pre.shape[0])))
    cut = pre.flatten().kthvalue(pre.numel() - wanted).values.clamp_min(0)
    sae.threshold.fill_(float(cut))
    sae.width = sparsity.bandwidth * float(pre[pre > cut].mean())
