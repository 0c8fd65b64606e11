"""What a host answers when the writes that belong to one fact are changed, fact by fact."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from writesae.causal.actions import Action, Edit, EraseWrite
from writesae.causal.budget import passages_at_once
from writesae.causal.engine import editing
from writesae.causal.schedule import Places
from writesae.corpus.facts import FactPassages
from writesae.errors import InputError
from writesae.hosts import Host
from writesae.types import NativeWrite, Site, Timing

ROWS = 256
"""Passages run at once, at most."""


class Cell(NamedTuple):
    """One head's write at one token of a fact's statement."""

    site: Site
    offset: int
    """Tokens from the name, which is 0; beyond the statement's length it stands in what follows."""

    def __str__(self) -> str:
        return f"{self.site}+{self.offset}"

    @classmethod
    def parse(cls, text: str) -> Cell:
        """Of a text like `L1.H1+3`; raises InputError for another one."""
        site, plus, offset = text.partition("+")
        if not plus or not offset.isdecimal():
            raise InputError(f"a write of a fact is named by its head and token, such as L1.H1+3, not {text!r}")
        return cls(Site.parse(site), int(offset))


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


def changed(
    host: Host,
    passages: FactPassages,
    cells: Sequence[Cell],
    action: Callable[[Site], Action],
    timing: Timing = "after_token",
) -> Answers:
    """The answers when one fact's writes at all `cells` are changed together, `[B, F, F]`: of whom, and whose question.

    `action` says what is added to the state of each head; the rows it sees are numbered by passage and then fact, and
    its places by the order of the head's cells. Raises InputError for no cell, and for one that lies outside a passage.
    """
    batch, facts = passages.begin.shape
    each = passages[np.repeat(np.arange(batch), facts)]
    edits = edits_at(each.tokens.shape, passages.begin.flatten(), cells, action, timing)
    return Answers(*(part.view(batch, facts, facts) for part in answered(host, each, edits)))


def edits_at(
    shape: tuple[int, ...],
    begin: NDArray[np.int64],
    cells: Sequence[Cell],
    action: Callable[[Site], Action],
    timing: Timing,
) -> list[Edit]:
    """An edit of each head of the cells, in rows of this `shape` whose statement begins at `begin`. Raises InputError
    as `changed` does."""
    offsets, start = [cell.offset for cell in cells], torch.from_numpy(begin)
    if not cells or int(start.min()) + min(offsets) < 0 or int(start.max()) + max(offsets) >= shape[1]:
        raise InputError(f"the writes at {', '.join(map(str, cells)) or 'no cell'} are not all inside the passages")
    edits = []
    for site in dict.fromkeys(cell.site for cell in cells):
        table = torch.full(shape, -1)
        for number, offset in enumerate(cell.offset for cell in cells if cell.site == site):
            table[torch.arange(len(table)), start + offset] = number
        edits.append(Edit(site, action(site), Places(table), timing))
    return edits


@torch.no_grad()
def answered(host: Host, passages: FactPassages, edits: Sequence[Edit] = ()) -> Answers:
    """The answers of passages, as they are or run with these edits of theirs, `[B, F]`."""
    tokens, asked, thing = (torch.from_numpy(x) for x in (passages.tokens, passages.asked, passages.thing))
    at_once = passages_at_once(host, tokens.shape[1], min(host.layers), read=asked.shape[1], most=ROWS)
    nats, said = [], []
    for begin in range(0, len(tokens), at_once):
        here = slice(begin, begin + at_once)
        with editing(host, edits, first=begin):
            logits = host.run(tokens[here], keep=asked[here]).cpu()
        nats.append(logits.log_softmax(-1).gather(-1, thing[here].unsqueeze(-1)).squeeze(-1))
        said.append(logits.argmax(-1))
    return Answers(torch.cat(nats), torch.cat(said))
