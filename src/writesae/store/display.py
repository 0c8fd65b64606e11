"""How a store shows itself at a prompt and in a notebook."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path

from writesae.store.layout import Provenance, StoredLayer


def dense_bytes(provenance: Provenance, layers: Mapping[int, StoredLayer]) -> int:
    """Bytes of the same states stored dense in float16."""
    numbers = sum(layer.heads * layer.d_k * layer.d_v for layer in layers.values())
    return 2 * numbers * provenance.sequences * provenance.length


def _facts(path: Path, provenance: Provenance, layers: Mapping[int, StoredLayer], size: int) -> list[tuple[str, str]]:
    tokens = provenance.sequences * provenance.length
    ratio = dense_bytes(provenance, layers) / size
    heads = (
        f"layer {index}: {layer.heads} heads of {layer.d_k} x {layer.d_v}, {layer.family}"
        for index, layer in layers.items()
    )
    return [
        ("store", str(path)),
        ("host", f"{provenance.host} @ {provenance.revision[:12]}, run in {provenance.host_dtype}"),
        ("tokens", f"{tokens:,} ({provenance.sequences:,} sequences of {provenance.length})"),
        ("corpus", f"{provenance.described or 'of unknown name'} ({provenance.corpus[:12]})"),
        ("streams", "; ".join(heads)),
        (
            "on disk",
            f"{size / 1e6:,.1f} MB, {provenance.dtype}; dense float16 states would take {ratio:,.0f} times that",
        ),
    ]


def store_text(path: Path, provenance: Provenance, layers: Mapping[int, StoredLayer], size: int) -> str:
    """A few aligned lines."""
    facts = _facts(path, provenance, layers, size)
    return "StreamStore\n" + "\n".join(f"  {name:8} {value}" for name, value in facts)


def store_html(path: Path, provenance: Provenance, layers: Mapping[int, StoredLayer], size: int) -> str:
    """The same as a small table."""
    facts = _facts(path, provenance, layers, size)
    rows = "".join(
        f'<tr><th style="text-align:left">{escape(name)}</th><td style="text-align:left">{escape(value)}</td></tr>'
        for name, value in facts
    )
    return f"<table>{rows}</table>"
