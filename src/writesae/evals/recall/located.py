"""Where a host keeps a fact: what deleting the write of each head at each token of the statement costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from writesae.corpus.facts import FactPassages
from writesae.evals.recall.changed import Answers, Cell, changed, deletion, native
from writesae.hosts import Host
from writesae.types import Site, Timing

ENOUGH = 0.05
"""Share still right at which the binding writes are complete."""
MOST = 6
"""Cells that are looked for, at most."""
TRIED = 16
"""Cells that are tried for a place among them."""


def cells_of(host: Host, span: int) -> list[Cell]:
    """Every head at every one of the `span` tokens from a statement's first on."""
    return [Cell(site, offset) for site in host.sites for offset in range(span)]


def costs(passages: FactPassages, before: Answers, after: Answers) -> pd.DataFrame:
    """What changing one fact's writes cost, a row a fact that stands: `passage`, `fact`, `lost` (nats of its answer),
    `right` (whether it still is), `others` (mean nats lost by the other facts), `others_right` (the share of them)."""
    lost = before.nats[:, None] - after.nats  # [B, F, F]
    right = after.said == torch.from_numpy(passages.thing)[:, None]
    rest = torch.from_numpy(passages.stands)[:, None] & ~torch.eye(lost.shape[1], dtype=torch.bool)
    passage, fact = (torch.from_numpy(x) for x in np.nonzero(passages.stands))

    def own(x: Tensor) -> Tensor:
        return x[passage, fact, fact]

    def mean(x: Tensor) -> Tensor:
        return ((x * rest).sum(-1) / rest.sum(-1))[passage, fact]

    columns = {"lost": own(lost), "right": own(right), "others": mean(lost), "others_right": mean(right.float())}
    numbers = {"passage": passage, "fact": fact} | columns
    return pd.DataFrame({name: column.numpy() for name, column in numbers.items()})


def deleted(
    host: Host,
    passages: FactPassages,
    cells: Sequence[Cell],
    timing: Timing = "after_token",
    before: Answers | None = None,
) -> pd.DataFrame:
    """The costs of deleting each fact's writes at all the cells together; `before` are the native answers."""
    before = native(host, passages) if before is None else before
    return costs(passages, before, changed(host, passages, cells, deletion(host), timing))


def located(host: Host, passages: FactPassages, span: int, timing: Timing = "after_token") -> pd.DataFrame:
    """The map: the costs of deleting each cell alone, with its `layer`, `head` and `offset`."""
    before = native(host, passages)
    tables = [
        deleted(host, passages, [cell], timing, before).assign(
            layer=cell.site.layer, head=cell.site.head, offset=cell.offset
        )
        for cell in cells_of(host, span)
    ]
    return pd.concat(tables, ignore_index=True)


@dataclass(frozen=True)
class Binding:
    """The writes that together hold a fact."""

    cells: tuple[Cell, ...]
    """In the order in which they were found."""
    right: float
    """Share of facts still right without them, on the passages that they were found on."""


def binding(host: Host, passages: FactPassages, table: pd.DataFrame, timing: Timing = "after_token") -> Binding:
    """The fewest cells that cost the fact, found greedily: first the one that costs most in the map `table`, then
    whichever costs most together with those before, until 5% are right or there are six.

    The sixteen cells that cost most alone are tried.
    """
    medians = table.groupby(["layer", "head", "offset"]).lost.median().sort_values(ascending=False)
    best = [Cell(Site(int(layer), int(head)), int(offset)) for layer, head, offset in medians.index[:TRIED]]
    before, chosen, right = native(host, passages), list[Cell](), 1.0
    while right > ENOUGH and len(chosen) < MOST:
        tried = {cell: deleted(host, passages, [*chosen, cell], timing, before) for cell in best if cell not in chosen}
        cell = max(tried, key=lambda c: float(tried[c].lost.median()))
        chosen.append(cell)
        right = float(tried[cell].right.mean())
    return Binding(tuple(chosen), right)
