"""Edits by response against replaying from an edited state."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from references import respond_reference
from writesae.recurrence import Stream, replay_reference, respond

Draw = Callable[..., Stream]


def edit() -> Tensor:
    return torch.randn(2, 3, 5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_reference_equals_editing_the_state_and_continuing(stream: Stream) -> None:
    """After the first token, the edited run minus the native one is the response: MATH.md section 5."""
    state = replay_reference(stream.map(lambda x: x[:, :1])).final
    rest = stream.map(lambda x: x[:, 1:])
    difference = replay_reference(rest, state + edit()).outputs - replay_reference(rest, state).outputs
    response = respond_reference(stream, edit(), at_token=False)
    torch.testing.assert_close(response[:, 1:], difference)
    assert response[:, 0].abs().max() == 0


def test_at_token_also_changes_the_token_s_own_read(stream: Stream) -> None:
    after = respond_reference(stream, edit(), at_token=False)
    at = respond_reference(stream, edit(), at_token=True)
    assert torch.equal(at[:, 1:], after[:, 1:])
    torch.testing.assert_close(at[:, 0], torch.einsum("bhkv,bhk->bhv", edit(), stream.query[:, 0]))


@pytest.mark.parametrize("at_token", [False, True])
def test_rank_one_form_equals_reference_in_value_and_gradient(stream: Stream, at_token: bool) -> None:
    g = torch.Generator().manual_seed(2)
    key = torch.randn(2, 4, 3, 5, dtype=torch.float64, generator=g, requires_grad=True)
    value = torch.randn(2, 4, 3, 7, dtype=torch.float64, generator=g, requires_grad=True)
    fast = respond(stream, key, value, at_token)
    dense = [respond_reference(stream, key[:, c, :, :, None] * value[:, c, :, None], at_token) for c in range(4)]
    slow = torch.stack(dense, 1)
    torch.testing.assert_close(fast, slow)
    probe = torch.randn(fast.shape, dtype=torch.float64, generator=g)
    ours = torch.autograd.grad((fast * probe).sum(), (key, value))
    theirs = torch.autograd.grad((slow * probe).sum(), (key, value))
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other)


def test_responses_add(draw: Draw) -> None:
    stream, a, b = draw("two-sided"), edit(), edit().flip(0)
    both = respond_reference(stream, a + b, at_token=True)
    apart = respond_reference(stream, a, at_token=True) + respond_reference(stream, b, at_token=True)
    torch.testing.assert_close(both, apart)
