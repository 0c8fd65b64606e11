"""Kernel symbols and calls that the tiny models of the conformance suite do not show."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

import tiny_models
from tiny_models import TINY_MODELS, build_tiny
from writesae.errors import ReplayError
from writesae.hosts import Host, load, mamba2
from writesae.hosts.internals import torch_reference
from writesae.hosts.kernels import grouped, tensor
from writesae.hosts.selfcheck import TOLERANCE, measure_replay


def reference(x: Tensor) -> Tensor:
    return x + 1


def fast(x: Tensor) -> Tensor:
    raise RuntimeError("needs a GPU")


def test_the_torch_fallback_is_found_behind_a_decorator() -> None:
    symbol = functools.wraps(reference)(fast)
    assert torch_reference(symbol) is reference
    assert torch_reference(reference) is reference


def test_the_torch_fallback_is_found_behind_a_hub_kernel() -> None:
    """The `kernels` package turns a symbol into a module whose forward closes over the decorated function."""

    def wrap(func: Callable[[Tensor], Tensor]) -> nn.Module:
        class Func(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return func(x)

        return Func()

    assert torch_reference(wrap(functools.wraps(reference)(fast))) is reference


def test_arguments_come_by_name_however_they_were_passed() -> None:
    scan = mamba2.KERNELS[0]
    x, dt = torch.zeros(1), torch.ones(1)
    assert scan.name_arguments((x, dt), {"A": 3, "chunk_size": 5}) == {"x": x, "dt": dt, "A": 3, "chunk_size": 5}
    with pytest.raises(TypeError, match="'A' is a int, not a tensor"):
        tensor({"A": 3}, "A")


def test_each_key_head_serves_neighbouring_value_heads() -> None:
    """Repeat each, not the whole list: 16 key heads for 32 value heads serve (0, 0, 1, 1, ...)."""
    assert grouped(torch.arange(3.0).view(1, 1, 3, 1), 6).flatten().tolist() == [0, 0, 1, 1, 2, 2]


def test_an_installed_convolution_package_does_not_break_hosts_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.models.qwen3_5 import modeling_qwen3_5

    host = load(build_tiny("qwen3_5"))
    text = torch.arange(3, 20)[None]
    expected = host.logits(text)
    symbol = modeling_qwen3_5.causal_conv1d_fn

    def broken(*args: object, **kwargs: object) -> None:
        raise RuntimeError("needs a GPU")

    monkeypatch.setattr(modeling_qwen3_5, "causal_conv1d_fn", functools.wraps(torch_reference(symbol))(broken))
    with pytest.raises(RuntimeError, match="needs a GPU"):
        host.model(input_ids=text)
    assert torch.equal(host.logits(text), expected)


def test_mamba2_prefill_clamps_its_steps_and_decode_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = TINY_MODELS["mamba2"]
    limited = replace(spec, settings={**spec.settings, "time_step_limit": (0.6, 0.8)})
    monkeypatch.setitem(tiny_models._EVERY, "mamba2", limited)
    host = load(build_tiny("mamba2"))
    text = torch.randint(3, 101, (2, 17), generator=torch.Generator().manual_seed(0))
    for errors in measure_replay(host, text, (11, 1, 1, 4)).values():
        assert max(errors.state, errors.output) <= TOLERANCE
    stream = host.record(text, [0])[0]
    rate = host.model.get_parameter("backbone.layers.0.mixer.A_log").exp()
    steps = -stream.log_decay.squeeze(-1) / rate
    assert steps.min() >= 0.6 - 1e-6
    assert steps.max() <= 0.8 + 1e-6
    assert ((steps > 0.6 + 1e-5) & (steps < 0.8 - 1e-5)).any()


def test_a_recurrence_that_rounds_inside_is_refused_with_the_way_out() -> None:
    """On a CPU, Mamba-2's decode step multiplies in bfloat16: no stream reproduces that to 1e-5."""
    model = build_tiny("mamba2")
    nn.Module.to(model, torch.bfloat16)
    with pytest.raises(ReplayError, match=r"torch\.bfloat16 may be the reason: load it with dtype='float32'"):
        load(model)


def test_a_bfloat16_delta_rule_is_exact_all_the_same() -> None:
    model = build_tiny("qwen3_5")
    nn.Module.to(model, torch.bfloat16)
    host = load(model)
    assert isinstance(host, Host)
    assert host.dtype == torch.bfloat16
