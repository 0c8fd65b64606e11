"""Native runs that are shared are made once, the same to the bit; two threads may run one host."""

import warnings
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from typing import cast

import pytest
import torch

from random_hosts import host_parameter, some_tokens, tiny_host
from writesae.causal import runs
from writesae.causal.actions import AddMatrix, Edit
from writesae.causal.gradients import output_gradients
from writesae.causal.passages import edited_logits
from writesae.causal.runs import run_natively, shared_runs
from writesae.causal.schedule import At
from writesae.causal.targets import Logit
from writesae.edits.generation import generate
from writesae.hosts.fork import Rows
from writesae.hosts.output import record_outputs
from writesae.types import Site


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


@pytest.mark.parametrize("name", [host_parameter(name) for name in ("qwen3_5", "rwkv7_hf", "fla_gla")])
def test_two_threads_on_one_host(name: str) -> None:
    """Forked rows skip layers, native runs record what passes, and edits change it: none may see what another thread
    runs, nor does a thread that runs the bare model."""
    host, tokens = tiny_host(name), some_tokens(rows=3, time=11)
    layer = list(host.layers)[-1]
    place, start = torch.tensor([0, 2, 1]), torch.tensor([4, 7, 2])

    def forked() -> torch.Tensor:
        run = run_natively(host, tokens, layer)
        found = host.layers[layer]
        return Rows(run, place, start, 2, 2).logits(torch.zeros(3, 2, 2, found.heads, found.d_v))

    def chosen() -> torch.Tensor:
        return host.logits(tokens, keep=torch.tensor([3, 9]))

    def priced() -> torch.Tensor:
        return output_gradients(host, tokens, Logit((5,)), [layer]).grads[layer]

    def outputs() -> torch.Tensor:
        return record_outputs(host, tokens, [layer])[layer].projected

    def plain() -> torch.Tensor:
        return host.logits(tokens)

    def edited() -> torch.Tensor:
        found = host.layers[layer]
        edit = Edit(Site(layer, 1), AddMatrix(torch.ones(found.d_k, found.d_v)), At((3,)))
        return next(edited_logits(host, tokens, [edit], 0))[1]

    def generated() -> torch.Tensor:
        return generate(host, tokens.tolist(), new_tokens=3).logits

    def bare() -> torch.Tensor:
        with torch.no_grad(), warnings.catch_warnings():
            return cast(torch.Tensor, host.model(input_ids=tokens, use_cache=False).logits)

    jobs = [forked, chosen, priced, outputs, plain, edited, generated, outputs, forked]
    jobs += [bare] if find_spec("fla") is None else []  # with it no bare model runs on a CPU
    alone = [job() for job in jobs]
    with ThreadPoolExecutor(len(jobs)) as pool:
        for _ in range(7):
            for job, expected in zip([pool.submit(job) for job in jobs], alone, strict=True):
                torch.testing.assert_close(job.result(), expected)
    assert not any("forward" in vars(block) for block in host.blocks)
