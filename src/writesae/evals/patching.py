"""Score edits of single writes: firings x conditions, batched through the layers above the site only.

An edit of a write replaces the matrix that a token adds to one head's state. Every edit here is a weighted sum of a
few rank-1 components, each in one head, so the responses of the components are computed once and combined.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from writesae.hosts.fork import NativeRun, Rows
from writesae.recurrence import respond
from writesae.types import Protocol

ROWS = 128
"""Most edits a batch: beyond that nothing gets faster."""

MEMORY_SHARE = 0.125
"""Share of the free memory that one batch of rows may take."""


@dataclass(frozen=True)
class Edits:
    """Condition `c` at place `r` adds `weight[r, c, m] key[r, m] value[r, m]^T` to head `heads[m]`'s state, all `m`."""

    heads: list[int]
    """The head of each component, M of them."""
    passage: Tensor
    """`[R]`, row of the native run."""
    position: Tensor
    """`[R]`, the token whose write is edited."""
    key: Tensor
    """`[R, M, K]`."""
    value: Tensor
    """`[R, M, V]`."""
    weight: Tensor
    """`[R, C, M]`: one line a condition."""

    def __getitem__(self, index: Tensor) -> Edits:
        parts = (self.passage, self.position, self.key, self.value, self.weight)
        return Edits(self.heads, *(x[index] for x in parts))


class Scored(NamedTuple):
    """One batch of patched runs."""

    which: Tensor
    """`[r]`, indices of these edits."""
    native: Tensor
    """Native logits at the scored positions, `[r, horizon, vocabulary]`."""
    patched: Tensor
    """`[r, C, horizon, vocabulary]`."""


def first_step(timing: Protocol) -> int:
    """Offset from the edited token to the first scored position."""
    return 0 if timing == "at_token" else 1


def patched_logits(run: NativeRun, edits: Edits, timing: Protocol, horizon: int = 1) -> Iterator[Scored]:
    """Yield logits for every edit, in batches bounded in memory.

    Scored positions are `position + first_step(timing)` and the `horizon - 1` after it. The native run is a row of
    the same batch, so that both carry the same rounding.
    """
    copies = edits.weight.shape[1] + 1
    batch = rows_at_once(run, copies, horizon)
    order = edits.position.argsort()
    for index in torch.split(order, batch) if len(order) else ():  # sorted: rows of a batch share a cache length
        part = edits[index]
        rows = Rows(run, part.passage, part.position + first_step(timing), horizon, copies)
        logits = rows.logits(edit_response(run, part, timing, horizon))
        yield Scored(index, logits[:, 0], logits[:, 1:])


def edit_response(run: NativeRun, edits: Edits, timing: Protocol, horizon: int) -> Tensor:
    """What the edits add to the layer's output at the scored positions, `[R, 1 + C, horizon, H, V]`; native first."""
    skip = first_step(timing)
    places = edits.position[:, None] + torch.arange(horizon + skip)
    stream = run.streams[run.layer]
    local = stream.heads(edits.heads).map(lambda x: x[edits.passage[:, None], places])
    components = respond(local, edits.key.unsqueeze(1), edits.value.unsqueeze(1), timing == "at_token")[:, 0, skip:]
    head = nn.functional.one_hot(torch.tensor(edits.heads), stream.key.shape[2]).to(components)
    combined = torch.einsum("rcm,rtmv,mh->rcthv", edits.weight.to(components), components, head)
    return torch.cat([torch.zeros_like(combined[:, :1]), combined], 1)


def free_floats(device: torch.device) -> float:
    """How many float32 numbers a batch may hold: a share of what is free on the device now."""
    if device.type == "cuda":
        free = float(torch.cuda.mem_get_info(device)[0])
    elif "SC_AVPHYS_PAGES" in os.sysconf_names:
        free = float(os.sysconf("SC_AVPHYS_PAGES")) * os.sysconf("SC_PAGE_SIZE")
    else:  # macOS does not say what is free
        free = float(os.sysconf("SC_PHYS_PAGES")) * os.sysconf("SC_PAGE_SIZE") / 4
    return MEMORY_SHARE * free / 4


def rows_at_once(run: NativeRun, copies: int, horizon: int) -> int:
    """How many edits fit in one batch: logits, rebuilt states, and keys and values all count."""
    states = sum(layer.heads * layer.d_k * layer.d_v for i, layer in run.host.layers.items() if i >= run.layer)
    attention = sum(2 * k[0].numel() for k, _ in run.attention.values())
    each = copies * (5 * horizon * run.host.vocabulary + 2 * states + 2 * attention)
    return max(1, min(ROWS, int(free_floats(run.host.device) / each)))
