"""Scoring firings: what each condition puts in the place of the writes, and how far the next tokens move.

At a firing everything is one batch of rows: the native run, the conditions of every form of the native write at every
amplitude, and the native run once more for the rounding floor. So the states are rebuilt once, and a further
direction of the KL costs no run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from typing import Literal, NamedTuple, cast

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from writesae.causal.divergence import kl_divergences, smallest_kl
from writesae.causal.patching import Edits, patched_logits
from writesae.evals.common.conditions import CELL, CONDITIONS, SIZED, Control, Grid, Size, step_column
from writesae.evals.common.controls import OF_THE_WRITE, Component, Firings, ScoredHead, View, replacement
from writesae.evals.common.share import state_norms
from writesae.hosts.fork import NativeRun
from writesae.types import NativeWrite, ReadAs, Timing

CHUNK = 1 << 17
"""Logits that are compared at once: what a cache holds, for memory that is new each time costs more than the sums."""


class Condition(NamedTuple):
    """One row of a firing's batch."""

    native_write: NativeWrite
    """The form of the write that is taken away."""
    name: str
    reading: ReadAs | None = None
    """Of what stands in its place; None for deletion."""
    amplitude: Size | None = None
    """None for deletion, which has none."""


Heads = Mapping[View, Sequence[ScoredHead]]
"""The heads that are edited together, at the same places in every view."""


def score_firings(run: NativeRun, heads: Heads, grid: Grid, offset: int) -> pd.DataFrame:
    """The records of some places; at a place every head is edited at once.

    The run is patched from the lowest of the heads' layers up. `offset` is the number of its first passage.
    """
    rows, some = _conditions(grid, list(heads)), next(iter(heads.values()))
    layers = sorted({head.site.layer for head in some})
    edits = {
        layer: _edits({view: [h for h in own if h.site.layer == layer] for view, own in heads.items()}, grid, offset)
        for layer in layers
    }
    first = some[0].firings
    token = run.tokens[first.passage, first.position]
    place = {"passage": first.passage + offset, "position": first.position, "token": token}
    about = {view: place | _about(run, own) for view, own in heads.items()}
    names = (*CONDITIONS, *grid.controls)
    found: list[dict[str, Tensor | str]] = []
    for timing in grid.timings:
        kl, moved, floor = _measured(run, edits, timing, grid)
        for (form, reading), amplitude in product(heads, grid.amplitudes):
            where = [rows.index(_row(n, View(form, reading), amplitude)) for n in names]
            for d, direction in enumerate(grid.directions):
                cell = dict(zip(CELL, (timing, form, reading, amplitude, direction), strict=True))
                own = kl[d][:, where]
                columns = {f"kl_{n}": own[:, i].mean(-1) for i, n in enumerate(names)}
                columns |= {f"top1_{n}": moved[:, i] for n, i in zip(names, where, strict=True)}
                if grid.horizon > 1:
                    steps = range(grid.horizon)
                    columns |= {step_column(n, s + 1): own[:, i, s] for s in steps for i, n in enumerate(names)}
                found.append({**about[View(form, reading)], **cell, "floor": floor[d], **columns})
    return _records(found, len(first.passage))


def _records(cells: Sequence[Mapping[str, Tensor | str]], places: int) -> pd.DataFrame:
    """The columns of every cell as records, those of one place together."""
    columns = {}
    for name, first in cells[0].items():
        if isinstance(first, str):
            columns[name] = np.tile(np.array([cell[name] for cell in cells], dtype=object), places)
        else:
            columns[name] = torch.stack([cast(Tensor, cell[name]).cpu() for cell in cells], 1).flatten().numpy()
    return pd.DataFrame(columns)


def _measured(run: NativeRun, edits: dict[int, Edits], timing: Timing, grid: Grid) -> tuple[Tensor, Tensor, Tensor]:
    """KLs `[D, R, C, horizon]`, whether the most likely token changes `[R, C]`, and rounding floors `[D, R]`."""
    weight = edits[run.layer].weight
    places, conditions = weight.shape[0], weight.shape[1]
    kl = torch.empty(len(grid.directions), places, conditions, grid.horizon, dtype=torch.float64)
    moved, floor = torch.empty(places, conditions, dtype=torch.bool), kl.new_empty(len(grid.directions), places)
    for scored in patched_logits(run, edits, timing, grid.horizon):
        least, size = smallest_kl(scored.native), max(1, CHUNK // scored.patched[0].numel())
        for which, native, edited, own in zip(*(torch.split(x, size) for x in (*scored, least)), strict=True):
            every = kl_divergences(native.unsqueeze(1), edited, grid.directions)
            kl[:, which] = every[:, :, 1:].cpu()
            floor[:, which] = every[:, :, 0].maximum(own).mean(-1).cpu()
            first, top = edited[:, 1:, 0], native[:, :1].argmax(-1, keepdim=True)
            moved[which] = (first.gather(-1, top.expand(*first.shape[:2], 1))[..., 0] < first.amax(-1)).cpu()
    return kl, moved, floor


def _conditions(grid: Grid, views: Sequence[View]) -> list[Condition]:
    """What is put in the writes' place, in the order of the rows."""
    names = (*CONDITIONS, *grid.controls)
    return list(dict.fromkeys(_row(name, view, size) for view, size, name in product(views, grid.amplitudes, names)))


def _row(name: str, view: View, amplitude: Size) -> Condition:
    """What is called so in a cell of the grid."""
    if name == "delete":
        return Condition(view.native_write, name)
    return Condition(view.native_write, "random" if name in SIZED else name, view.reading, SIZED.get(name, amplitude))


def _about(run: NativeRun, heads: Sequence[ScoredHead]) -> dict[str, Tensor]:
    """What stands at each place: of one head, or of all together and of each under its name."""
    streams = [run.streams[head.site.layer].heads(head.site.head) for head in heads]
    states = [state_norms(x, h.firings.passage, h.firings.position) for x, h in zip(streams, heads, strict=True)]
    if len(heads) == 1:
        f = heads[0].firings
        return {
            "feature": f.feature, "coefficient": f.coefficient, "cosine": f.cosine, "write_norm": f.norm,
            "share": f.norm / states[0],
        }  # fmt: skip
    parts: list[Tensor] = []
    own: dict[str, Tensor] = {}
    for head, state in zip(heads, states, strict=True):
        f, site = head.firings, head.site
        edited = f.coefficient > 0
        contribution, norm = f.coefficient * f.atom_norm, f.norm * edited
        parts.append(torch.stack([contribution * norm * f.cosine, contribution**2, norm**2, (state * edited) ** 2]))
        own |= {
            f"feature_{site}": f.feature, f"coefficient_{site}": f.coefficient, f"cosine_{site}": f.cosine,
            f"write_norm_{site}": f.norm, f"share_{site}": f.norm / state,
        }  # fmt: skip
    overlap, atoms, writes, squares = torch.stack(parts).sum(0)
    together = {
        "cosine": overlap / (atoms * writes).sqrt().clamp_min(1e-30), "write_norm": writes.sqrt(),
        "share": (writes / squares).sqrt(),
    }  # fmt: skip
    return together | own


def _edits(heads: Heads, grid: Grid, offset: int) -> Edits:
    """The edits of the heads of one layer: the components of each in turn."""
    some = next(iter(heads.values()))
    parts = [_head_edits({view: own[i] for view, own in heads.items()}, grid, offset) for i in range(len(some))]
    key, value, weight = (torch.cat([part[i] for part in parts], -1 if i == 2 else 1) for i in range(3))
    own, where = dict[int, NativeWrite](), list[int]()
    for head, (_, _, weights) in zip(some, parts, strict=True):
        own |= {len(where) + slot: form for slot, form in enumerate(_forms(heads))}
        where += [head.site.head] * weights.shape[-1]
    firings = some[0].firings
    return Edits(where, firings.passage, firings.position, key, value, weight, own)


def _forms(views: Iterable[View]) -> list[NativeWrite]:
    return list(dict.fromkeys(view.native_write for view in views))


def _head_edits(head: Mapping[View, ScoredHead], grid: Grid, offset: int) -> tuple[Tensor, Tensor, Tensor]:
    """Keys `[R, M, K]`, values `[R, M, V]` and weights `[R, C, M]` of one head's components: its own write in every
    form, then what replaces it. Every condition takes the own write away and adds some components, or none."""
    forms, some = _forms(head), next(iter(head.values())).firings
    writes = {view.native_write: one.firings for view, one in head.items()}
    keys, values = ([getattr(writes[form], side)[:, None] for form in forms] for side in ("key", "value"))
    used, made = len(forms), dict[tuple[str, ...], tuple[slice, Component]]()
    found = dict[tuple[str, View], tuple[slice, Component]]()
    replacing: tuple[Control | Literal["atom", "random"], ...] = ("atom", "random", *grid.controls)
    for name, view in product([name for name in replacing if name not in SIZED], head):
        own = name in OF_THE_WRITE or view.reading == "increment"
        key = (name, view.reading, view.native_write if own else "")
        if key not in made:
            part = replacement(head[view], name, grid.seed, offset)
            made[key] = slice(used, used + part.size.shape[1]), part
            used += part.size.shape[1]
            keys.append(part.key)
            values.append(part.value)
        found[name, view] = made[key]
    rows = _conditions(grid, list(head))
    weight = some.key.new_zeros(len(some.key), len(rows), used)
    for line, row in enumerate(rows):
        weight[:, line, forms.index(row.native_write)] = -1
        if row.reading is not None and row.amplitude is not None:
            where, part = found[row.name, View(row.native_write, row.reading)]
            weight[:, line, where] = part.size * _scale(part, writes[row.native_write], row.amplitude)
    return torch.cat(keys, 1), torch.cat(values, 1), weight * (some.coefficient > 0)[:, None, None]


def _scale(part: Component, write: Firings, amplitude: Size) -> Tensor:
    """What makes a sum of components as large as it is asked for, `[R, 1]`."""
    if amplitude == "coefficient":
        return torch.ones_like(part.size[:, :1])
    gram = torch.einsum("rik,rjk->rij", part.key, part.key) * torch.einsum("riv,rjv->rij", part.value, part.value)
    square = torch.einsum("ri,rij,rj->r", part.size, gram, part.size).clamp_min(1e-30)
    if amplitude == "norm":
        return (write.norm / square.sqrt())[:, None]
    along = torch.einsum("rik,rk->ri", part.key, write.key) * torch.einsum("riv,rv->ri", part.value, write.value)
    return ((part.size * along).sum(-1) / square)[:, None]
