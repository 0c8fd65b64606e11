"""Rows that share a state, read without forming it, against replaying every row from its own copy of the state."""

from itertools import product

import pytest
import torch

from writesae.recurrence import Stream, branch, replay_reference

ROWS, COPIES, HEADS, D_K, D_V = 3, 2, 5, 11, 7


def some_stream(time: int, decay: str, erase: str) -> Stream:
    generator = torch.Generator().manual_seed(time)

    def draw(width: int) -> torch.Tensor:
        return torch.randn(ROWS * COPIES, time, HEADS, width, generator=generator, dtype=torch.float64)

    log_decay = -draw(1 if decay == "scalar" else D_K).abs()
    query, key, read, along = (draw(D_K) / D_K**0.5 for _ in range(4))
    stream = {"query": query, "key": key, "value": draw(D_V), "log_decay": log_decay}
    if erase == "key":
        stream |= {"erase_read": read, "erase_gate": draw(1).sigmoid()}
    elif erase == "own":
        stream |= {"erase_read": read, "erase_write": along}
    return Stream(**stream)


@pytest.mark.parametrize(
    ("decay", "erase", "time"), list(product(["scalar", "vector"], ["none", "key", "own"], [1, 2, 19]))
)
def test_equals_replay(decay: str, erase: str, time: int) -> None:
    stream = some_stream(time, decay, erase)
    states = torch.randn(ROWS, HEADS, D_K, D_V, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    slow = replay_reference(stream, states.repeat_interleave(COPIES, 0)).outputs
    torch.testing.assert_close(branch(stream, states, COPIES), slow, rtol=1e-9, atol=1e-9)
