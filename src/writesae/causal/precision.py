"""The host in 64 bits: where the rounding of float32 would hide a small effect.

Model code asks for float32 by name in many places (norms, gates, kernels, softmax), so a model converted to float64
still rounds to 32 bits inside. Here `float32` is read as `float64` wherever torch is called.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch.overrides import TorchFunctionMode

from writesae.causal.batches import MEMORY_SHARE, free_floats
from writesae.hosts import Host


class _Wide(TorchFunctionMode):
    """Reads every float32 that is asked for as float64."""

    def __torch_function__(
        self,
        function: Callable[..., object],
        types: object,
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        if function is torch.Tensor.float:
            function = torch.Tensor.double
        named = {name: _wide(x) for name, x in (kwargs or {}).items()}
        return function(*map(_wide, args), **named)


def _wide(x: object) -> object:
    return torch.float64 if x is torch.float32 else x


@contextmanager
def in_float64() -> Iterator[None]:
    """Let all torch code of this context compute in float64: what it makes, and what it casts to float32."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.compiler.set_stance("force_eager"), _Wide():  # compiled code would not be seen
            yield
    finally:
        torch.set_default_dtype(before)


def widened(host: Host) -> Host:
    """A copy of a host with float64 weights, to be run inside `in_float64`. It takes 8 bytes a parameter."""
    model = copy.deepcopy(host.model).double()
    model.set_experts_implementation("eager")  # the grouped kernels of mixtures of experts know no float64
    return Host(model, None, host.name, host.revision)


def fits_widened(host: Host) -> bool:
    """Whether such a copy takes at most as much memory as half of what is free."""
    free = 4 * free_floats(host.device) / MEMORY_SHARE
    return 8 * sum(p.numel() for p in host.model.parameters()) <= free / 2
