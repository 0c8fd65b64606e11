"""Bytes of a stream store against the same states stored dense in float16.

    python benchmarks/store_size.py [--sequences 128]

Captures the embedded host's held-out sample (heads of 32 x 32), measures every file of the store, opens it again,
and checks that states rebuilt from it equal the host's own. Then prints the computed figure for 128 x 128 heads.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro

from writesae.corpus import text
from writesae.hosts import load
from writesae.recurrence import replay
from writesae.recurrence.written import rebuild_states
from writesae.store import capture, open_store
from writesae.store.layout import StoredLayer, layer_arrays
from writesae.types import Site


@dataclass(frozen=True)
class Options:
    """Measure the size of a stream store."""

    sequences: int = 128
    """Sequences of 256 tokens to capture."""
    site: str = "L5.H0"
    """Head whose states are rebuilt and compared."""


def bytes_a_token(d_k: int, d_v: int, gate: bool) -> int:
    """Uncompressed bytes that one token of one scalar-decay head takes in a store."""
    layer = StoredLayer(1, d_k, d_v, "computed", False, "key" if gate else "none")
    return sum(spec.width * (2 if spec.dtype == "float16" else 4) for spec in layer_arrays(layer, "float16"))


def silent(stored: int, total: int) -> None:
    """No progress bar."""


def main(options: Options) -> None:
    """Capture, measure, compare, print."""
    host, site = load("tiny-gdn"), Site.parse(options.site)
    blocks = text("sample", host, 256).blocks(options.sequences)
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        path = capture(host, blocks, "all", Path(folder) / "s.zarr", progress=silent).path
        seconds = time.perf_counter() - started
        store = open_store(path)
        size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        numbers = sum(layer.heads * layer.d_k * layer.d_v for layer in store.layers.values())
        dense = 2 * numbers * store.sequences * store.length
        rebuilt = rebuild_states(store.read(site, 0, 1))
        stream = host.record(torch.from_numpy(blocks.tokens[:1]), [site.layer])[site.layer].heads(site.head)
        exact = torch.cat([replay(stream.map(lambda x, t=t: x[:, : t + 1])).final for t in (63, 255)])[:, 0]
        found = rebuilt[0, [63, 255]]
        error = float((found - exact).norm() / exact.norm())
    tokens = store.sequences * store.length
    print(f"tiny-gdn, {len(store.layers)} layers x 6 heads of 32 x 32, {tokens:,} tokens, captured in {seconds:.1f} s")
    print(f"  store {size / 1e6:.1f} MB, dense float16 states {dense / 1e6:.1f} MB: 1/{dense / size:.1f}")
    print(f"  states rebuilt from the float16 store at {site}: relative error {error:.1e}")
    for d in (32, 128):
        plain, gated = bytes_a_token(d, d, gate=False), bytes_a_token(d, d, gate=True)
        print(
            f"computed for {d} x {d}, before compression: {gated} bytes a token with the erase gate, "
            f"1/{2 * d * d / gated:.1f} (without it {plain}, 1/{2 * d * d / plain:.1f})"
        )
    if size * 10 > dense:
        raise SystemExit("the store takes more than 1/10 of the dense states")


if __name__ == "__main__":
    main(tyro.cli(Options))
