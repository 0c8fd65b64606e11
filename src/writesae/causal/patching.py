"""Score edits of single writes: firings x conditions, batched through the layers above the site only.

An edit of a write replaces the matrix that a token adds to one head's state. Every edit here is a weighted sum of a
few rank-1 components, each in one head, so the responses of the components are computed once and combined. Edits of
several layers are made together: a layer above an edited one answers with its own stream in the edited run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from writesae.causal.budget import rows_at_once
from writesae.causal.writes import no_delta_write
from writesae.hosts import KernelCall
from writesae.hosts.fork import NativeRun, Response, Rows
from writesae.recurrence import Stream, respond
from writesae.types import NativeWrite, Timing


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
    own: Mapping[int, NativeWrite] = field(default_factory=dict)
    """The components that are the head's own write at that token, natively `key value^T`, and in which form. Where an
    edit below changes what this layer writes at the token (`at_token`), they stand for the write of the edited run."""

    def __getitem__(self, index: Tensor) -> Edits:
        passage, position, key, value, weight = (
            x[index] for x in (self.passage, self.position, self.key, self.value, self.weight)
        )
        return Edits(self.heads, passage, position, key, value, weight, self.own)


class Scored(NamedTuple):
    """One batch of patched runs."""

    which: Tensor
    """`[r]`, indices of these edits."""
    native: Tensor
    """Native logits at the scored positions, `[r, horizon, vocabulary]`."""
    edited: Tensor
    """`[r, 1 + C, horizon, vocabulary]`: first the native logits once more, as the native run itself made them, rounded
    in its own way and nudged at their end; then those of every condition. What lies between the two native ones is the
    floor under which no effect can be seen."""

    @property
    def again(self) -> Tensor:
        """The native logits once more, `[r, horizon, vocabulary]`."""
        return self.edited[:, 0]

    @property
    def patched(self) -> Tensor:
        """Those of every condition, `[r, C, horizon, vocabulary]`."""
        return self.edited[:, 1:]


def first_step(timing: Timing) -> int:
    """Offset from the edited token to the first scored position."""
    return 0 if timing == "at_token" else 1


def patched_logits(
    run: NativeRun, edits: Edits | Mapping[int, Edits], timing: Timing, horizon: int = 1
) -> Iterator[Scored]:
    """Yield logits for every edit, in batches within the budget of memory.

    `edits` are those of the run's layer, or those of several layers by layer, at the same places and with as many
    conditions: a condition is made in all of them at once. Scored positions are `position + first_step(timing)` and
    the `horizon - 1` after it. The native run is a row of the same batch, so that both carry the same rounding.
    """
    layers = {run.layer: edits} if isinstance(edits, Edits) else dict(edits)
    first = next(iter(layers.values()))
    copies = first.weight.shape[1] + 1
    batch = rows_at_once(run, copies, horizon)
    order = first.position.argsort()
    for index in torch.split(order, batch) if len(order) else ():  # sorted: rows of a batch share a cache length
        rows = Rows(run, first.passage[index], first.position[index] + first_step(timing), horizon, copies)
        responses: dict[int, Response] = {}
        for layer, whole in layers.items():
            part = whole[index]
            if layer == min(layers):
                answer = edit_response(run, part, timing, horizon, layer)
                responses[layer] = lambda _, answer=answer: answer  # type: ignore[misc]
            else:
                responses[layer] = partial(upper_response, rows, part, timing, layer)
        logits = rows.logits(responses)
        native = logits[:, 0].clone()
        logits[:, 0] = run.nudged_logits(rows.passage, rows.positions)
        yield Scored(index, native, logits)


def edit_response(run: NativeRun, edits: Edits, timing: Timing, horizon: int, layer: int | None = None) -> Tensor:
    """What the edits add to the outputs of a layer with no edit below it, at the scored positions: `[R, 1 + C,
    horizon, H, V]`, native first. The layer is the run's if none is named."""
    skip = first_step(timing)
    places = edits.position[:, None] + torch.arange(horizon + skip)
    stream = run.streams[run.layer if layer is None else layer]
    heads = torch.tensor(edits.heads)
    local = stream.map(lambda x: x[edits.passage[:, None, None], places[:, :, None], heads])
    components = respond(local, edits.key.unsqueeze(1), edits.value.unsqueeze(1), timing == "at_token")[:, 0, skip:]
    combined = torch.einsum(
        "rcm,rtmv,mh->rcthv", edits.weight.to(components), components, _placed(edits, stream, components)
    )
    return torch.cat([torch.zeros_like(combined[:, :1]), combined], 1)


def upper_response(rows: Rows, edits: Edits, timing: Timing, layer: int, call: KernelCall) -> Tensor:
    """The same for a layer above an edited one, `[R, 1 + C, steps, H, V]`: every condition has its own stream."""
    copies, stream = rows.copies, call.stream
    local = stream.heads(edits.heads)
    key, value = (rows.repeat(x) for x in (edits.key, edits.value))
    if timing == "at_token":
        written = {form: _own_writes(rows, edits.heads, form, layer, local) for form in {*edits.own.values()}}
        for m, form in edits.own.items():
            key[:, m], value[:, m] = local.key[:, 0, m], written[form][:, m]
    else:  # the edited token has been left behind: only the transitions after it are the edited run's
        token = rows.run.streams[layer].heads(edits.heads).map(lambda x: x[edits.passage, edits.position].unsqueeze(1))
        before = token.map(rows.repeat)
        local = Stream(**{
            name: torch.cat([x, getattr(local, name)], 1)
            for name, x in vars(before).items() if x is not None
        })  # fmt: skip
    components = respond(local, key.unsqueeze(1), value.unsqueeze(1), timing == "at_token")[:, 0, first_step(timing) :]
    weight = torch.cat([torch.zeros_like(edits.weight[:, :1]), edits.weight], 1).flatten(0, 1).to(components)
    combined = torch.einsum("nm,ntmv,mh->nthv", weight, components, _placed(edits, stream, components))
    return combined.view(-1, copies, *combined.shape[1:])


def _own_writes(rows: Rows, heads: list[int], form: NativeWrite, layer: int, local: Stream) -> Tensor:
    """Value sides of the edited run's own writes at the edited token, `[R * copies, M, V]`."""
    value = local.value[:, 0]
    if form == "value" or local.erase_read is None:
        return value
    if local.erase_gate is None:
        raise no_delta_write()
    before = rows.repeat(rows.states(layer)[:, heads])
    return value - local.erase_gate[:, 0] * torch.einsum("nmkv,nmk->nmv", before, local.erase_read[:, 0])


def _placed(edits: Edits, stream: Stream, like: Tensor) -> Tensor:
    """Which component belongs to which head, `[M, H]`."""
    return nn.functional.one_hot(torch.tensor(edits.heads), stream.key.shape[2]).to(like)
