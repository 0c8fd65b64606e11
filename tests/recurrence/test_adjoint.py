"""The adjoint against autograd through the replay, finite differences, and its own fast form."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from references import respond_reference
from writesae.recurrence import Stream, adjoint_products, adjoint_reference, replay_reference

Draw = Callable[..., Stream]


def loss_weights() -> Tensor:
    return torch.randn(2, 11, 3, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(5))


def loss(outputs: Tensor) -> Tensor:
    """Something that is not linear in the outputs."""
    return (outputs.tanh() * loss_weights()[:, -outputs.shape[1] :]).sum()


def output_gradient(stream: Stream) -> Tensor:
    outputs = replay_reference(stream).outputs.requires_grad_()
    return torch.autograd.grad(loss(outputs), outputs)[0]


def patched_loss(stream: Stream, position: int, edit: Tensor, at_token: bool) -> Tensor:
    """The loss after adding `edit` to the state after token `position`, by replaying from the edited state."""
    head = replay_reference(stream.map(lambda x: x[:, : position + 1]))
    first = head.outputs
    if at_token:
        own = torch.einsum("bhkv,bhk->bhv", edit, stream.query[:, position])
        first = torch.cat([first[:, :-1], first[:, -1:] + own[:, None]], 1)
    rest = replay_reference(stream.map(lambda x: x[:, position + 1 :]), head.final + edit).outputs
    return loss(torch.cat([first, rest], 1))


@pytest.mark.parametrize("at_token", [False, True])
@pytest.mark.parametrize("position", [0, 4, 9])
def test_reference_equals_autograd(stream: Stream, position: int, at_token: bool) -> None:
    edit = torch.zeros(2, 3, 5, 7, dtype=torch.float64, requires_grad=True)
    (expected,) = torch.autograd.grad(patched_loss(stream, position, edit, at_token), edit)
    got = adjoint_reference(stream, output_gradient(stream), at_token)[:, position]
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("at_token", [False, True])
def test_reference_equals_finite_differences(stream: Stream, at_token: bool) -> None:
    step = 1e-5 * torch.randn(2, 3, 5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(6))
    measured = (patched_loss(stream, 3, step, at_token) - patched_loss(stream, 3, -step, at_token)) / 2
    predicted = (adjoint_reference(stream, output_gradient(stream), at_token)[:, 3] * step).sum()
    torch.testing.assert_close(predicted, measured, rtol=1e-6, atol=0)


def test_it_is_the_transpose_of_the_response(stream: Stream) -> None:
    """`<g, response(D)> = <G_0, D>` exactly, for any D: the two files state one operator and its adjoint."""
    edit = torch.randn(2, 3, 5, 7, dtype=torch.float64)
    forward = (respond_reference(stream, edit, at_token=True) * loss_weights()).sum()
    backward = (adjoint_reference(stream, loss_weights(), at_token=True)[:, 0] * edit).sum()
    torch.testing.assert_close(forward, backward)


@pytest.mark.parametrize("at_token", [False, True])
@pytest.mark.parametrize("end", ["the text ends", "the text goes on"])
def test_products_equal_contracting_the_reference(stream: Stream, at_token: bool, end: str) -> None:
    g = torch.Generator().manual_seed(7)
    v, w = (torch.randn(13, d, dtype=torch.float64, generator=g) for d in (5, 7))
    final = torch.randn(2, 3, 5, 7, dtype=torch.float64, generator=g) if end == "the text goes on" else None
    whole = adjoint_reference(stream, loss_weights(), at_token, final)
    for head in range(3):
        one = None if final is None else final[:, [head]]
        fast = adjoint_products(stream.heads(head), loss_weights()[:, :, [head]], v, w, at_token, one)
        torch.testing.assert_close(fast, torch.einsum("nk,btkv,nv->btn", v, whole[:, :, head], w))


def test_products_take_one_head(draw: Draw) -> None:
    with pytest.raises(ValueError, match="one head at a time, not 3"):
        adjoint_products(draw("scalar"), loss_weights(), torch.zeros(2, 5), torch.zeros(2, 7), at_token=True)
