"""The proof obligation on attach: a recorded stream must reproduce the host's own cached states and outputs."""

from __future__ import annotations

import platform
from importlib.metadata import version
from typing import NamedTuple, cast

import torch
from torch import Tensor

from writesae.errors import ReplayError
from writesae.hosts.caches import new_cache, read_state, run_cached
from writesae.hosts.host import Host
from writesae.hosts.intercept import KernelCall, Tap
from writesae.hosts.kernels import KernelResult
from writesae.recurrence import replay

TOLERANCE = 1e-5
SEGMENTS = (8, 1, 3)
"""Tokens a call: a prefill, a decode step, and a continuation of several tokens."""


class ReplayErrors(NamedTuple):
    """Largest relative L2 errors of the replay over one layer's calls."""

    state: float
    output: float


def relative(ours: Tensor, theirs: Tensor) -> float:
    """`|ours - theirs| / |theirs|`, the whole tensor as one vector."""
    scale = theirs.float().norm().item()
    return float((ours.float() - theirs.float()).norm().item() / max(scale, 1e-30))


@torch.no_grad()
def measure_replay(host: Host, tokens: Tensor, segments: tuple[int, ...] = SEGMENTS) -> dict[int, ReplayErrors]:
    """Run `tokens` (`[B, sum(segments)]`) through the cache and replay every call from its recorded stream."""
    cache = new_cache(host)
    states: dict[int, Tensor] = {}
    errors: dict[int, ReplayErrors] = {}

    def after(call: KernelCall, result: KernelResult) -> KernelResult:
        replayed = replay(call.stream, states.get(call.layer))
        states[call.layer] = replayed.final
        old = errors.get(call.layer, ReplayErrors(0.0, 0.0))
        emitted = call.kernel.emit(call.arguments, replayed.outputs)
        assert result.emitted is not None
        errors[call.layer] = old._replace(output=max(old.output, relative(emitted, result.emitted)))
        return result

    begin = 0
    for length in segments:
        with host.tap(Tap(after=after)):
            run_cached(host, tokens[:, begin : begin + length], cache, begin, keep=1)
        begin += length
        for layer, state in states.items():
            error = relative(state, read_state(host, cache, layer))
            errors[layer] = errors[layer]._replace(state=max(errors[layer].state, error))
    return errors


def check_replay(host: Host) -> None:
    """Refuse a host whose replay differs from its own cache; raises ReplayError with the measured error.

    States are compared for every dtype (kernels compute them in float32); outputs only in float32, because
    kernels round them to the model's dtype.
    """
    vocabulary = len(cast(Tensor, host.model.get_input_embeddings().weight))
    tokens = (torch.arange(sum(SEGMENTS)) * 7919 + 11).remainder(vocabulary).unsqueeze(0)
    measured = measure_replay(host, tokens)
    exact = host.dtype == torch.float32
    for index in host.layers:
        if index not in measured:
            raise ReplayError(f"{host.name}: layer {index} never called a kernel that writesae knows{_versions()}")
        error = max(measured[index].state, measured[index].output if exact else 0.0)
        if not error <= TOLERANCE:
            raise ReplayError(
                f"{host.name}: replaying layer {index}'s recorded stream misses the model's own "
                f"state and outputs by {error:.1e} relative (allowed {TOLERANCE:.0e}){_hint(host)}{_versions()}"
            )


def _hint(host: Host) -> str:
    """Some CPU kernels (Mamba-2's decode step) round inside the recurrence in low precision."""
    return "" if host.dtype == torch.float32 else f"; {host.dtype} may be the reason: load it with dtype='float32'"


def _versions() -> str:
    return f" [torch {torch.__version__}, transformers {version('transformers')}, Python {platform.python_version()}]"
