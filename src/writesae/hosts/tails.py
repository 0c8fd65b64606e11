"""From a recurrence's outputs to what enters a mixer's output projection: the gated norms, one `Tail` a kind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from torch import Tensor, nn
from torch.nn.functional import silu

from writesae.recurrence import Stream

Report = Callable[[Tensor], None]
Stop = Callable[[], None]


@dataclass(frozen=True)
class Tail:
    """One kind of mixer ending."""

    watch: Callable[[nn.Module, Report], Stop]
    """Report the gate that a mixer computes at each forward pass (any shape that flattens to `[B, T, H, V]`; nothing
    where it has none) until stopped."""
    apply: Callable[[nn.Module, Tensor, Tensor | None, Stream], Tensor]
    """Mixer, emitted outputs `[..., H, V]`, gate `[..., H, V]`, the stream they belong to -> `[..., H, V]`."""


def _input_gate(norm: str) -> Callable[[nn.Module, Report], Stop]:
    """The gate is the norm's second input."""

    def watch(mixer: nn.Module, report: Report) -> Stop:
        def hook(_: nn.Module, inputs: tuple[object, ...]) -> None:
            if len(inputs) > 1 and isinstance(inputs[1], Tensor):
                report(inputs[1])

        return mixer.get_submodule(norm).register_forward_pre_hook(hook).remove

    return watch


def per_head_norm(norm: str) -> Tail:
    """A norm over each head's V channels, gated inside: the delta-rule families."""

    def apply(mixer: nn.Module, emitted: Tensor, gate: Tensor | None, stream: Stream) -> Tensor:
        rows = [x.flatten(0, -2) for x in (emitted, gate) if x is not None]
        normed: Tensor = mixer.get_submodule(norm)(*rows)
        return normed.view_as(emitted)

    return Tail(_input_gate(norm), apply)


def _all_heads_norm(mixer: nn.Module, emitted: Tensor, gate: Tensor | None, stream: Stream) -> Tensor:
    rows = [x.flatten(-2) for x in (emitted, gate) if x is not None]
    normed: Tensor = mixer.get_submodule("norm")(*rows)
    return normed.view_as(emitted)


MAMBA = Tail(_input_gate("norm"), _all_heads_norm)
"""A norm over groups of heads, gated inside: Mamba-2. One head's output moves its neighbours' scale."""


def _falcon_watch(mixer: nn.Module, report: Report) -> Stop:
    if getattr(mixer, "mamba_rms_norm", False):
        return MAMBA.watch(mixer, report)
    width, scale = int(cast(int, mixer.intermediate_size)), cast(Tensor, mixer.mup_vector)

    def hook(_: nn.Module, inputs: object, projected: Tensor) -> None:
        report((projected * scale)[..., :width])

    return mixer.get_submodule("in_proj").register_forward_hook(hook).remove


def _falcon_apply(mixer: nn.Module, emitted: Tensor, gate: Tensor | None, stream: Stream) -> Tensor:
    if getattr(mixer, "mamba_rms_norm", False):
        return MAMBA.apply(mixer, emitted, gate, stream)
    assert gate is not None
    return emitted * silu(gate)


FALCON = Tail(_falcon_watch, _falcon_apply)
"""Falcon-H1: Mamba-2's norm, or by default no norm and a gate in line."""
