"""The loss and its gradients for TopK and BatchTopK, written out by hand on active (token, feature) pairs.

With the residual `E_t = X_t - M - sum_j a_tj v_j w_j^T` of a token, the gradients of `||E_t||^2` are

    d/da_tj = -2 v_j^T E_t w_j     d/dv_j = -2 a_tj E_t w_j     d/dw_j = -2 a_tj E_t^T v_j     d/dM = -2 E_t

and a code's gradient goes to its pre-activation where it is positive (`encoding.encoder_gradients`). Matrices are
rebuilt a slice at a time and never kept; writes `k u^T` are never formed at all (`write_loss`). Equal to
`loss.dense_loss` in value and gradient.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import pad

from writesae.sae.batch import Batch, States, Writes, rows
from writesae.sae.codes import Codes
from writesae.sae.config import BatchTopK, Bilinear, Factored, TopK
from writesae.sae.encoding import (
    Encoded,
    add_rows,
    encode_block,
    encoder_gradients,
    encoder_sees,
    gather,
    multiply,
    sparse_pairs,
    write_encoder_gradients,
)
from writesae.sae.loss import Dead, Loss, trained_subsets
from writesae.sae.model import SAE
from writesae.sae.sparsity import batch_cut, pack, top_entries
from writesae.sae.stack import Gradients, Stack
from writesae.sae.workspace import Workspace
from writesae.sae.write_loss import BiasTerms, inner_each, write_decoder_step
from writesae.types import Float, Int

BLOCK_NUMBERS = 1 << 21
"""Numbers in a block's largest tensor: small enough for the shared cache, large enough for its matrix products."""


SLICE_NUMBERS = 1 << 19
"""Numbers in the matrices that are differentiated at once: read five times, they should stay in a core's cache."""


def blocks(sae: SAE | Stack, batch: Batch, dense: bool = True) -> list[Batch]:
    """The batch cut into groups of whole chunks that fit the cache, their matrices included where they are `dense`.

    With a stack, each group holds the same chunks of every dictionary's batch.
    """
    count = sae.count if isinstance(sae, Stack) else 1
    per_token = max(sae.config.features, sae.config.d_k * sae.config.d_v if dense else 1)
    limit = BLOCK_NUMBERS if batch.key.device.type == "cpu" else 64 * BLOCK_NUMBERS
    size = max(1, limit // (per_token * batch.length * count))
    return [rows(batch, start, start + size, count) for start in range(0, batch.key.shape[0] // count, size)]


class _Step:
    """What the blocks of one step share."""

    def __init__(self, stack: Stack, tokens: int, dead: Dead | None, work: Workspace) -> None:
        self.stack, self.tokens = stack, tokens
        self.dead = dead if dead is not None and bool(dead.mask.any()) else None
        self.count = 1 + len(stack.config.prefixes) + len(stack.config.levels)
        self.weight = 1 / (tokens * self.count)
        self.into: Gradients = {
            name: work.take(f"gradient of {name}", p, *p.shape).zero_() for name, p in stack.parameters.items()
        }
        self.error, self.full, self.aux = (stack.bias.new_zeros(stack.count) for _ in range(3))
        self.fired = torch.zeros(stack.features, dtype=torch.int64, device=stack.bias.device)

    def each(self, codes: Codes, add: Callable[[Tensor], tuple[Tensor, Tensor]]) -> Tensor:
        """Let `add` the share of every reconstruction that is trained, the full one last; the derivative by each code.

        `add` gets the codes that take part, 0 elsewhere, and gives the error and its derivative by them.
        """
        slope = torch.zeros_like(codes.value)
        for mask in [*trained_subsets(self.stack.config, self.stack.own(codes.index), codes.value), None]:
            error, grad = add(codes.value if mask is None else codes.value * mask)
            self.error += error
            slope += grad if mask is None else grad * mask
        self.full += error * self.count
        return slope


def sparse_loss(
    sae: SAE,
    batch: Batch,
    dead: Dead | None = None,
    k: int | None = None,
    work: Workspace | None = None,
    half: bool = False,
) -> tuple[Loss, Gradients]:
    """The loss of a batch and the gradient of every parameter, by name. TopK and BatchTopK only.

    `k` replaces the sparsity's own while a schedule lowers it; `work` keeps memory from one call to the next:
    gradients returned before are overwritten by a call with the same one. `half` rounds the factors of the products
    that pick features to bfloat16.
    """
    together = None if dead is None else dead._replace(mask=dead.mask.unsqueeze(0))
    loss, gradients = stacked_loss(Stack([sae], half), batch, together, k, work)
    return Loss(*(x[0] for x in loss)), gradients[0]


@torch.no_grad()
def stacked_loss(
    stack: Stack, batch: Batch, dead: Dead | None = None, k: int | None = None, work: Workspace | None = None
) -> tuple[Loss, list[Gradients]]:
    """`sparse_loss` of several dictionaries at once: every term of the loss is `[G]`, `fired` is `[G, N]`.

    `batch` holds the chunks of the first dictionary, then those of the second; `dead.mask` is `[G, N]`.
    """
    config, sparsity = stack.config, stack.config.sparsity
    assert isinstance(sparsity, TopK | BatchTopK)
    k = sparsity.k if k is None else k
    work = Workspace() if work is None else work
    bilinear = isinstance(config.encoder, Bilinear)
    products = isinstance(batch, Writes) and bilinear and isinstance(config.decoder, Factored)
    dense = not bilinear or (isinstance(batch, States) and not batch.scalar_decay)
    step, parts = _Step(stack, batch.tokens // stack.count, dead, work), blocks(stack, batch, dense)
    cut = stack.bias.new_zeros(stack.count)
    if isinstance(sparsity, BatchTopK):
        every = [encode_block(stack, part, part.matrices(work) if dense else None, work).pre.clone() for part in parts]
        cut = torch.stack([batch_cut(own, k) for own in torch.cat([stack.apart(pre) for pre in every], 1)])
        del every
    bias = BiasTerms.of(stack) if products else None
    for part in parts:
        matrices = part.matrices(work) if dense else None
        encoded = encode_block(stack, part, matrices, work)
        if isinstance(sparsity, TopK):
            codes = top_entries(encoded.pre, k)
        else:
            enough = (stack.apart(encoded.pre) >= cut[:, None, None]).flatten(0, 1)
            codes = pack(encoded.pre * (enough & (encoded.pre > 0)))
        codes = stack.numbered(codes)
        step.fired += torch.bincount(codes.index[codes.value > 0], minlength=stack.features)
        if bias is not None and isinstance(part, Writes):
            _write_block(step, part, encoded, codes, bias, work)
            continue
        extra = None if step.dead is None else _dead_codes(stack, encoded.pre, step.dead)
        cached = stack.count == 1 and stack.bias.device.type == "cpu"
        limit = max(1, SLICE_NUMBERS // stack.bias[0].numel()) if cached else part.tokens
        whole = ((0, part.tokens, matrices),) if matrices is not None else part.slices(limit, work)
        for first, stop, some in whole:
            _matrix_slice(step, some, _rows(codes, first, stop), extra and _rows(extra, first, stop), work)
    if bias is not None:
        bias.add_gradients(stack, step.into)
    aux = step.aux if step.dead is None else step.aux * step.dead.mask.any(1)  # nothing dead, no term
    loss = Loss(step.error, step.full, torch.zeros_like(cut), aux, stack.apart(step.fired), cut)
    return loss, stack.split(step.into)


def _rows(codes: Codes, first: int, stop: int) -> Codes:
    return Codes(codes.index[first:stop], codes.value[first:stop])


def _matrix_slice(
    step: _Step, matrices: Float[Tensor, "T K V"], codes: Codes, extra: Codes | None, work: Workspace
) -> None:
    """Add the share of some tokens whose matrices are rebuilt, and overwrite these; `extra`: the dead features' codes.

    What the encoder needs of the matrices is taken first, so that one reconstruction can be subtracted in place.
    """
    stack, index, into = step.stack, codes.index, step.into
    every = codes if extra is None else Codes(*(torch.cat(both, 1) for both in zip(codes, extra, strict=True)))
    seen = encoder_sees(stack, matrices, every.index, work)
    config = stack.config
    in_place = seen is not None and not (config.prefixes or config.levels)
    residual = matrices if in_place else work.take("residual", matrices, *matrices.shape)

    def add(used: Tensor) -> tuple[Tensor, Tensor]:
        torch.sub(stack.apart(matrices), stack.bias.unsqueeze(1), out=stack.apart(residual))
        found = decoder_step(stack, residual, index, used, step.weight, into, work)
        into["bias"].sub_(stack.apart(residual).sum(1), alpha=2 * step.weight)
        return found

    slope = step.each(codes, add)
    if extra is not None and step.dead is not None:
        error, grad = decoder_step(stack, residual, *extra, step.dead.weight / step.tokens, into, work)
        step.aux += error
        slope = torch.cat([slope, grad], 1)
    encoder_gradients(stack, matrices if seen is None else seen, every.index, slope * (every.value > 0), into)


def _write_block(step: _Step, part: Writes, encoded: Encoded, codes: Codes, bias: BiasTerms, work: Workspace) -> None:
    """Add the share of a block of writes, of which no matrix is formed."""
    stack, (index, value), into = step.stack, codes, step.into

    def add(used: Tensor) -> tuple[Tensor, Tensor]:
        return write_decoder_step(stack, part, index, used, index.shape[1], step.weight, bias, into, work)

    slope = step.each(codes, add)
    write_encoder_gradients(stack, part, encoded, index, slope * (value > 0), into, work)
    if step.dead is not None:
        extra = _dead_codes(stack, encoded.pre, step.dead)
        both = Codes(torch.cat([extra.index, index], 1), torch.cat([extra.value, value], 1))
        weight, width = step.dead.weight / step.tokens, extra.index.shape[1]
        error, slope = write_decoder_step(stack, part, both.index, both.value, width, weight, bias, into, work)
        step.aux += error
        write_encoder_gradients(stack, part, encoded, extra.index, slope * (extra.value > 0), into, work)


def _dead_codes(stack: Stack, pre: Tensor, dead: Dead) -> Codes:
    """The strongest dead features of each token, with their numbers in the stack; missing ones have value 0."""
    found = []
    for own, mask in zip(stack.apart(pre), dead.mask, strict=True):
        where = mask.nonzero().squeeze(1)
        among = own.index_select(1, where)
        if len(where) == 0:
            found.append(Codes(where.new_zeros(len(own), 0), own.new_zeros(len(own), 0)))
            continue
        codes = top_entries(among, max(1, min(dead.k, int((among > 0).sum(1).max()))))
        found.append(Codes(where[codes.index], codes.value))
    width = max(codes.index.shape[1] for codes in found)
    padded = [[pad(x, (0, width - x.shape[1])) for x in codes] for codes in found]
    return stack.numbered(Codes(*(torch.cat(rows) for rows in zip(*padded, strict=True))))


def decoder_step(
    stack: Stack,
    residual: Float[Tensor, "T K V"],
    index: Int[Tensor, "T J"],
    value: Float[Tensor, "T J"],
    weight: float,
    into: Gradients,
    work: Workspace,
) -> tuple[Float[Tensor, " G"], Float[Tensor, "T J"]]:
    """Subtract the codes' reconstruction from `residual` `[T, K, V]` in place; accumulate decoder gradients.

    Returns `weight * sum_t ||residual||^2` of each dictionary, `[G]`, and its derivative by each code, `[T, J]`.
    """
    if isinstance(stack.config.decoder, Factored):
        rank = stack.v_dec.shape[1]
        left, right = gather(stack.v_dec, index, work, "rows"), gather(stack.w_dec, index, work, "other rows")
        repeated = value.repeat_interleave(rank, 1).unsqueeze(2) if rank > 1 else value.unsqueeze(2)
        scratch = torch.mul(left, repeated, out=work.take("scratch", left, *left.shape))
        residual.baddbmm_(scratch.mT, right, alpha=-1)
        seen_left = multiply(left, residual, work, "seen")  # v_j^T E, [T, J r, V]
        slope = torch.mul(seen_left, right, out=work.take("scratch", left, *seen_left.shape)).sum(-1)
        if rank > 1:
            slope = slope.view(*index.shape, rank).sum(-1)
        scaled = repeated * (-2 * weight)
        add_rows(into["w_dec"], index, seen_left.mul_(scaled))
        seen_right = multiply(right, residual.mT, work, "seen")  # E w_j, [T, J r, K]
        add_rows(into["v_dec"], index, seen_right.mul_(scaled))
    else:
        pairs = sparse_pairs(index, value, stack.features)
        flat = residual.flatten(1)
        flat.sub_(torch.sparse.mm(pairs.t(), stack.dec.flatten(1)))
        atoms = stack.dec.flatten(1)
        slope = torch.stack([(atoms.index_select(0, column) * flat).sum(1) for column in index.unbind(1)], 1)
        into["dec"].add_(torch.sparse.mm(pairs, flat).view_as(stack.dec), alpha=-2 * weight)
    return weight * inner_each(stack, residual, residual), slope.mul_(-2 * weight)
