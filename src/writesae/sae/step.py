"""One call for a training step of any dictionary, or of several: the loss, with every gradient in place."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from writesae.sae.batch import Batch, joined
from writesae.sae.config import BatchTopK, TopK
from writesae.sae.loss import Dead, Loss, dense_loss
from writesae.sae.model import SAE
from writesae.sae.scan_loss import scan_loss, scans
from writesae.sae.sparse_loss import sparse_loss, stacked_loss
from writesae.sae.stack import Stack
from writesae.sae.workspace import Workspace


def loss_and_gradients(
    sae: SAE,
    batch: Batch,
    dead: Dead | None = None,
    k: int | None = None,
    work: Workspace | None = None,
    half: bool = False,
) -> Loss:
    """The loss of a batch by the fastest exact form; `p.grad` of every parameter is replaced.

    `k` replaces that of TopK and BatchTopK while a schedule lowers it; `work` keeps memory between calls;
    `half` picks the features of TopK and BatchTopK by products of bfloat16 factors.
    """
    if isinstance(sae.config.sparsity, TopK | BatchTopK):
        loss, gradients = sparse_loss(sae, batch, dead, k, work, half)
        for name, parameter in sae.named_parameters():
            parameter.grad = gradients[name]
        return loss
    for parameter in sae.parameters():
        parameter.grad = None
    loss = scan_loss(sae, batch, dead) if scans(sae, batch) else dense_loss(sae, batch.matrices(), dead)
    torch.autograd.backward(loss.total)
    return Loss(*(x.detach() for x in loss))


def losses_and_gradients(
    saes: Sequence[SAE],
    batches: Sequence[Batch],
    dead: Sequence[Dead] | None = None,
    k: int | None = None,
    work: Workspace | None = None,
    half: bool = False,
) -> list[Loss]:
    """`loss_and_gradients` of several dictionaries by one set of products (TopK and BatchTopK only), or of one.

    All have one composition, batches of one shape, and the same `k` and weight of the dead features; raises
    InputError where the dictionaries differ.
    """
    if len(saes) == 1:
        return [loss_and_gradients(saes[0], batches[0], None if dead is None else dead[0], k, work, half)]
    every = None if dead is None else dead[0]._replace(mask=torch.stack([one.mask for one in dead]))
    loss, gradients = stacked_loss(Stack(saes, half), joined(batches), every, k, work)
    for sae, own in zip(saes, gradients, strict=True):
        for name, parameter in sae.named_parameters():
            parameter.grad = own[name]
    return [Loss(*(x[g] for x in loss)) for g in range(len(saes))]
