"""From a recurrence's outputs to what enters a mixer's output projection: the gated norms, one `Tail` a kind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
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


def output_gate(
    name: str, read: Callable[[Tensor], Tensor] = lambda output: output
) -> Callable[[nn.Module, Report], Stop]:
    """The gate is what a submodule returns, or what is `read` of it."""

    def watch(mixer: nn.Module, report: Report) -> Stop:
        def hook(_: nn.Module, inputs: object, output: Tensor) -> None:
            report(read(output))

        return mixer.get_submodule(name).register_forward_hook(hook).remove

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


def _has_gate(mixer: nn.Module) -> bool:
    return bool(getattr(mixer, "use_output_gate", True))  # Simple GLA always has one


def _gla_watch(mixer: nn.Module, report: Report) -> Stop:
    return output_gate("g_proj")(mixer, report) if _has_gate(mixer) else lambda: None


def _gla_apply(mixer: nn.Module, emitted: Tensor, gate: Tensor | None, stream: Stream) -> Tensor:
    fused = _has_gate(mixer) and bool(mixer.fuse_norm_and_gate)
    norm = per_head_norm("g_norm_swish_gate" if fused else "g_norm")
    normed = norm.apply(mixer, emitted, gate if fused else None, stream)
    if gate is None or fused:
        return normed
    return normed * cast(Callable[[Tensor], Tensor], mixer.gate_fn)(gate)


GLA = Tail(_gla_watch, _gla_apply)
"""fla's GLA: a norm over each head, with the gate inside or beside it."""


def _hgrn2_apply(mixer: nn.Module, emitted: Tensor, gate: Tensor | None, stream: Stream) -> Tensor:
    """Its kernel takes the norm's weight and not its epsilon, and uses 1e-5 whatever the configuration says."""
    flat, weight = emitted.flatten(-2).float(), mixer.get_submodule("g_norm").weight
    normed = flat * torch.rsqrt(flat.square().mean(-1, keepdim=True) + 1e-5)
    normed = normed if weight is None else normed * cast(Tensor, weight).float()
    return normed.to(emitted.dtype).view_as(emitted)


HGRN2 = Tail(lambda mixer, report: lambda: None, _hgrn2_apply)
"""A norm over all heads and no gate."""

MAMBA = Tail(_input_gate("norm"), _all_heads_norm)
"""A norm over groups of heads, gated inside: Mamba-2. One head's output moves its neighbours' scale."""


def _falcon_watch(mixer: nn.Module, report: Report) -> Stop:
    if getattr(mixer, "mamba_rms_norm", False):
        return MAMBA.watch(mixer, report)
    width, scale = int(cast(int, mixer.intermediate_size)), cast(Tensor, mixer.mup_vector)
    return output_gate("in_proj", lambda projected: (projected * scale)[..., :width])(mixer, report)


def _falcon_apply(mixer: nn.Module, emitted: Tensor, gate: Tensor | None, stream: Stream) -> Tensor:
    if getattr(mixer, "mamba_rms_norm", False):
        return MAMBA.apply(mixer, emitted, gate, stream)
    assert gate is not None
    return emitted * silu(gate)


FALCON = Tail(_falcon_watch, _falcon_apply)
"""Falcon-H1: Mamba-2's norm, or by default no norm and a gate in line."""
