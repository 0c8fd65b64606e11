"""What a recurrence kernel looks like from outside: how its call maps to a stream, and its result to (o, S).

A family file (`gated_delta.py`, ...) holds one `Kernel` for every symbol that its models call.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from writesae.recurrence import Stream

Arguments = Mapping[str, object]


class KernelResult(NamedTuple):
    """A kernel's result in canonical layout."""

    output: Tensor
    """The recurrence's own output `S_t^T q_t`, `[B, T, H, V]`: without what the kernel adds or multiplies after it.
    A response is added here; the kernel's skip and gate are then applied to it as to the rest."""
    final: Tensor | None
    """State after the last token, `[B, H, K, V]`, or None where the kernel was not asked for it."""
    emitted: Tensor | None = None
    """What the kernel itself returned as outputs, `[B, T, H, V]`, in its own dtype; ignored in a changed result."""


def same_output(arguments: Arguments, output: Tensor) -> Tensor:
    """For kernels that return `S_t^T q_t` itself."""
    return output


def pair(arguments: Arguments, emitted: Tensor, final: Tensor | None) -> object:
    """For kernels that return `(outputs, final state)`, the outputs in their inputs' dtype."""
    first = next(x for x in arguments.values() if isinstance(x, Tensor))
    return emitted.to(first.dtype), final


@dataclass(frozen=True)
class Kernel:
    """One recurrence kernel symbol in a modelling module, and how to read and rewrite its calls."""

    symbol: str
    """Name of the module-level function that the mixer calls."""
    parameters: tuple[str, ...]
    """Names of the positional arguments, in order."""
    stream: Callable[[Arguments], Stream]
    """Named arguments -> the effective stream, float32."""
    initial: Callable[[Arguments], Tensor | None]
    """Named arguments -> the state before the first token in canonical layout (a copy), or None if empty."""
    unpack: Callable[[Arguments, object], KernelResult]
    """Arguments and the kernel's own return value -> canonical."""
    repack: Callable[[Arguments, object, KernelResult, KernelResult], object]
    """Arguments, the kernel's own return value, the canonical result and a changed one -> what the mixer expects.
    Where nothing is added, the mixer gets the same bits as before."""
    emit: Callable[[Arguments, Tensor], Tensor] = same_output
    """Arguments and `S_t^T q_t` -> what the kernel returns as outputs: skip and gate where it has them."""
    give: Callable[[Arguments, Tensor, Tensor | None], object] = pair
    """Arguments, outputs with skip and gate, final state -> a return value of the kernel that nobody ran."""
    on_cpu: Callable[..., object] | None = None
    """What to call in its place on CPU tensors; None where the symbol itself wraps a torch fallback."""

    def name_arguments(self, args: tuple[object, ...], kwargs: dict[str, object]) -> Arguments:
        """Positional and keyword arguments of one call by name."""
        return dict(zip(self.parameters, args, strict=False)) | kwargs


def tensor(arguments: Arguments, name: str) -> Tensor:
    """The named argument, which must be a tensor."""
    value = arguments[name]
    if not isinstance(value, Tensor):
        raise TypeError(f"kernel argument {name!r} is a {type(value).__name__}, not a tensor")
    return value


def optional_tensor(arguments: Arguments, name: str) -> Tensor | None:
    """The named argument, or None where it is absent or None."""
    return None if arguments.get(name) is None else tensor(arguments, name)


def grouped(x: Tensor, heads: int) -> Tensor:
    """Repeat key heads so that each serves its group of value heads: `[B, T, Hk, d]` -> `[B, T, H, d]`."""
    repeats = heads // x.shape[2]
    return x if repeats == 1 else x.repeat_interleave(repeats, dim=2)
