"""How much fits at once: passages in a native run, edits in a batch of rows. Changes what is fast, and no result."""

from __future__ import annotations

import os

import torch

from writesae.hosts import Host
from writesae.hosts.fork import NativeRun

ROWS = 128
"""Most edits a batch: beyond that nothing gets faster."""

PASSAGES = 16
"""Most passages a native run, and the size of a finished part: a fixed one, so that a run that was stopped can go on
on a machine with more or less memory."""

MEMORY_SHARE = 0.125
"""Share of the free memory that one batch may take."""


def free_floats(device: torch.device, memory: float | None = None) -> float:
    """How many float32 numbers a batch may hold: `memory` GiB, or a share of what is free on the device now."""
    if memory is not None:
        return memory * 2**30 / 4
    if device.type == "cuda":
        free = float(torch.cuda.mem_get_info(device)[0])
    elif "SC_AVPHYS_PAGES" in os.sysconf_names:
        free = float(os.sysconf("SC_AVPHYS_PAGES")) * os.sysconf("SC_PAGE_SIZE")
    else:  # macOS does not say what is free
        free = float(os.sysconf("SC_PHYS_PAGES")) * os.sysconf("SC_PAGE_SIZE") / 4
    return MEMORY_SHARE * free / 4


def widths(host: Host) -> int:
    """Numbers that one token holds while it passes through one block: the widest of them, several times."""
    config = host.config
    inner = max(int(getattr(config, name, 0) or 0) for name in ("intermediate_size", "hidden_size"))
    heads = max(layer.heads * (2 * layer.d_k + 2 * layer.d_v) for layer in host.layers.values())
    return 4 * inner + 2 * heads


def rows_at_once(run: NativeRun, copies: int, horizon: int, memory: float | None = None) -> int:
    """How many edits fit in one batch: logits, one layer's rebuilt states, keys and values, and the widest block."""
    host = run.host
    states = max(layer.heads * layer.d_k * layer.d_v for i, layer in host.layers.items() if i >= run.layer)
    attention = sum(2 * x[0].numel() for (_, what), x in run.memory.series.items() if what in ("keys", "values"))
    each = copies * (horizon * (3 * host.vocabulary + widths(host)) + 2 * attention) + 3 * states
    return max(1, min(ROWS, int(free_floats(host.device, memory) / each)))


def passages_at_once(host: Host, length: int, layer: int, memory: float | None = None) -> int:
    """How many passages of `length` tokens fit in one native run from `layer` up, with all that it records."""
    streams = sum(5 * found.heads * (found.d_k + found.d_v) for i, found in host.layers.items() if i >= layer)
    blocks = sum(1 for i in range(len(host.blocks)) if i >= layer)
    kept = streams + 2 * blocks * int(getattr(host.config, "hidden_size", 0))
    states = sum(found.heads * found.d_k * found.d_v for i, found in host.layers.items() if i >= layer)
    each = length * (kept + widths(host)) + 2 * states + 2 * host.vocabulary
    return max(1, min(PASSAGES, int(free_floats(host.device, memory) / each)))
