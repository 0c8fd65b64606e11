"""How a store shows itself at a prompt and in a notebook."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from writesae.store.reader import StreamStore


def _facts(store: StreamStore) -> list[tuple[str, str]]:
    origin, layers = store.provenance, store.layers
    tokens = store.sequences * store.length
    padding = int(store.padding().sum())
    sequences = f"{store.sequences:,} sequences of {store.length}"
    dense = 2 * tokens * sum(layer.heads * layer.d_k * layer.d_v for layer in layers.values())
    heads = (
        f"layer {n}: {layer.heads} heads of {layer.d_k} x {layer.d_v}, {layer.family}" for n, layer in layers.items()
    )
    used, read = len(store.documents), store.documents_read
    twins = f", of which {len(store.twins):,} hold the words of others" * bool(store.twins)
    return [
        ("store", str(store.place)),
        ("host", f"{origin.host} @ {origin.revision[:12]}, run in {origin.host_dtype}"),
        ("tokens", f"{tokens - padding:,} ({sequences}{f', {padding:,} of padding' * bool(padding)})"),
        ("corpus", f"{origin.described or 'of unknown name'} ({origin.corpus[:12]})"),
        ("from", f"{used:,}{f' of {read:,}' if read else ''} documents{twins}"),
        ("streams", "; ".join(heads)),
        (
            "on disk",
            f"{store.size / 1e6:,.1f} MB, {origin.dtype}; dense float16 states would take {dense / store.size:,.0f} "
            "times that",
        ),
    ]


def store_text(store: StreamStore) -> str:
    """A few aligned lines."""
    return "StreamStore\n" + "\n".join(f"  {name:8} {value}" for name, value in _facts(store))


def store_html(store: StreamStore) -> str:
    """The same as a small table."""
    rows = "".join(
        f'<tr><th style="text-align:left">{escape(name)}</th><td style="text-align:left">{escape(value)}</td></tr>'
        for name, value in _facts(store)
    )
    return f"<table>{rows}</table>"
