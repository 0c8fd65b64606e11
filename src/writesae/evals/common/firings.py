"""Firings of a dictionary: all of them over some passages, the strongest of every token, and what stands there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pandas as pd
import torch
from torch import Tensor

from writesae.causal.budget import passages_at_once
from writesae.causal.writes import HeadWrites, stream_writes
from writesae.errors import InputError
from writesae.evals.common.controls import Firings
from writesae.hosts import Host
from writesae.recurrence import Stream
from writesae.sae import SAE, Codes
from writesae.types import NativeWrite, ReadAs, Site


def runs(
    host: Host, site: Site, tokens: Tensor, memory: float | None = None
) -> Iterator[tuple[int, Stream, HeadWrites]]:
    """Recordings of passages `[B, T]` up to the site's layer, as many at a time as the budget of memory holds (GiB;
    None: `BUDGET`): (number of the first passage, the head's stream, its writes)."""
    at_once = passages_at_once(host, tokens.shape[1], site.layer, memory)
    for begin in range(0, len(tokens), at_once):
        recorded = host.record(tokens[begin : begin + at_once], [site.layer])[site.layer]
        own = recorded.heads(site.head)
        yield begin, own, stream_writes(own)


def all_firings(
    host: Host, sae: SAE, site: Site, tokens: Tensor, native_write: NativeWrite = "delta",
    memory: float | None = None, reading: ReadAs = "state",
) -> pd.DataFrame:  # fmt: skip
    """One row a firing: passage, position, feature, coefficient, order (0 for the largest coefficient of its token)
    and the cosine of the atom to the native write. Raises InputError where nothing fires."""
    table = firings_by_form(host, sae, site, tokens, (native_write,), memory, reading)
    return table.rename(columns={f"cosine_{native_write}": "cosine"})


@torch.no_grad()
def firings_by_form(
    host: Host, sae: SAE, site: Site, tokens: Tensor, native_writes: Sequence[NativeWrite],
    memory: float | None = None, reading: ReadAs = "state",
) -> pd.DataFrame:  # fmt: skip
    """The same with `cosine_delta` and `cosine_value`, for the forms of the write that are asked for.

    By increment a token fires one feature of a dictionary of states: the one that its write, in the first of the forms,
    raises most.
    """
    atoms = sae.atoms()
    tables = []
    for begin, _, writes in runs(host, site, tokens, memory):
        raised = reading == "increment" and sae.target == "state"
        codes = most_raised(sae, writes, native_writes[0]) if raised else writes.encode(sae)
        value, order = codes.value.sort(-1, descending=True)
        feature = codes.index.gather(-1, order)
        passage, position, slot = (value > 0).nonzero(as_tuple=True)
        feature, coefficient = feature[passage, position, slot], value[passage, position, slot]
        columns = {
            "passage": passage + begin, "position": position, "feature": feature, "coefficient": coefficient,
            "order": slot,
        }  # fmt: skip
        key, v, w = writes.written.key[passage, position], atoms.v[feature], atoms.w[feature]
        for form in native_writes:
            side = writes.side(form)[passage, position]
            norms = key.norm(dim=-1) * side.norm(dim=-1) * v.norm(dim=-1) * w.norm(dim=-1)
            columns[f"cosine_{form}"] = (key * v).sum(-1) * (side * w).sum(-1) / norms.clamp_min(1e-30)
        tables.append(pd.DataFrame({name: x.cpu().numpy() for name, x in columns.items()}))
    table = pd.concat(tables, ignore_index=True)
    if table.empty:
        raise InputError(f"no feature of the dictionary fires at {site} in {len(tokens)} passages")
    return table


def most_raised(sae: SAE, writes: HeadWrites, native_write: NativeWrite) -> Codes:
    """The feature that each token's write raises most, by how much, `[B, T, 1]`."""
    sides = zip(writes.written.key, writes.side(native_write), strict=True)
    tops = [sae.increments(key, value).max(-1, keepdim=True) for key, value in sides]  # one passage's features at once
    return Codes(torch.stack([top.indices for top in tops]), torch.stack([top.values for top in tops]))


def gather(
    sae: SAE, writes: HeadWrites, passage: Tensor, position: Tensor, feature: Tensor, coefficient: Tensor,
    native_write: NativeWrite,
) -> Firings:  # fmt: skip
    """Native writes and atoms at some firings, all `[R]`."""
    key, value = writes.written.key[passage, position], writes.side(native_write)[passage, position]
    atoms = sae.atoms()
    return Firings(passage, position, feature, coefficient, key, value, atoms.v[feature], atoms.w[feature])
