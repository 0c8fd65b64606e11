"""How a dictionary shows itself in a terminal and in a notebook."""

from __future__ import annotations

import html as escape
from typing import TYPE_CHECKING

from writesae.sae.config import SAEConfig

if TYPE_CHECKING:
    from writesae.sae.model import SAE


def text(config: SAEConfig) -> str:
    """`2048 atoms of 128 x 128, Bilinear(...) -> TopK(...) -> Factored(...), target state`."""
    return (
        f"{config.features} atoms of {config.d_k} x {config.d_v}, "
        f"{config.encoder} -> {config.sparsity} -> {config.decoder}, target {config.target}"
    )


def html(sae: SAE) -> str:
    """A small table: the parts, and the shapes of the parameters."""
    config = sae.config
    parts = [
        ("atoms", f"{config.features} of {config.d_k} x {config.d_v}"),
        ("target", config.target),
        ("encoder", str(config.encoder)),
        ("sparsity", str(config.sparsity)),
        ("decoder", str(config.decoder)),
    ]
    parts += [(name, " x ".join(map(str, p.shape))) for name, p in sae.named_parameters()]
    rows = "".join(f"<tr><th>{escape.escape(a)}</th><td>{escape.escape(b)}</td></tr>" for a, b in parts)
    return f"<table><caption>writesae.SAE</caption>{rows}</table>"
