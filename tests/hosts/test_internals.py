"""What releases of transformers changed, and what is reached into: each with the release that moved it."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer, LinearAttentionLayer

import writesae
from random_hosts import BATCH, TIME, relative, some_tokens, tiny_host
from tiny_models import TINY_MODELS, build_tiny, lacking
from writesae.errors import HostError
from writesae.hosts import internals, load
from writesae.hosts.caches import generation_argument, new_cache, read_state, run_cached
from writesae.hosts.fork import native_run
from writesae.hosts.inventory import inventory
from writesae.hosts.versions import release
from writesae.recurrence import replay

HERE = [name for name, spec in TINY_MODELS.items() if spec.extra is None and lacking(name) is None]


@pytest.mark.parametrize("name", HERE)
def test_the_cache_has_one_name_since_5_24_and_two_before(name: str) -> None:
    names = internals.CACHE_NAMES[:1] if release() >= (5, 24) else internals.CACHE_NAMES[1:]
    assert internals.cache_keyword(build_tiny(name)) in names


def test_a_class_that_5_24_cannot_hand_its_cache_is_refused_for_generation(monkeypatch: pytest.MonkeyPatch) -> None:
    host = tiny_host("qwen3_5")
    assert generation_argument(host, new_cache(host))["use_cache"] is True
    monkeypatch.setattr(internals, "release", lambda: (5, 24))
    monkeypatch.setattr(internals, "cache_keyword", lambda model: "past_key_values")
    with pytest.raises(HostError, match=r"Qwen3_5ForCausalLM cannot generate .* pip install 'transformers<5\.24'"):
        generation_argument(host, new_cache(host))


@pytest.mark.parametrize("name", ["qwen3_5", "mamba2"])
def test_a_cache_is_found_under_every_name(name: str) -> None:
    host, kept = tiny_host(name), DynamicCache()
    for keyword in internals.CACHE_NAMES:
        assert internals.find_cache({"input_ids": None, keyword: kept}) is kept
    assert internals.find_cache({"input_ids": None, "cache": None}) is None
    with torch.no_grad(), host.tap():
        live = new_cache(host)
        out = host.model(some_tokens(), use_cache=True, **{internals.cache_keyword(host.model): live})
        assert internals.find_cache(out) is live
        assert internals.find_cache(host.model(some_tokens(), use_cache=False)) is None


def test_younger_classes_are_listed_with_their_release() -> None:
    """5.16: Qwen4-Exp and GLM-5 Next, 5.17: Kimi-Linear, 5.20: Bailing-Hybrid; the others are as old as 5.15."""
    for name, spec in TINY_MODELS.items():
        if spec.extra is None:
            there = find_spec(spec.module) is not None
            assert there == (release() >= internals.SINCE.get(spec.model, (5, 15))), name


def test_a_class_that_is_too_young_is_listed_with_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("writesae.hosts.inventory.release", lambda: (5, 15))
    listed = [model for row in inventory() for model in row.models]
    assert "KimiLinearForCausalLM (transformers 5.17 or newer)" in listed
    assert "Qwen3_5ForCausalLM" in listed


def test_a_state_lies_in_a_list_of_the_layer_s() -> None:
    """A tensor until 5.13, a dictionary from 5.14 on; `Cache.get_recurrent_state` came with 5.21."""
    host = tiny_host("qwen3_5")
    live = new_cache(host)
    assert internals.recurrent_state(live, 0) is None
    with host.tap():
        run_cached(host, some_tokens(), live, 0)
    state = internals.recurrent_state(live, 0)
    assert state is not None
    assert state.shape == (BATCH, 6, 5, 7)
    if release() >= (5, 21):
        assert live.get_recurrent_state(0) is state


def test_a_held_state_is_the_one_that_calls_read_and_none_changes() -> None:
    part, held = LinearAttentionLayer(), torch.zeros(()).expand(2, 3, 5, 7)
    internals.hold_state(part, held)
    assert part.update_recurrent_state(torch.ones(2, 3, 5, 7)).sum() == 210
    assert part.recurrent_states[0] is held
    assert not held.any()


def test_held_windows_are_those_that_a_convolution_continues() -> None:
    windows, new = torch.randn(2, 5, 4), torch.randn(2, 5, 1)
    held, filled = LinearAttentionLayer(), LinearAttentionLayer()
    internals.hold_windows(held, windows.clone())
    filled.update_conv_state(windows)
    assert vars(held).keys() == vars(filled).keys()
    for part in (held, filled):
        assert torch.equal(part.update_conv_state(new), torch.cat([windows, new], 2))
        assert torch.equal(part.conv_states[0], torch.cat([windows[:, :, 1:], new], 2))  # type: ignore[arg-type]


def test_a_convolution_s_input_and_width_are_told() -> None:
    part, told = LinearAttentionLayer(), list[tuple[Tensor, int]]()
    internals.watch_convolution(part, lambda inputs, width: told.append((inputs, width)))
    inputs = torch.randn(2, 5, 11)
    part.update_conv_state(inputs, conv_kernel_size=4)
    assert told[0][0] is inputs
    assert told[0][1] == 4


def build(kind: Callable[[], object]) -> object:
    return kind()  # transformers gives some of its classes no types


def test_a_sliding_window_is_not_the_whole_attention() -> None:
    """It keeps window - 1 tokens; what stands at place 0 of its keys is not the text's first token."""
    assert internals.keeps_known(build(DynamicLayer), 10**6)
    assert internals.keeps_known(LinearAttentionLayer(), 3)
    window = DynamicSlidingWindowLayer(sliding_window=11)
    assert internals.keeps_known(window, 10)
    assert not internals.keeps_known(window, 11)
    if release() >= (5, 16):
        from transformers.cache_utils import DynamicIndexedLayer

        assert not internals.keeps_known(build(DynamicIndexedLayer), 3)


def test_runs_are_not_forked_from_a_window_that_has_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    host = tiny_host("qwen3_5")

    def windowed(model: nn.Module) -> DynamicCache:
        kept = DynamicCache(config=host.config)
        kept.layers[2] = DynamicSlidingWindowLayer(sliding_window=11)
        return kept

    monkeypatch.setattr("writesae.hosts.fork.new_cache", windowed)
    assert native_run(host, some_tokens(time=10), 0).forks
    assert not native_run(host, some_tokens(), 0).forks


@pytest.mark.skipif("falcon_h1_norm" not in HERE, reason="this transformers has no Falcon-H1")
def test_one_token_of_several_rows_passes_falcon_s_norm() -> None:
    """Until 5.23 its output lost the time axis, and adding it to the residual stream mixed the rows."""
    host = tiny_host("falcon_h1_norm")
    whole, live, steps = host.logits(some_tokens()), new_cache(host), []
    with host.tap():
        for at in range(TIME):
            steps.append(run_cached(host, some_tokens()[:, at : at + 1], live, at))
    assert relative(torch.cat(steps, 1), whole) <= 1e-5


def test_unit_vectors_are_made_where_the_release_makes_them() -> None:
    """In the model's own precision until 5.17, in float32 from then on."""
    host = tiny_host("qwen3_5")
    half = nn.Module.to(build_tiny("qwen3_5"), torch.bfloat16)
    module = inspect.getmodule(type(host.mixers[0].module))
    scan = internals.torch_reference(module.torch_chunk_gated_delta_rule)  # type: ignore[union-attr]
    source = inspect.getsource(scan)
    assert internals.rounds_unit_vectors("cpu") == (source.index("l2norm(query") < source.index("torch.float32"))
    small = load(half)
    stream, live = small.record(some_tokens(), [0])[0], new_cache(small)
    with small.tap():
        run_cached(small, some_tokens(), live, 0)
    assert relative(replay(stream).final, read_state(small, live, 0)) <= 1e-5


def test_nobody_else_reaches_into_them() -> None:
    """No attribute that begins with an underscore is read off anything but `self`, `cls`, `super()` or a named
    tuple of ours."""
    ours = {"_replace", "_asdict", "_fields", "_repr_html_", "_tokenizer", "_exit"}
    found = []
    for path in sorted(Path(writesae.__file__).parent.rglob("*.py")):
        if path.name == "internals.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
                own = ast.unparse(node.value) in ("self", "cls", "super()")
                if not own and node.attr not in ours:
                    found.append(f"{path.name}:{node.lineno} {ast.unparse(node)}")
    assert found == []
