"""Interception leaves no trace, sees only what it should, and changes only what it is told to."""

from __future__ import annotations

import copy
import sys
import threading
from functools import partial

import pytest
import torch
from torch import Tensor

from references import respond_reference
from writesae.errors import InputError
from writesae.hosts import Host, KernelCall, KernelResult, Tap
from writesae.hosts.caches import cache_argument, new_cache, read_state, write_state

SYMBOLS = ("torch_chunk_gated_delta_rule", "torch_recurrent_gated_delta_rule")


def tokens(seed: int = 0, batch: int = 2, time: int = 13) -> Tensor:
    return torch.randint(3, 101, (batch, time), generator=torch.Generator().manual_seed(seed))


def trace(host: Host) -> tuple[object, ...]:
    """Everything that a tap could leave behind: the kernel symbols and the mixers' hooks."""
    mixers = [mixer.module for mixer in host.mixers.values()]
    module = sys.modules[type(mixers[0]).__module__]
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks), len(m._forward_hooks_always_called)) for m in mixers]
    return (*(getattr(module, symbol) for symbol in SYMBOLS), hooks)


def test_leaving_restores_every_symbol_and_hook(tiny: Host) -> None:
    before = trace(tiny)
    with tiny.tap(Tap()), tiny.tap():
        assert trace(tiny)[:2] != before[:2]
    assert trace(tiny) == before


@pytest.mark.parametrize("where", ["in the body", "inside a kernel call"])
def test_an_exception_restores_them_too(tiny: Host, where: str) -> None:
    before, plain = trace(tiny), tiny.logits(tokens())

    def fail(call: KernelCall) -> None:
        if where == "inside a kernel call":
            raise ZeroDivisionError

    def body() -> None:
        with tiny.tap(Tap(before=fail)):
            tiny.logits(tokens())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        body()
    assert trace(tiny) == before
    assert torch.equal(tiny.logits(tokens()), plain)
    assert set(tiny.record(tokens(), [0, 1])) == {0, 1}


def test_recording_changes_no_bit_of_the_logits(tiny: Host) -> None:
    plain = tiny.logits(tokens())
    seen: list[int] = []

    def after(call: KernelCall, result: KernelResult) -> KernelResult:
        assert call.stream.key.shape == (2, 13, 6, 5)
        seen.append(call.layer)
        return result

    assert torch.equal(tiny.logits(tokens(), Tap(after=after)), plain)
    assert seen == [0, 1]


def test_record_stops_after_the_deepest_layer(tiny: Host) -> None:
    deepest: list[int] = []
    last = tiny.blocks[2].register_forward_hook(lambda *_: deepest.append(2))
    try:
        streams = tiny.record(tokens(), [1])
    finally:
        last.remove()
    assert list(streams) == [1]
    assert deepest == []


def test_record_refuses_a_layer_that_has_no_recurrence(tiny: Host) -> None:
    with pytest.raises(InputError, match=r"no recurrent layer 2; it has \[0, 1\]"):
        tiny.record(tokens(), [2])


def test_two_models_of_one_class_do_not_see_each_other(tiny: Host, other_tiny: Host) -> None:
    ours: list[int] = []
    theirs: list[int] = []
    with tiny.tap(Tap(before=lambda call: ours.append(call.layer))):
        other_tiny.logits(tokens())
        assert ours == []
        with other_tiny.tap(Tap(before=lambda call: theirs.append(call.layer))):
            tiny.logits(tokens())
            other_tiny.logits(tokens())
    assert (ours, theirs) == ([0, 1], [0, 1])


def test_two_threads_see_only_their_own_calls(tiny: Host) -> None:
    """Both threads run the same model with different tokens, many times, each with its own tap."""
    expected = {seed: tiny.record(tokens(seed), [0, 1]) for seed in (0, 1)}
    wrong: list[str] = []
    barrier = threading.Barrier(2)

    def work(seed: int) -> None:
        barrier.wait()
        for _ in range(5):
            calls: list[KernelCall] = []
            tiny.logits(tokens(seed), Tap(before=calls.append))
            if [call.layer for call in calls] != [0, 1]:
                wrong.append(f"thread {seed} saw layers {[call.layer for call in calls]}")
            elif not all(torch.equal(c.stream.value, expected[seed][c.layer].value) for c in calls):
                wrong.append(f"thread {seed} saw another thread's stream")

    before = trace(tiny)
    threads = [threading.Thread(target=work, args=(seed,)) for seed in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert trace(tiny) == before


def test_nested_taps_compose_outermost_first(tiny: Host) -> None:
    order: list[str] = []

    def adding(name: str, amount: float) -> Tap:
        def after(call: KernelCall, result: KernelResult) -> KernelResult:
            order.append(name)
            return result._replace(output=result.output + amount)

        return Tap(after=after)

    with tiny.tap(adding("outer", 0.25)):
        nested = tiny.logits(tokens(), adding("inner", 0.5))
    assert order == ["outer", "inner"] * 2
    torch.testing.assert_close(nested, tiny.logits(tokens(), adding("one", 0.75)))


def test_a_response_equals_editing_the_cache_and_continuing(tiny: Host) -> None:
    """MATH.md section 5 on a real model: logits after the edited token agree, earlier ones are the same bits."""
    text, cut, layer = tokens(), 6, 0
    edit = 0.3 * torch.randn(2, 6, 5, 7, generator=torch.Generator().manual_seed(3))
    cache = new_cache(tiny)
    with torch.no_grad(), tiny.tap():
        tiny.model(input_ids=text[:, : cut + 1], **cache_argument(tiny, cache))
        write_state(tiny, cache, layer, read_state(tiny, cache, layer) + edit)
        edited = tiny.model(input_ids=text[:, cut + 1 :], **cache_argument(tiny, cache)).logits

    def after(call: KernelCall, result: KernelResult) -> KernelResult:
        if call.layer != layer:
            return result
        response = respond_reference(call.stream.map(lambda x: x[:, cut:]), edit, at_token=False)
        changed = result.output.clone()
        changed[:, cut:] += response
        return result._replace(output=changed)

    plain, patched = tiny.logits(text), tiny.logits(text, Tap(after=after))
    assert torch.equal(patched[:, : cut + 1], plain[:, : cut + 1])
    assert (patched - plain).abs().max() > 0.1
    assert (patched[:, cut + 1 :] - edited).norm() / edited.norm() < 1e-5


def test_changing_the_final_state_acts_from_the_next_call_on(tiny: Host) -> None:
    text = tokens()

    def after(call: KernelCall, result: KernelResult) -> KernelResult:
        return result if result.final is None else result._replace(final=result.final + 0.5)

    runs = []
    for what in (None, Tap(after=after)):
        cache = new_cache(tiny)
        with torch.no_grad():
            with tiny.tap(what):
                first = tiny.model(input_ids=text[:, :7], **cache_argument(tiny, cache)).logits
            with tiny.tap():
                second = tiny.model(input_ids=text[:, 7:], **cache_argument(tiny, copy.deepcopy(cache))).logits
        runs.append((first, second))
    assert torch.equal(runs[0][0], runs[1][0])
    assert (runs[0][1] - runs[1][1]).abs().max() > 0.1


def test_gradients_flow_through_a_tapped_run(tiny: Host) -> None:
    bump = torch.zeros(2, 13, 6, 7, requires_grad=True)

    def after(call: KernelCall, result: KernelResult) -> KernelResult:
        return result._replace(output=result.output + bump) if call.layer == 1 else result

    with tiny.tap(Tap(after=after)):
        logits = tiny.model(input_ids=tokens(), use_cache=False).logits
    (gradient,) = torch.autograd.grad(logits[:, -1].sum(), bump)
    assert gradient.abs().max() > 0
    step = 2e-4 * torch.randn(bump.shape, generator=torch.Generator().manual_seed(4))
    moved = [tiny.logits(tokens(), Tap(after=partial(_bumped, by=by))) for by in (step, -step)]
    measured = (moved[0][:, -1].sum() - moved[1][:, -1].sum()).item() / 2
    assert measured == pytest.approx((gradient * step).sum().item(), rel=1e-2)


def _bumped(call: KernelCall, result: KernelResult, by: Tensor) -> KernelResult:
    return result._replace(output=result.output + by) if call.layer == 1 else result
