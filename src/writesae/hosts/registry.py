"""The mixer classes that writesae knows: one `Architecture` each. A new host is one entry here and one family file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from writesae.hosts import gated_delta
from writesae.hosts.kernels import Kernel


@dataclass(frozen=True)
class Architecture:
    """How to find and read one class of recurrent mixer."""

    mixer: str
    """Class name of the mixer module."""
    family: str
    """The recurrence it runs (MATH.md section 1)."""
    package: str
    """The package whose models contain it."""
    kernels: tuple[Kernel, ...]
    """The symbols it calls, looked up in the module that defines the class."""
    shape: Callable[[nn.Module], tuple[int, int, int]]
    """The mixer -> (heads, d_k, d_v)."""
    norm: str | None
    """Submodule that normalises (and gates) the recurrence's output."""
    out_proj: str
    """Submodule that maps the heads' outputs to the residual stream, head-major columns."""


ARCHITECTURES: tuple[Architecture, ...] = tuple(
    Architecture(
        mixer,
        "gated-deltanet",
        "transformers",
        gated_delta.TORCH_KERNELS,
        gated_delta.shape,
        "norm",
        "out_proj",
    )
    for mixer in ("Qwen3_5GatedDeltaNet", "Qwen3_5MoeGatedDeltaNet", "Qwen3NextGatedDeltaNet")
)
