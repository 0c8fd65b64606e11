"""Edited runs of whole passages: the edits that forked rows make, made in the passage itself.

Here several edits of one passage can be made together. A token's own write is then what the head writes in the edited
run: once a write is gone, a head with erase terms writes something else at the next token.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from writesae.causal.actions import Edit
from writesae.causal.budget import passages_at_once, positions_read
from writesae.causal.divergence import token_losses
from writesae.causal.engine import editing
from writesae.causal.patching import Edits
from writesae.causal.schedule import Places
from writesae.causal.seen import Seen
from writesae.hosts import Host
from writesae.types import Site, Timing

TOKENS = 4096
"""Most tokens a batch of passages: beyond that nothing gets faster."""


@dataclass(frozen=True, eq=False)
class Components:
    """What one head gets at the places of `Edits`: in each row of the pass those of one condition."""

    edits: Edits
    members: tuple[int, ...]
    """The components in this head."""
    condition: Tensor
    """`[rows]`."""

    def matrix(self, seen: Seen, place: Tensor) -> Tensor:
        """`sum_m weight_m key_m value_m^T`, with what the head writes now for its own components, `[B, K, V]`."""
        edits, at = self.edits, place.clamp_min(0).to(self.edits.weight.device)
        weight = edits.weight[at, self.condition.to(at.device)[seen.row.to(at.device)]].to(seen.key)
        whole = torch.zeros_like(seen.state)
        for m in self.members:
            if m in edits.own:
                matrix = seen.write(edits.own[m])
            else:
                matrix = edits.key[at, m].to(seen.key)[:, :, None] * edits.value[at, m].to(seen.key)[:, None, :]
            whole = whole + weight[:, m, None, None] * matrix
        return whole

    def __str__(self) -> str:
        return f"{len(self.members)} matrices at {len(self.edits.position)} places"


def whole_passes(edits: Mapping[int, Edits], timing: Timing, places: Tensor, condition: Tensor) -> list[Edit]:
    """The edits, by layer, of passes in which row `n` makes those of condition `condition[n]` at the places
    `places[n, t]` (`[rows, T]`, -1: none)."""
    made = []
    for layer, part in edits.items():
        for head in sorted(set(part.heads)):
            members = tuple(m for m, own in enumerate(part.heads) if own == head)
            used = (part.weight[:, :, list(members)] != 0).any(-1).to(places.device)  # [R, C]
            mine = torch.where(used[places.clamp_min(0), condition[:, None]], places, -1)
            made.append(Edit(Site(layer, head), Components(part, members, condition), Places(mine), timing))
    return made


@torch.no_grad()
def edited_logits(
    host: Host, tokens: Tensor, edits: Sequence[Edit], keep: int | Tensor, memory: float | None = None
) -> Iterator[tuple[slice, Tensor]]:
    """Run passages `[N, T]` with edits that speak of all of them, by row, as many at a time as the budget holds:
    (which, their logits at the positions kept, as by `Host.run`)."""
    layer = min((edit.site.layer for edit in edits), default=0)
    for part in batches(host, tokens, layer, keep, memory):
        with editing(host, edits, first=part.start):
            yield part, host.run(tokens[part], keep=keep)


def batches(host: Host, tokens: Tensor, layer: int, keep: int | Tensor, memory: float | None = None) -> Iterator[slice]:
    """Which of passages `[N, T]` are run at once, as many as the budget holds, changed from a layer up."""
    length = tokens.shape[1]
    at_once = passages_at_once(host, length, layer, memory, positions_read(keep, length), most=max(1, TOKENS // length))
    yield from (slice(begin, begin + at_once) for begin in range(0, len(tokens), at_once))


def edited_losses(
    host: Host, tokens: Tensor, edits: Mapping[int, Edits], timing: Timing, memory: float | None = None
) -> Tensor:
    """Negative log-likelihood of every next token of passages `[B, T]`, with all edits of a passage made together, in
    several layers too: `[1 + C, B, T - 1]` by condition, native first, nats, float64."""
    first = next(iter(edits.values()))
    batch, conditions = len(tokens), first.weight.shape[1]
    places = torch.full(tokens.shape, -1)
    places[first.passage.cpu(), first.position.cpu()] = torch.arange(len(first.position))
    if int((places >= 0).sum()) < len(first.position):
        raise ValueError("two edits of one passage stand at one position: give them as components of one")
    every = torch.cat([torch.full_like(places, -1), *[places] * conditions])
    condition = torch.arange(conditions).repeat_interleave(batch)
    plan = whole_passes(edits, timing, every, torch.cat([torch.zeros_like(condition[:batch]), condition]))
    copies = tokens.repeat(1 + conditions, 1)
    losses = [token_losses(x, copies[part]) for part, x in edited_logits(host, copies, plan, 0, memory)]
    return torch.cat(losses).view(1 + conditions, batch, -1)
