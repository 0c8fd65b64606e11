"""NaN or infinity in a run is found where it begins, named in one line, and nothing is made of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn

from random_hosts import some_tokens
from writesae.causal.gradients import output_gradients
from writesae.causal.runs import run_natively
from writesae.causal.targets import Logit
from writesae.edits.generation import generate
from writesae.errors import DataError
from writesae.hosts import Host
from writesae.hosts.caches import new_cache, run_cached
from writesae.hosts.fork import Rows
from writesae.hosts.output import record_outputs

ROW, TOKEN = 1, 7
TOKENS = some_tokens()


@contextmanager
def spoiled(module: nn.Module, value: float, channel: slice = slice(None)) -> Iterator[None]:
    """A module that puts out `value` at one token of the passages of a batch, or of that one passage alone."""

    def hook(_: nn.Module, inputs: object, output: Tensor) -> Tensor:
        output = output.clone()
        output[min(ROW, len(output) - 1), TOKEN, channel] = value
        return output

    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


WAYS: dict[str, Callable[[Host], object]] = {
    "logits": lambda host: host.logits(TOKENS, keep=1),
    "streams": lambda host: host.record(TOKENS, [1]),
    "a native run": lambda host: run_natively(host, TOKENS, 0),
    "gradients": lambda host: output_gradients(host, TOKENS, Logit((5,)), [0]),
    "outputs": lambda host: record_outputs(host, TOKENS, [1]),
    "a cached run": lambda host: run_cached_once(host),
    "a generation": lambda host: generate(host, TOKENS.tolist(), new_tokens=2),
}


def run_cached_once(host: Host) -> Tensor:
    with host.tap():
        return run_cached(host, TOKENS, new_cache(host), 0, keep=1)


@pytest.mark.parametrize("way", WAYS)
def test_every_run_names_layer_head_passage_and_token(tiny: Host, way: str) -> None:
    projection = tiny.mixers[0].module.get_submodule("in_proj_b")  # one number a head: how much it writes
    text = re.escape(str(TOKENS[ROW, :8].tolist()))
    where = rf"begins in head 4 of layer 0 \(its value\), at token {TOKEN} of the text that begins {text}: check "
    with spoiled(projection, torch.nan, slice(4, 5)), pytest.raises(DataError, match=where):
        WAYS[way](tiny)
    WAYS[way](tiny)  # nothing is left behind


def test_what_begins_between_the_recurrences_is_named_by_its_block(tiny: Host) -> None:
    embedding, last = tiny.model.get_input_embeddings(), tiny.blocks[2].get_submodule("mlp")
    with spoiled(embedding, torch.inf), pytest.raises(DataError, match=rf"in the token embedding, at token {TOKEN} of"):
        tiny.record(TOKENS, [0])
    with spoiled(last, torch.nan), pytest.raises(DataError, match=rf"begins in block 2, at token {TOKEN} of"):
        tiny.logits(TOKENS)
    with spoiled(last, torch.nan):
        tiny.logits(TOKENS, keep=1)  # what is kept does not depend on it
        with pytest.raises(DataError, match="begins in block 2"):
            run_natively(tiny, TOKENS, 0)  # here every token may be asked for
    with spoiled(embedding, torch.nan), pytest.raises(DataError, match=rf"at token {TOKEN} of sequence {20 + ROW}: "):
        tiny.record(TOKENS, [0], first=20)


def test_a_change_that_is_too_large_is_told_apart_from_a_host_that_is_broken(tiny: Host) -> None:
    run, response = run_natively(tiny, TOKENS, 1), torch.zeros(1, 2, 1, 6, 7)
    response[:, 1] = torch.inf
    rows = Rows(run, torch.tensor([1]), torch.tensor([5]), 1, 2)
    rows.logits(torch.zeros_like(response))
    with pytest.raises(DataError, match=r"a change of the text that begins .* makes NaN or infinity: make it smaller"):
        rows.logits(response)


def test_a_gradient_that_is_not_finite_is_named(tiny: Host) -> None:
    class Broken(Logit):
        def score(self, logits: Tensor, tokens: Tensor) -> Tensor:
            score = super().score(logits, tokens)
            return score + (score - score.detach()).sqrt()  # 0, whose slope is infinite

    with pytest.raises(DataError, match=r"gradient of the target at layer \d, head \d, token \d+ of the text"):
        output_gradients(tiny, TOKENS, Broken((5,)), [0, 1])


def test_large_numbers_are_no_fault() -> None:
    from writesae.recurrence import finite

    assert finite(torch.full((7, 3), 3e38))
    assert finite(torch.full((7, 3), 6e4, dtype=torch.float16))
    assert finite(torch.empty(0, 3))
    for bad in (torch.nan, torch.inf, -torch.inf):
        assert not finite(torch.tensor([1.0, bad, 3e38]))
    assert not finite(torch.tensor([torch.inf, -torch.inf]))
