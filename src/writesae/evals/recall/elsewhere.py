"""A binding write somewhere else: its value under another name, and the whole of it in a passage without the fact."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from writesae.causal.actions import Transplant, Write
from writesae.corpus.facts import FactPassages
from writesae.evals.recall.changed import Answers, Cell, answered, changed, edits_at, written_form
from writesae.evals.recall.recovery import recorded, sides
from writesae.hosts import Host
from writesae.types import Site, Timing


def writes_at(host: Host, passages: FactPassages, cells: Sequence[Cell]) -> dict[Site, tuple[Tensor, Tensor]]:
    """Key and value sides of every fact's writes at the cells, by head: `[B, F, places, d]` each."""
    found = {}
    begin = torch.from_numpy(passages.begin)
    for site in dict.fromkeys(cell.site for cell in cells):
        at = torch.stack([begin + cell.offset for cell in cells if cell.site == site], -1)
        parts = []
        for first, stream in recorded(host, passages, site):
            own = [x.cpu() for x in sides(host, stream)]
            here = at[first : first + len(own[0])]
            parts.append([x[torch.arange(len(x))[:, None, None], here] for x in own])
        found[site] = (torch.cat([key for key, _ in parts]), torch.cat([value for _, value in parts]))
    return found


def exchanged(host: Host, passages: FactPassages, cells: Sequence[Cell], timing: Timing) -> pd.DataFrame:
    """Each fact's writes get the value sides of the next fact's, and keep their own keys: whether the model then says
    the next fact's thing. `kind` "exchanged", `passage`, `fact`, `right`, `nats` of that thing, `said`."""
    held, form = writes_at(host, passages, cells), written_form(host)
    other = replace(passages, thing=np.roll(passages.thing, -1, 1))

    def put(site: Site) -> Transplant:
        key, value = held[site]
        return Transplant(Write(key.flatten(0, 1), value.roll(-1, 1).flatten(0, 1)), form)

    after, fact = changed(host, other, cells, put, timing), torch.arange(other.thing.shape[1])
    row, column = np.indices(other.thing.shape)
    said = Answers(after.nats[:, fact, fact].flatten(), after.said[:, fact, fact].flatten())
    return _table("exchanged", row.flatten(), column.flatten(), said, other.thing.flatten())


def installed(host: Host, passages: FactPassages, cells: Sequence[Cell], timing: Timing) -> pd.DataFrame:
    """Each passage is asked, in the place of one of its questions, for a name that it never told, and the writes that
    tie that name to its thing in the next passage are added to those of the question's own fact: whether the model says
    that thing. Rows as of `exchanged`, `kind` "installed", and "without" where nothing was added; none for a passage
    whose next one tells no other name."""
    count, facts = passages.begin.shape
    pairs = []
    for number in range(count):
        next_one = (number + 1) % count
        new = np.flatnonzero(~np.isin(passages.name[next_one], passages.name[number]))
        pairs += [(number, own, next_one, int(new[own % len(new)])) for own in range(facts)] if len(new) else []
    row, fact, donor, other = np.array(pairs, np.int64).reshape(-1, 4).T
    if not pairs:
        return _table("installed", row, fact, Answers(torch.zeros(0), torch.zeros(0)), row)
    name, thing = passages.name[donor, other], passages.thing[donor, other]
    begin, end, asked = (x[row, fact] for x in (passages.begin, passages.end, passages.asked))
    tokens = passages.tokens[row].copy()
    tokens[np.arange(len(row)), asked - (end - begin) + 1] = name
    stands = np.ones((len(row), 1), bool)
    one = [x[:, None] for x in (name, thing, begin, end, asked)]
    asking, held = (
        FactPassages(tokens, one[0], one[1], one[2], one[3], one[4], stands),
        writes_at(host, passages, cells),
    )

    def put(site: Site) -> Transplant:
        return Transplant(Write(*(x[donor, other] for x in held[site])), None)

    edits = edits_at(tokens.shape, begin, cells, put, timing)
    tables = [
        _table(kind, row, fact, Answers(*(x[:, 0] for x in answered(host, asking, some))), thing)
        for kind, some in (("installed", edits), ("without", ()))
    ]
    return pd.concat(tables, ignore_index=True)


def _table(
    kind: str, passage: NDArray[np.int64], fact: NDArray[np.int64], answers: Answers, wanted: NDArray[np.int64]
) -> pd.DataFrame:
    said = answers.said.numpy()
    what = {"kind": kind, "passage": passage, "fact": fact, "right": said == wanted}
    return pd.DataFrame({**what, "nats": answers.nats.numpy(), "said": said})
