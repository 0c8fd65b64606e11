"""States of a factored write stream, against the recurrence as written."""

import pytest
import torch

from writesae.recurrence import Stream, delta_values_reference
from writesae.recurrence.written import (
    Written,
    native_update,
    rebuild_states,
    states_before,
    states_reference,
)


def make(decays: int, time: int = 13, seed: int = 0) -> Written:
    g = torch.Generator().manual_seed(seed)
    key = torch.randn(3, time, 5, generator=g, dtype=torch.float64)
    update = torch.randn(3, time, 7, generator=g, dtype=torch.float64)
    return Written(key, update, -torch.rand(3, time, decays, generator=g, dtype=torch.float64))


@pytest.mark.parametrize("decays", [1, 5])
def test_rebuilt_states_follow_the_recurrence(decays: int) -> None:
    written = make(decays)
    initial = torch.randn(3, 5, 7, dtype=torch.float64)
    torch.testing.assert_close(rebuild_states(written), states_reference(written))
    torch.testing.assert_close(rebuild_states(written, initial), states_reference(written, initial))


@pytest.mark.parametrize("decays", [1, 5])
@pytest.mark.parametrize("chunk", [1, 4, 13, 17])
def test_chunk_starts_are_the_states_before_each_chunk(decays: int, chunk: int) -> None:
    written = make(decays)
    initial = torch.randn(3, 5, 7, dtype=torch.float64)
    before = torch.cat([initial[:, None], states_reference(written, initial)[:, :-1]], 1)
    torch.testing.assert_close(states_before(written, range(0, 13, chunk), initial), before[:, ::chunk])


@pytest.mark.parametrize("decays", [1, 5])
def test_native_values_are_recovered(decays: int) -> None:
    written = make(decays)
    gate = torch.rand(3, 13, 1, dtype=torch.float64)
    read = written.key if decays == 1 else written.log_decay.exp() * written.key
    stream = Stream(
        query=written.key.unsqueeze(2),
        key=written.key.unsqueeze(2),
        value=written.update.unsqueeze(2),
        log_decay=written.log_decay.unsqueeze(2),
        erase_read=read.unsqueeze(2),
        erase_gate=gate.unsqueeze(2),
    )
    delta = delta_values_reference(stream).squeeze(2)
    torch.testing.assert_close(native_update(Written(written.key, delta, written.log_decay, gate)), written.update)
    assert native_update(Written(written.key, delta, written.log_decay)) is delta
