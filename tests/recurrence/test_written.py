"""States of a factored write stream, against the recurrence as written."""

import pytest
import torch

from references import delta_values_reference, states_reference
from writesae.recurrence import Stream, branch, delta_values
from writesae.recurrence.scan import project, scan
from writesae.recurrence.written import (
    Written,
    native_update,
    rebuild_states,
    states_before,
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


def relative(found: torch.Tensor, want: torch.Tensor) -> float:
    return float((found.double() - want).abs().max() / want.abs().max())


@pytest.mark.parametrize("decays", [1, 5])
@pytest.mark.parametrize("strength", [0.7, 30.0, torch.inf])
def test_long_sums_of_log_decays_keep_float32_digits(decays: int, strength: float) -> None:
    """Decays are differences of sums of logs, which grow with the tokens before; infinite ones are decays of 0."""
    g = torch.Generator().manual_seed(0)
    time = 4096
    key = torch.nn.functional.normalize(torch.randn(1, time, 5, generator=g), dim=-1)
    update, gate = torch.randn(1, time, 7, generator=g), 0.3 * torch.rand(1, time, 1, generator=g)
    decay = -torch.rand(1, time, decays, generator=g)
    decay = torch.where(decay < -0.7, decay * strength, 0.01 * decay)
    written = Written(key, update, decay, gate)
    exact = Written(*(x.double() for x in (key, update, decay, gate)))
    states = states_reference(exact)
    assert relative(states_before(written, [time - 1])[:, 0], states[:, -2]) < 2e-6
    w, v = torch.randn(3, 7, generator=g), torch.randn(3, 5, generator=g)
    if decays == 1:
        far = slice(time // 2, time // 2 + 512)
        part, start = written.tokens(far.start, far.stop), project(states[:, far.start - 1].float(), v, w)
        found = scan(part.key, part.update, part.log_decay, start, v, w)
        want = torch.einsum("nk,btkv,nv->btn", v.double(), states[:, far], w.double())
        assert relative(found, want) < 2e-6
    native = native_update(exact)
    assert relative(native_update(written), native) < 2e-6
    read = key if decays == 1 else decay.exp() * key
    k, value, log, f, e = (x.unsqueeze(2) for x in (key, native.float(), decay, read, gate))
    stream = Stream(k, k, value, log, erase_read=f, erase_gate=e)
    assert relative(delta_values(stream)[0].squeeze(2), exact.update) < 1e-5
    some = stream.map(lambda x: x[:, :512])
    outputs = branch(some, torch.zeros(1, 1, 5, 7), 1).squeeze(2)
    assert relative(outputs, torch.einsum("btkv,btk->btv", states[:, :512], key[:, :512].double())) < 1e-5
