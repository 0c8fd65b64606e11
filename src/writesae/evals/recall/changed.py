"""What a host answers when the writes that belong to one fact are changed, fact by fact."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from writesae.causal.actions import Action, Edit, EraseWrite
from writesae.causal.engine import editing
from writesae.causal.schedule import Places
from writesae.corpus.facts import FactPassages
from writesae.errors import InputError
from writesae.hosts import Host
from writesae.types import NativeWrite, Site, Timing

ROWS = 256
"""Passages run at once."""


class Cell(NamedTuple):
    """One head's write at one token of a fact's statement."""

    site: Site
    offset: int
    """Tokens from the name, which is 0; beyond the statement's length it stands in what follows."""

    def __str__(self) -> str:
        return f"{self.site}+{self.offset}"


class Answers(NamedTuple):
    """What is answered to the questions of `F` facts a passage."""

    nats: Tensor
    """Log probability of the thing that was told, `[..., F]`, float32."""
    said: Tensor
    """The likeliest token, `[..., F]`."""


def written_form(host: Host) -> NativeWrite:
    """The form in which this host's writes are deleted: what a token really adds, or, where that is two matrices
    (RWKV-7), the native write."""
    return "value" if any(layer.family == "rwkv7" for layer in host.layers.values()) else "delta"


def deletion(host: Host) -> Callable[[Site], Action]:
    """Take every head's write out."""
    what = EraseWrite(written_form(host))
    return lambda site: what


def native(host: Host, passages: FactPassages) -> Answers:
    """The answers of passages as they are, `[B, F]`."""
    runs = list(_runs(host, passages, torch.arange(len(passages)), ()))
    return Answers(*(torch.cat(part) for part in zip(*runs, strict=True)))


def changed(
    host: Host,
    passages: FactPassages,
    cells: Sequence[Cell],
    action: Callable[[Site], Action],
    timing: Timing = "after_token",
) -> Answers:
    """The answers when one fact's writes at all `cells` are changed together, `[B, F, F]`: of whom, and whose question.

    `action` says what is added to the state of each head. Raises InputError for no cell, and for one that lies outside
    a passage.
    """
    batch, facts = passages.begin.shape
    begin = torch.from_numpy(passages.begin).flatten()
    offsets = [cell.offset for cell in cells]
    last = passages.tokens.shape[1] - 1
    if not cells or int(begin.min()) + min(offsets) < 0 or int(begin.max()) + max(offsets) > last:
        raise InputError(f"the writes at {', '.join(map(str, cells)) or 'no cell'} are not all inside the passages")
    edits = []
    for site in dict.fromkeys(cell.site for cell in cells):
        table = torch.full((batch * facts, last + 1), -1)
        for cell in cells:
            if cell.site == site:
                table[torch.arange(batch * facts), begin + cell.offset] = 0
        edits.append(Edit(site, action(site), Places(table), timing))
    runs = list(_runs(host, passages, torch.arange(batch).repeat_interleave(facts), edits))
    return Answers(*(torch.cat(part).view(batch, facts, facts) for part in zip(*runs, strict=True)))


@torch.no_grad()
def _runs(host: Host, passages: FactPassages, of: Tensor, edits: Sequence[Edit]) -> Iterator[Answers]:
    tokens, asked, thing = (torch.from_numpy(x) for x in (passages.tokens, passages.asked, passages.thing))
    for begin in range(0, len(of), ROWS):
        here = of[begin : begin + ROWS]
        with editing(host, edits, first=begin):
            logits = host.run(tokens[here], keep=asked[here]).cpu()
        nats = logits.log_softmax(-1).gather(-1, thing[here].unsqueeze(-1)).squeeze(-1)
        yield Answers(nats, logits.argmax(-1))
