"""Native runs that are shared: made once, and the same to the bit."""

import pytest
import torch

from random_hosts import some_tokens, tiny_host
from writesae.causal import runs
from writesae.causal.runs import run_natively, shared_runs


def test_the_same_passages_are_run_once() -> None:
    host, tokens = tiny_host("qwen3_5"), some_tokens(rows=3, time=11)
    alone = run_natively(host, tokens, 0)
    assert run_natively(host, tokens, 0) is not alone  # nothing is shared unasked
    with shared_runs():
        first = run_natively(host, tokens, 0)
        assert run_natively(host, tokens.clone(), 0) is first
        with shared_runs():
            assert run_natively(host, tokens, 0) is first
        assert run_natively(host, tokens, 0) is first
        others = run_natively(host, tokens[:2], 0), run_natively(host, tokens, 1), run_natively(host, tokens + 1, 0)
        assert all(other is not first for other in others)
        assert run_natively(tiny_host("qwen3_next"), tokens, 0).host is not host
    assert run_natively(host, tokens, 0) is not first
    assert torch.equal(first.left, alone.left)
    places = torch.tensor([2, 0]), torch.tensor([7, 3])
    assert torch.equal(first.states(0, *places), alone.states(0, *places))


def test_only_the_newest_runs_within_the_budget_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    host, tokens = tiny_host("qwen3_5"), some_tokens(rows=3, time=11)
    size = runs._bytes(run_natively(host, tokens[:1], 0))
    monkeypatch.setattr(runs, "BUDGET", 2.5 * size / 2**30)
    with shared_runs():
        first, second, third = (run_natively(host, tokens[i : i + 1], 0) for i in range(3))
        assert run_natively(host, tokens[2:], 0) is third
        assert run_natively(host, tokens[1:2], 0) is second
        assert run_natively(host, tokens[:1], 0) is not first
