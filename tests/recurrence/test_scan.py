"""Pre-activations without a state, against the states themselves and against the recurrence of `p`; all in float64."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from references import scan_reference, states_reference
from writesae.recurrence.scan import decay_matrix, project, scan
from writesae.recurrence.written import Written

BATCH, TIME, KEY, VALUE, FEATURES = 2, 23, 5, 7, 11


class Drawn(NamedTuple):
    key: Tensor
    update: Tensor
    log_decay: Tensor
    initial: Tensor
    v: Tensor
    w: Tensor


def draw(batch: int = BATCH, decay: float = 1.0, seed: int = 0) -> Drawn:
    g = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    key, update = normal(batch, TIME, KEY), normal(batch, TIME, VALUE)
    log_decay = -decay * normal(batch, TIME, 1).abs()
    return Drawn(key, update, log_decay, normal(batch, KEY, VALUE), normal(FEATURES, KEY), normal(FEATURES, VALUE))


def dense(x: Drawn) -> Tensor:
    """`v_i^T S_t w_i` of states formed one after another, `[B, T, N]`."""
    states = states_reference(Written(x.key, x.update, x.log_decay), x.initial)
    return torch.einsum("nk,btkv,nv->btn", x.v, states, x.w)


def in_chunks(x: Drawn, chunk: int) -> Tensor:
    """The scan, chunk by chunk, each handing its last pre-activations to the next."""
    p, parts = project(x.initial, x.v, x.w), []
    for begin in range(0, TIME, chunk):
        here = slice(begin, begin + chunk)
        parts.append(scan(x.key[:, here], x.update[:, here], x.log_decay[:, here], p, x.v, x.w))
        p = parts[-1][:, -1]
    return torch.cat(parts, 1)


@pytest.mark.parametrize("chunk", [1, 3, 7, 22, 23, 64])
def test_value_and_every_gradient_are_those_of_the_states(chunk: int) -> None:
    """23 tokens: of these lengths only 1 and 23 divide it."""
    fast, slow = (Drawn(*(t.clone().requires_grad_() for t in draw())) for _ in range(2))
    weight = torch.randn(BATCH, TIME, FEATURES, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found, expected = in_chunks(fast, chunk), dense(slow)
    torch.testing.assert_close(found, expected)
    got = torch.autograd.grad((found * weight).sum(), list(fast))
    want = torch.autograd.grad((expected * weight).sum(), list(slow))
    for name, a, b in zip(Drawn._fields, got, want, strict=True):
        torch.testing.assert_close(a, b, msg=f"gradient by {name} differs")


def test_the_scan_is_the_recurrence_of_its_own_values() -> None:
    x = draw()
    start = project(x.initial, x.v, x.w)
    arguments = (x.key, x.update, x.log_decay)
    expected = scan_reference(*arguments, start, x.v, x.w)
    torch.testing.assert_close(scan(*arguments, start, x.v, x.w), expected)
    torch.testing.assert_close(expected, dense(x))
    empty = scan_reference(*arguments, torch.zeros_like(start), x.v, x.w)
    torch.testing.assert_close(scan(*arguments, None, x.v, x.w), empty)


@pytest.mark.parametrize("decay", [0.0, 60.0])
def test_no_decay_and_total_decay_stay_finite(decay: float) -> None:
    """Sixty nats a token are 1e-600 over the chunk: nothing may be divided by that."""
    x = draw(decay=decay)
    torch.testing.assert_close(in_chunks(x, 23), dense(x))
    kept, since = decay_matrix(x.log_decay)
    assert kept.isfinite().all()
    assert (kept.triu(1) == 0).all()
    assert (kept.diagonal(dim1=1, dim2=2) == 1).all()
    assert ((kept <= 1) & (kept >= 0)).all()
    torch.testing.assert_close(since, x.log_decay.squeeze(-1).exp().cumprod(1))


def test_grouped_heads_share_their_keys() -> None:
    """Three heads of one group (Mamba-2) write along one key and forget alike; each has values of its own.

    Side by side as sequences they give what each gives alone, and as one wide value their sum.
    """
    heads = 3
    x = draw(batch=1)
    update = torch.randn(heads, TIME, VALUE, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    initial = torch.randn(heads, KEY, VALUE, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    key, decay = x.key.expand(heads, -1, -1), x.log_decay.expand(heads, -1, -1)
    together = scan(key, update, decay, project(initial, x.v, x.w), x.v, x.w)
    for head in range(heads):
        here = slice(head, head + 1)
        alone = Drawn(x.key, update[here], x.log_decay, initial[here], x.v, x.w)
        torch.testing.assert_close(together[here], dense(alone))
    wide = Drawn(
        x.key,
        update.permute(1, 0, 2).reshape(1, TIME, heads * VALUE),
        x.log_decay,
        initial.permute(1, 0, 2).reshape(1, KEY, heads * VALUE),
        x.v,
        x.w.repeat(1, heads),
    )
    torch.testing.assert_close(in_chunks(wide, 7)[0], together.sum(0))


def test_projections_are_the_bilinear_form() -> None:
    x = draw()
    torch.testing.assert_close(project(x.initial, x.v, x.w), torch.einsum("nk,bkv,nv->bn", x.v, x.initial, x.w))
