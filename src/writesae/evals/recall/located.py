"""Where a host keeps a fact: what deleting the write of each head at each token of the statement costs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from writesae.corpus.facts import FactPassages
from writesae.evals.recall.changed import Answers, Cell, answered, changed, deletion
from writesae.evals.recall.summary import ALL
from writesae.hosts import Host
from writesae.types import Timing

ENOUGH = 0.05
"""Share still right at which the binding writes are complete."""
GROUPS = 4
"""Groups that are taken together in search of them, at most."""


def cells_of(host: Host, span: int) -> list[Cell]:
    """Every head at every one of the `span` tokens from a statement's first on."""
    return [Cell(site, offset) for site in host.sites for offset in range(span)]


def groups_of(host: Host, span: int) -> list[list[Cell]]:
    """All heads of a layer at one token, for every layer and token."""
    groups: dict[tuple[int, int], list[Cell]] = {}
    for cell in cells_of(host, span):
        groups.setdefault((cell.site.layer, cell.offset), []).append(cell)
    return list(groups.values())


def costs(passages: FactPassages, before: Answers, after: Answers) -> pd.DataFrame:
    """What changing one fact's writes cost, a row a fact that stands: `passage`, `fact`, `lost` (nats of its answer),
    `right` (whether it still is), `neighbours` and `others` (mean nats lost by the facts told just before and after it,
    and by all others), `others_right` (the share of all others), `said` (the token that is said instead)."""
    lost = before.nats[:, None] - after.nats  # [B, F, F]
    right = after.said == torch.from_numpy(passages.thing)[:, None]
    facts = torch.arange(lost.shape[1])
    apart = (facts[:, None] - facts).abs()
    stands = torch.from_numpy(passages.stands)[:, None]
    passage, fact = (torch.from_numpy(x) for x in np.nonzero(passages.stands))

    def own(x: Tensor) -> Tensor:
        return x[passage, fact, fact]

    def mean(x: Tensor, some: Tensor) -> Tensor:
        among = stands & some
        return ((x * among).sum(-1) / among.sum(-1))[passage, fact]

    numbers = {
        "passage": passage, "fact": fact, "lost": own(lost), "right": own(right), "neighbours": mean(lost, apart == 1),
        "others": mean(lost, apart > 0), "others_right": mean(right.float(), apart > 0), "said": own(after.said),
    }  # fmt: skip
    return pd.DataFrame({name: column.numpy() for name, column in numbers.items()})


def deleted(
    host: Host,
    passages: FactPassages,
    cells: Sequence[Cell],
    timing: Timing = "after_token",
    before: Answers | None = None,
) -> pd.DataFrame:
    """The costs of deleting each fact's writes at all the cells together; `before` are the native answers."""
    before = answered(host, passages) if before is None else before
    return costs(passages, before, changed(host, passages, cells, deletion(host), timing))


def located(
    host: Host, passages: FactPassages, groups: Iterable[Sequence[Cell]], timing: Timing = "after_token"
) -> pd.DataFrame:
    """The map: the costs of deleting the cells of each group together, with their `layer`, `head` (`ALL` where there
    are several) and `offset`."""
    before, tables = answered(host, passages), []
    for cells in groups:
        tables.append(deleted(host, passages, cells, timing, before).assign(**_where(cells)))
    return pd.concat(tables, ignore_index=True)


class Binding(NamedTuple):
    """The writes that together hold a fact."""

    cells: tuple[Cell, ...]
    """By layer, head and token."""
    right: float
    """Share of facts still right without them, on the passages that they were found on."""
    lost: float
    """Median nats that a fact then loses."""


def binding(
    host: Host, passages: FactPassages, table: pd.DataFrame, span: int, timing: Timing = "after_token"
) -> Binding:
    """The fewest cells that cost the fact together.

    First all heads of the layer and token that cost the fact most in the map `table`, and others least, and further
    such groups until 5% are right or there are four, each the one that costs most together with those before. Then
    cells are left out, many at a time at first and those of the smallest cost alone before others, as long as no more
    than 5% are right (or no more than were, where the groups left more), until none can be left out any more.
    """
    before = answered(host, passages)

    def without(cells: Sequence[Cell]) -> tuple[float, float]:
        found = deleted(host, passages, cells, timing, before)
        return float(found.right.mean()), float(found.lost.median())

    alone = (table.lost - table.others.clip(lower=0)).groupby([table.layer, table["head"], table.offset]).median()
    groups = sorted(groups_of(host, span), key=lambda group: -_cost(alone, group))[: 2 * GROUPS]
    taken = groups.pop(0)
    right, lost = without(taken)
    for _ in range(GROUPS - 1):
        if right <= ENOUGH or not groups:
            break
        tried = [without([*taken, *group]) for group in groups]
        best = max(range(len(groups)), key=lambda i: (-tried[i][0], tried[i][1]))
        if tried[best][0] >= right:
            break
        (right, lost), taken = tried[best], [*taken, *groups.pop(best)]
    cells = sorted(taken, key=lambda cell: _cost(alone, [cell]))
    enough, chunk = max(right, ENOUGH), len(cells)
    while chunk > 1 or len(cells) > 1:
        chunk, thinner = max(1, chunk // 2), False
        for part in [cells[i : i + chunk] for i in range(0, len(cells), chunk)]:
            fewer = [cell for cell in cells if cell not in part]
            if fewer and (found := without(fewer))[0] <= enough:
                (right, lost), cells, thinner = found, fewer, True
        if chunk == 1 and not thinner:
            break
    return Binding(tuple(sorted(cells)), right, lost)


def _cost(alone: pd.Series[float], group: Sequence[Cell]) -> float:
    """What a group costs in the map."""
    return float(alone.get(tuple(_where(group).values()), 0.0))


def _where(group: Sequence[Cell]) -> dict[str, int]:
    first = group[0]
    return {"layer": first.site.layer, "head": ALL if len(group) > 1 else first.site.head, "offset": first.offset}
