"""How a dictionary shows itself in a terminal and in a notebook."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from writesae.sae.model import SAE


def text(sae: SAE) -> str:
    """`2048 atoms of 128 x 128, Bilinear(...) -> TopK(...) -> Factored(...), target state, of tiny-gdn L5.H0`."""
    config = sae.config
    origin = " ".join(str(fact) for fact in (sae.host, sae.site) if fact is not None)
    return (
        f"{config.features} atoms of {config.d_k} x {config.d_v}, "
        f"{config.encoder} -> {config.sparsity} -> {config.decoder}, target {config.target}"
    ) + (f", of {origin}" if origin else "")


def html(sae: SAE) -> str:
    """A small table: the parts, and the shapes of the parameters."""
    config = sae.config
    parts = [
        ("host", sae.host or "unknown"),
        ("site", str(sae.site or "unknown")),
        ("atoms", f"{config.features} of {config.d_k} x {config.d_v}"),
        ("target", config.target),
        ("encoder", str(config.encoder)),
        ("sparsity", str(config.sparsity)),
        ("decoder", str(config.decoder)),
    ]
    parts += [(name, " x ".join(map(str, p.shape))) for name, p in sae.named_parameters()]
    return table("writesae.SAE", parts)


def table(caption: str, rows: Sequence[tuple[str, str]]) -> str:
    """Names and values as HTML."""
    cells = "".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in rows)
    return f"<table><caption>{escape(caption)}</caption>{cells}</table>"
