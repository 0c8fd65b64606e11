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

from writesae.hosts import Host
from writesae.memory import refuse_unless_free

WIDEST = 16.0
"""Largest copy in 64 bits that is made where nobody asked for one, GiB."""


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


def _bytes(host: Host) -> int:
    return 8 * sum(p.numel() for p in host.model.parameters())


def widened(host: Host) -> Host:
    """A copy of a host with float64 weights, to be run inside `in_float64`. It takes 8 bytes a parameter; raises
    InputError where they are not free."""
    refuse_unless_free(
        _bytes(host), host.device, f"{host.name} in float64", 'measure it in float32 (precision="float32")'
    )
    model = copy.deepcopy(host.model).double()
    model.set_experts_implementation("eager")  # the grouped kernels of mixtures of experts know no float64
    return Host(model, None, host.name, lambda: host.revision)


def fits_widened(host: Host) -> bool:
    """Whether such a copy is small enough to be made unasked: the same answer on every machine."""
    return _bytes(host) <= WIDEST * 2**30
