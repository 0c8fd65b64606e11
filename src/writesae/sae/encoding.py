"""The encoder's two halves on the factored path: all pre-activations without a graph, then gradients of a few.

"Select densely, differentiate sparsely" (MATH.md section 4): gradients flow only through active (token, feature)
pairs, so the dense pre-activations are computed once, without a graph, and each active pair is differentiated on
the matrix of its token.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from writesae.recurrence.scan import PROJECTED, decay_matrix
from writesae.sae.batch import Batch, States, Writes
from writesae.sae.config import Bilinear
from writesae.sae.model import SAE
from writesae.sae.stack import Gradients, Stack
from writesae.sae.workspace import Workspace
from writesae.types import Float, Int


class Encoded(NamedTuple):
    """Pre-activations of a block; valid until the next block is encoded in the same workspace."""

    pre: Float[Tensor, "T N"]
    """`p` with the bias, `[T, N]`."""
    left: Float[Tensor, "T rN"] | None = None
    """Write targets, bilinear encoder: `k_t . v_ir`, `[T, r * N]` with the rank outermost."""
    right: Float[Tensor, "T rN"] | None = None
    """Write targets, bilinear encoder: `u_t . w_ir`, likewise."""


@torch.no_grad()
def encode_block(stack: Stack, batch: Batch, matrices: Float[Tensor, "T K V"] | None, work: Workspace) -> Encoded:
    """All pre-activations of a block, `[G T, N]`. `matrices` (`[G T, K, V]`), its own, are for dense forms."""
    config = stack.config
    if not isinstance(config.encoder, Bilinear):
        assert matrices is not None
        pre = work.take("pre", matrices, stack.count, len(matrices) // stack.count, config.features)
        stack.product(stack.apart(matrices.flatten(1)), stack.apart(stack.enc.flatten(1)).mT, pre)
        return Encoded(_add_bias(stack, pre.flatten(0, 1)))
    rank = config.encoder.rank
    v, w = (stack.apart(x).transpose(1, 2).flatten(1, 2) for x in stack.encoder_factors)  # [G, r N, d]
    if isinstance(batch, States) and not batch.scalar_decay:
        assert matrices is not None
        return Encoded(_add_bias(stack, _by_rank(_project(stack, matrices, v, w, work), rank)))
    left = _products(stack, "left", batch.key, v, work)
    right = _products(stack, "right", batch.update, w, work)
    if isinstance(batch, Writes):
        pre = torch.mul(left, right, out=work.take("pre", left, *left.shape))
        return Encoded(_add_bias(stack, _by_rank(pre, rank)), left, right)
    chunks, length = batch.key.shape[:2]
    kept, since = decay_matrix(batch.log_decay)
    drive = work.take("drive", left, chunks, length + 1, left.shape[1])
    drive[:, 0] = _project(stack, batch.initial, v, w, work)
    torch.mul(left.view(chunks, length, -1), right.view(chunks, length, -1), out=drive[:, 1:])
    mixing = batch.pick(torch.cat([since.unsqueeze(2), kept], 2))
    pre = work.take("pre", left, *mixing.shape[:2], config.features)
    torch.bmm(mixing, _by_rank(drive, rank), out=pre)
    return Encoded(_add_bias(stack, pre.flatten(0, 1)))


def preactivations(sae: SAE, batch: Batch, matrices: Float[Tensor, "T K V"]) -> Float[Tensor, "T N"]:
    """`p` `[T, N]` of every token of a block, with the bias, in memory of its own."""
    return encode_block(Stack([sae]), batch, matrices, Workspace()).pre


def _add_bias(stack: Stack, pre: Float[Tensor, "T N"]) -> Float[Tensor, "T N"]:
    stack.apart(pre).add_(stack.apart(stack.b_enc).unsqueeze(1))
    return pre


def _products(
    stack: Stack, name: str, rows: Float[Tensor, "*T d"], factors: Float[Tensor, "G rN d"], work: Workspace
) -> Float[Tensor, "GT rN"]:
    """`[G T, r N]` inner products of each dictionary's rows `[.., d]` with its factors `[G, r N, d]`."""
    flat = rows.reshape(len(factors), -1, rows.shape[-1])
    return stack.product(flat, factors.mT, work.take(name, flat, *flat.shape[:2], factors.shape[1])).flatten(0, 1)


def _project(
    stack: Stack,
    states: Float[Tensor, "n K V"],
    v: Float[Tensor, "G rN K"],
    w: Float[Tensor, "G rN V"],
    work: Workspace,
) -> Float[Tensor, "n rN"]:
    """`v_i^T S w_i`, `[G n, r N]`, of states `[G n, K, V]` and factors `[G, r N, d]`."""
    d_k, d_v = states.shape[1:]
    parts = []
    for some in torch.split(stack.apart(states), max(1, PROJECTED // (v[..., 0].numel() * d_v)), 1):
        together = some.transpose(1, 2).reshape(len(v), d_k, -1)
        seen = work.take("seen", states, len(v), v.shape[1], together.shape[2])
        stack.product(v, together, seen)
        parts.append(seen.view(*v.shape[:2], -1, d_v).mul_(w.unsqueeze(2)).sum(-1))
    return torch.cat(parts, 2).transpose(1, 2).flatten(0, 1)


def _by_rank(p: Tensor, rank: int) -> Tensor:
    return p if rank == 1 else p.reshape(*p.shape[:-1], rank, -1).sum(-2)


def gather(
    factors: Float[Tensor, "N r d"], index: Int[Tensor, "T J"], work: Workspace, name: str
) -> Float[Tensor, "T Jr d"]:
    """Factor rows of each token's features: `[N, r, d]` and `[T, J]` give `[T, J * r, d]`, in `work`'s memory."""
    rows = factors.flatten(1)
    out = work.take(name, factors, index.numel(), rows.shape[1])
    torch.index_select(rows, 0, index.flatten(), out=out)
    return out.view(index.shape[0], -1, factors.shape[-1])


def multiply(
    left: Float[Tensor, "T a b"], right: Float[Tensor, "T b c"], work: Workspace, name: str
) -> Float[Tensor, "T a c"]:
    """Batched product in `work`'s memory."""
    return torch.bmm(left, right, out=work.take(name, left, len(left), left.shape[1], right.shape[2]))


def add_rows(into: Float[Tensor, "N r d"], index: Int[Tensor, "T J"], rows: Float[Tensor, "T Jr d"]) -> None:
    """Add `[T, J * r, d]` rows to the factors `[N, r, d]` that `gather` read them from."""
    into.flatten(1).index_add_(0, index.flatten(), rows.reshape(index.numel(), -1))


class Seen(NamedTuple):
    """What the factors of a bilinear encoder see of each token's matrix, for some features."""

    by_left: Float[Tensor, "T Jr V"]
    """`X^T v_jr`, `[T, J r, V]`."""
    by_right: Float[Tensor, "T Jr K"]
    """`X w_jr`, `[T, J r, K]`."""


def encoder_sees(
    stack: Stack, matrices: Float[Tensor, "T K V"], index: Int[Tensor, "T J"], work: Workspace
) -> Seen | None:
    """The products that the encoder's gradients need of matrices `[T, K, V]` and features `[T, J]`; in `work`'s memory.

    None for a linear encoder, whose gradients need the matrices themselves.
    """
    if not isinstance(stack.config.encoder, Bilinear):
        return None
    v, w = stack.encoder_factors
    by_right = multiply(gather(w, index, work, "rows"), matrices.mT, work, "seen by right")
    return Seen(multiply(gather(v, index, work, "rows"), matrices, work, "seen by left"), by_right)


def encoder_gradients(
    stack: Stack,
    seen: Seen | Float[Tensor, "T K V"],
    index: Int[Tensor, "T J"],
    slope: Float[Tensor, "T J"],
    into: Gradients,
) -> None:
    """Accumulate the gradients of the encoder from `d loss / d p` of the active pairs (`index`, `slope` `[T, J]`).

    `seen` is what `encoder_sees` gave, and is overwritten, or the matrices `[T, K, V]` where it gave nothing.
    """
    into["b_enc"].index_add_(0, index.flatten(), slope.flatten())
    if isinstance(seen, Tensor):
        pairs = sparse_pairs(index, slope, stack.features)
        into["enc"].add_(torch.sparse.mm(pairs, seen.flatten(1)).view_as(stack.enc))
        return
    into_v, into_w = encoder_places(stack, into)
    rank = into_v.shape[1]
    weight = (slope if rank == 1 else slope.repeat_interleave(rank, 1)).unsqueeze(2)
    add_rows(into_v, index, seen.by_right.mul_(weight))
    add_rows(into_w, index, seen.by_left.mul_(weight))


def encoder_places(stack: Stack, into: Gradients) -> tuple[Tensor, Tensor]:
    """Where the gradients of a bilinear encoder's factors go."""
    return (into["v_dec"], into["w_dec"]) if stack.config.tied else (into["v_enc"], into["w_enc"])


def write_encoder_gradients(
    stack: Stack,
    batch: Writes,
    encoded: Encoded,
    index: Int[Tensor, "T J"],
    slope: Float[Tensor, "T J"],
    into: Gradients,
    work: Workspace,
) -> None:
    """The same for writes `k u^T` and a bilinear encoder: `dp/dv = (u . w) k`, `dp/dw = (k . v) u`, no matrix."""
    assert encoded.left is not None
    assert encoded.right is not None
    into["b_enc"].index_add_(0, index.flatten(), slope.flatten())
    into_v, into_w = encoder_places(stack, into)
    rank = into_v.shape[1]
    columns = stack.own(index).unsqueeze(2) + stack.config.features * torch.arange(rank, device=index.device)
    columns = columns.flatten(1)
    weight = slope.repeat_interleave(rank, 1)
    along_key = (encoded.right.gather(1, columns) * weight).unsqueeze(2)
    along_update = (encoded.left.gather(1, columns) * weight).unsqueeze(2)
    for place, scale, rows in ((into_v, along_key, batch.key), (into_w, along_update, batch.update)):
        flat = rows.unsqueeze(1)
        out = work.take("rows", flat, len(flat), scale.shape[1], flat.shape[2])
        add_rows(place, index, torch.mul(scale, flat, out=out))


def sparse_pairs(index: Int[Tensor, "T J"], value: Float[Tensor, "T J"], features: int) -> Float[Tensor, "N T"]:
    """The sparse matrix `[N, T]` of (feature, token) values."""
    token = torch.arange(index.shape[0], device=index.device).unsqueeze(1).expand_as(index)
    where = torch.stack([index.flatten(), token.flatten()])
    return torch.sparse_coo_tensor(where, value.flatten(), (features, index.shape[0]), check_invariants=False)
