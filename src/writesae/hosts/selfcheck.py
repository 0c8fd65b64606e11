"""The proof obligation on attach: a recorded stream must reproduce the host's own cached states and outputs."""

from __future__ import annotations

import math
import platform
from typing import NamedTuple, cast

import torch
from torch import Tensor

from writesae.errors import ReplayError
from writesae.hosts.caches import new_cache, read_state, run_cached
from writesae.hosts.host import Host
from writesae.hosts.intercept import KernelCall, Tap
from writesae.hosts.kernels import KernelResult
from writesae.hosts.versions import installed_version, kernel_package
from writesae.recurrence import replay
from writesae.types import Site

TOLERANCE = 1e-5
"""Relative L2 error allowed where the recurrence runs in float32 torch."""
GPU_TOLERANCE = 2e-2
"""Allowed where a GPU package's kernel runs it: their chunk kernels multiply in bfloat16 or TF32, which costs 1e-3 to
1e-2. A mistake in the translation (a transposed state, a missing gate) costs 1e-1 and more."""
SEGMENTS = (8, 1, 3)
"""Tokens a call: a prefill, a decode step, and a continuation of several tokens."""


class ReplayErrors(NamedTuple):
    """Largest relative L2 errors of the replay over one layer's calls."""

    state: float
    output: float
    head: int = 0
    """The head whose state or output was missed by most, relative to the whole layer."""


def relative(ours: Tensor, theirs: Tensor) -> float:
    """`|ours - theirs| / |theirs|`, the whole tensor as one vector; infinite where either is not finite."""
    error = (ours.float() - theirs.float()).norm().item() / max(theirs.float().norm().item(), 1e-30)
    return float(error) if math.isfinite(error) else math.inf


def _with_head(old: ReplayErrors, new: ReplayErrors, difference: Tensor, head_axis: int) -> ReplayErrors:
    """`new`, with the head that differs most wherever an error is the largest so far."""
    if max(new.state, new.output) <= max(old.state, old.output):
        return new
    by_head = difference.float().square().nan_to_num(nan=math.inf).transpose(head_axis, 0).flatten(1).sum(1)
    return new._replace(head=int(by_head.argmax()))


@torch.no_grad()
def measure_replay(host: Host, tokens: Tensor, segments: tuple[int, ...] = SEGMENTS) -> dict[int, ReplayErrors]:
    """Run `tokens` (`[B, sum(segments)]`) through the cache and replay every call from its recorded stream."""
    cache = new_cache(host)
    states: dict[int, Tensor] = {}
    errors: dict[int, ReplayErrors] = {}

    def after(call: KernelCall, result: KernelResult) -> KernelResult:
        replayed = replay(call.stream, states.get(call.layer))
        states[call.layer] = replayed.final
        emitted = call.kernel.emit(call.arguments, replayed.outputs)
        assert result.emitted is not None
        old = errors.get(call.layer, ReplayErrors(0.0, 0.0))
        new = old._replace(output=max(old.output, relative(emitted, result.emitted)))
        errors[call.layer] = _with_head(old, new, emitted - result.emitted, 2)
        return result

    begin = 0
    for length in segments:
        with host.tap(Tap(after=after)):
            run_cached(host, tokens[:, begin : begin + length], cache, begin, keep=1)
        begin += length
        for layer, state in states.items():
            old, theirs = errors[layer], read_state(host, cache, layer)
            new = old._replace(state=max(old.state, relative(state, theirs)))
            errors[layer] = _with_head(old, new, state - theirs, 1)
    return errors


def allowed_error(host: Host) -> float:
    """The tolerance of the kernels that serve this host where it is."""
    if host.device.type == "cpu":
        return TOLERANCE
    kernels = kernel_package(next(iter(host.layers.values())).family)
    return TOLERANCE if installed_version(kernels) is None else GPU_TOLERANCE


def check_replay(host: Host) -> None:
    """Refuse a host whose replay differs from its own cache; raises ReplayError with the measured error.

    States are compared for every dtype (kernels compute them in float32); outputs only in float32, because
    kernels round them to the model's dtype.
    """
    vocabulary = len(cast(Tensor, host.model.get_input_embeddings().weight))
    tokens = (torch.arange(sum(SEGMENTS)) * 7919 + 11).remainder(vocabulary).unsqueeze(0)
    measured, allowed = measure_replay(host, tokens), allowed_error(host)
    exact = host.dtype == torch.float32
    for index in host.layers:
        if index not in measured:
            raise ReplayError(f"{host.name}: layer {index} never called a kernel that writesae knows{_versions()}")
        found = measured[index]
        error = max(found.state, found.output if exact else 0.0)
        if error > allowed:
            raise ReplayError(
                f"{host.name}: replaying layer {index}'s recorded stream misses the model's own state and outputs by "
                f"{error:.1e} relative (allowed {allowed:.0e}), most at {Site(index, found.head)}"
                f"{_hint(host)}{_versions()}"
            )


def _hint(host: Host) -> str:
    """Some CPU kernels (Mamba-2's decode step) round inside the recurrence in low precision."""
    return "" if host.dtype == torch.float32 else f"; {host.dtype} may be the reason: load it with dtype='float32'"


def _versions() -> str:
    packages = ("torch", "transformers", "fla", "rwkv7_hf", "mamba_ssm")
    found = [f"{name} {version}" for name in packages if (version := installed_version(name)) is not None]
    return f" [{', '.join(found)}, Python {platform.python_version()}]"
