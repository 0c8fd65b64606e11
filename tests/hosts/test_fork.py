"""Forked runs against the cache-copy protocol: every transformers class, both timings, several steps."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from random_hosts import host_parameter, tiny_host
from slow_protocol import cache_copy_logits
from tiny_models import TINY_MODELS
from writesae.causal.divergence import kl_divergence
from writesae.causal.patching import Edits, patched_logits
from writesae.causal.precision import in_float64, widened
from writesae.hosts import Host
from writesae.hosts.fork import native_run
from writesae.types import Site, Timing

FORKED = [host_parameter(name) for name in TINY_MODELS if name != "qwen3_5_vision"]
"""Of these, Qwen4-Exp and GLM-5 Next run rows from the beginning: their attention keeps an index as well."""


def tokens(time: int = 23) -> Tensor:
    return torch.randint(3, 101, (3, time), generator=torch.Generator().manual_seed(1))


def deletions(host: Host, site: Site, passage: Tensor, position: Tensor) -> Edits:
    """Delete the native write, and put a random matrix of three times its norm in its place."""
    run = native_run(host, tokens(), site.layer)
    stream = run.streams[site.layer]
    key, value = (x[passage, position, site.head] for x in (stream.key, stream.value))
    noise = torch.randn(len(passage), key.shape[1], generator=torch.Generator().manual_seed(4))
    x = noise / noise.norm(dim=-1, keepdim=True) * key.norm(dim=-1, keepdim=True)
    weight = torch.tensor([[-1.0, 0.0], [-1.0, 3.0]]).expand(len(passage), -1, -1)
    y = value.roll(1, dims=1)
    return Edits([site.head] * 2, passage, position, torch.stack([key, x], 1), torch.stack([value, y], 1), weight)


@pytest.mark.parametrize(("end", "horizon"), [(0, 3), (-1, 1)], ids=["first-3", "last-1"])
@pytest.mark.parametrize("timing", ["after_token", "at_token"])
@pytest.mark.parametrize("name", FORKED)
def test_forked_runs_equal_copied_caches(name: str, timing: Timing, end: int, horizon: int) -> None:
    host = tiny_host(name)
    layer = list(host.layers.values())[end]
    site = Site(layer.index, layer.heads - 1)
    passage, position = torch.tensor([2, 0, 1, 1, 0]), torch.tensor([9, 1, 19, 9, 2])
    edits = deletions(host, site, passage, position)
    run = native_run(host, tokens(), site.layer)
    compared = 0
    for scored in patched_logits(run, edits, timing, horizon):
        fast = kl_divergence(scored.native.unsqueeze(1), scored.patched)
        for i, r in enumerate(scored.which.tolist()):
            added = torch.einsum("cm,mk,mv->ckv", edits.weight[r], edits.key[r], edits.value[r])
            text, place = tokens()[passage[r]], int(position[r])
            native, patched = cache_copy_logits(host, text, site, place, list(added), timing, horizon)
            torch.testing.assert_close(scored.native[i], native, rtol=1e-4, atol=2e-5)
            for c, logits in enumerate(patched):
                slow = kl_divergence(native, logits)
                rounding = 2e-6 * (2 * slow).sqrt()  # float32 logits: noise of spread e adds e sqrt(2 KL)
                assert ((fast[i, c] - slow).abs() <= 1e-4 * slow + rounding).all(), (r, c, fast[i, c], slow)
                compared += int((slow > 1e-8).sum())
    assert compared > 3 * horizon


@pytest.mark.parametrize("timing", ["after_token", "at_token"])
@pytest.mark.parametrize("name", ["qwen3_next", "mamba2", "zamba2"])
def test_a_second_native_row_shows_the_rounding(name: str, timing: Timing) -> None:
    host, site = tiny_host(name), Site(0, 1)
    passage, position = torch.arange(3).repeat_interleave(7), torch.arange(2, 16, 2).repeat(3)
    edits = deletions(host, site, passage, position)
    tiny = torch.tensor([1.0, 1e-6]).view(1, 2, 1)  # a deletion, and one of a millionth
    edits = replace(edits, weight=edits.weight[:, :1] * tiny)
    (scored,) = patched_logits(native_run(host, tokens(), 0), edits, timing)
    floor = kl_divergence(scored.native, scored.again)[:, 0]
    whole, millionth = kl_divergence(scored.native.unsqueeze(1), scored.patched)[..., 0].T
    assert 0 < floor.median() < 1e-11
    assert (whole > 10 * floor).all()
    assert (millionth < 10 * floor.clamp_min(float(floor.median()))).float().mean() > 0.9


def test_logits_of_a_bfloat16_host_are_float32() -> None:
    """So that log probabilities are taken from them in float32; a host in float64 keeps its own."""
    tiny = tiny_host("qwen3_5")
    half = Host(nn.Module.to(copy.deepcopy(tiny.model), torch.bfloat16), None, "half", lambda: "none")
    edits = deletions(half, Site(0, 1), torch.tensor([0]), torch.tensor([5]))
    (scored,) = patched_logits(native_run(half, tokens(), 0), edits, "at_token")
    assert scored.native.dtype == scored.patched.dtype == half.logits(tokens()).dtype == torch.float32
    with in_float64():
        assert widened(tiny).logits(tokens()).dtype == torch.float64


def test_states_of_later_rows_resume_where_earlier_ones_ended() -> None:
    host = tiny_host("qwen3_5")
    run, fresh = (native_run(host, tokens(), 0) for _ in range(2))
    passage = torch.tensor([0, 2, 1])
    for position in ([3, 5, 5], [5, 5, 5], [5, 9, 11], [2, 1, 3]):  # onwards, the same place, a tie, and back
        fresh.checkpoints.clear()
        at = torch.tensor(position)
        torch.testing.assert_close(run.states(0, passage, at), fresh.states(0, passage, at))


def test_the_model_is_left_as_it_was() -> None:
    host = tiny_host("bamba")
    before = host.logits(tokens())
    site = Site(1, 0)
    edits = deletions(host, site, torch.tensor([0]), torch.tensor([5]))
    list(patched_logits(native_run(host, tokens(), 1), edits, "after_token"))
    assert torch.equal(host.logits(tokens()), before)
    assert not any("forward" in block.__dict__ for block in host.blocks)


@pytest.mark.parametrize("layers", [(0,), (0, 1)])
@pytest.mark.parametrize("timing", ["after_token", "at_token"])
def test_rows_from_the_beginning_equal_forked_ones(
    timing: Timing, layers: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Edits of one layer, and of two at once, of a host whose cache is taken for one of its own."""
    host, passage, position = tiny_host("qwen3_next"), torch.tensor([2, 0, 1]), torch.tensor([9, 1, 19])
    edits = {layer: deletions(host, Site(layer, 1), passage, position) for layer in layers}
    forked = native_run(host, tokens(), 0)
    monkeypatch.setattr("writesae.hosts.fork_memory.KEEPERS", {})
    whole = native_run(host, tokens(), 0)
    assert (forked.forks, whole.forks) == (True, False)
    monkeypatch.undo()
    (a,), (b,) = (patched_logits(run, edits, timing, 2) for run in (forked, whole))
    torch.testing.assert_close(a.patched, b.patched, rtol=1e-4, atol=2e-5)
    torch.testing.assert_close(a.native, b.native, rtol=1e-4, atol=2e-5)
    assert ((a.patched - a.native.unsqueeze(1)).abs().amax((1, 2, 3)) > 1e-3).all()
