"""Replay: the used form equals the obvious one, and the obvious one equals the recurrence by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from writesae.recurrence import Stream, replay, replay_reference


def test_one_token_by_hand() -> None:
    def row(*numbers: float) -> torch.Tensor:
        return torch.tensor(numbers, dtype=torch.float64)[None, None, None]

    stream = Stream(
        query=row(1, 2),
        key=row(1, 0),
        value=row(5, 7, 11),
        log_decay=row(0.5, 0.25).log(),
        erase_read=row(0, 1),
        erase_write=row(1, 3),
    )
    before = torch.tensor([[1.0, 2, 3], [4, 8, 12]], dtype=torch.float64)[None, None]
    # diag(.5, .25) S - (1, 3)^T (row 1 of S) + (1, 0)^T (5, 7, 11)
    after = torch.tensor([[0.5 - 4 + 5, 1 - 8 + 7, 1.5 - 12 + 11], [1 - 12, 2 - 24, 3 - 36]], dtype=torch.float64)
    for run in (replay_reference(stream, before), replay(stream, before)):
        torch.testing.assert_close(run.final[0, 0], after)
        torch.testing.assert_close(run.outputs[0, 0, 0], after[0] + 2 * after[1])


@pytest.mark.parametrize("start", ["empty", "given"])
def test_used_form_equals_reference(stream: Stream, start: str) -> None:
    initial = None if start == "empty" else torch.randn(2, 3, 5, 7, dtype=torch.float64)
    slow, fast = replay_reference(stream, initial), replay(stream, initial)
    torch.testing.assert_close(fast.outputs, slow.outputs)
    torch.testing.assert_close(fast.final, slow.final)


def test_kept_states_come_in_the_order_asked_for(stream: Stream) -> None:
    rows, tokens = torch.tensor([1, 0, 1, 0, 0]), torch.tensor([10, 3, 0, 3, 10])
    kept = replay(stream, keep=(rows, tokens)).states
    torch.testing.assert_close(kept, replay_reference(stream).states[rows, tokens])


def test_continuation_equals_one_run(stream: Stream) -> None:
    whole = replay(stream)
    first = replay(stream.map(lambda x: x[:, :4]))
    second = replay(stream.map(lambda x: x[:, 4:]), first.final)
    torch.testing.assert_close(torch.cat([first.outputs, second.outputs], 1), whole.outputs)
    torch.testing.assert_close(second.final, whole.final)


def test_replay_leaves_its_initial_state_alone(draw: Callable[..., Stream]) -> None:
    initial = torch.randn(2, 3, 5, 7, dtype=torch.float64)
    before = initial.clone()
    replay(draw("scalar"), initial)
    assert torch.equal(initial, before)


def test_heads_and_maps_take_the_same_part_of_everything(stream: Stream) -> None:
    picked = replay(stream.heads([2, 0])).final
    torch.testing.assert_close(picked, replay(stream).final[:, [2, 0]])


def test_reference_is_differentiable(stream: Stream) -> None:
    initial = torch.randn(2, 3, 5, 7, dtype=torch.float64, requires_grad=True)
    value = stream.value[:1, :3].clone().requires_grad_()
    short = stream.map(lambda x: x[:1, :3])

    def run(values: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
        given = Stream(
            short.query, short.key, values, short.log_decay, short.erase_read, short.erase_gate, short.erase_write
        )
        return replay_reference(given, state[:1]).outputs

    assert torch.autograd.gradcheck(run, (value, initial), fast_mode=True)


def test_an_erase_has_one_reading_and_one_direction(draw: Callable[..., Stream]) -> None:
    stream = draw("scalar")
    with pytest.raises(ValueError, match="exactly one"):
        Stream(stream.query, stream.key, stream.value, stream.log_decay, erase_read=stream.key)
    with pytest.raises(ValueError, match="exactly one"):
        Stream(stream.query, stream.key, stream.value, stream.log_decay, erase_gate=stream.erase_gate)
