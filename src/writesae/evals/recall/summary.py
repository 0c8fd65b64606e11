"""What the records say, in numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated

import numpy as np
import pandas as pd

from writesae.evals.common.cells import Column, cells, shared
from writesae.evals.common.stats import Interval, Share, clustered, clustered_ratio, share, spearman
from writesae.evals.recall import RecallConfig
from writesae.show import words

ALL = -1
"""In the place of a head's number: all heads of the layer."""
FIRST = ("delete", "other", "everything", "attention")
"""Conditions that put nothing in a write's place."""
EDGES = (0, 32, 64, 128, 256, 512, 1 << 30)
"""Tokens from the thing to the question."""
BY = ("condition", "dictionary", "reading", "amplitude")
"""What tells changes of a fact\u2019s writes apart."""
HIGH, LOW = 0.9, 0.7
"""Cosines from which an atom stands for a pair."""

FACT = {"passage": "number of the passage", "fact": "number of the fact within it, in the order of telling"}
COST = {
    "lost": "nats that its answer loses",
    "right": "whether it is still right",
    "neighbours": "mean nats that the facts told just before and after it lose",
    "others": "mean nats that all other facts lose",
    "others_right": "share of these that are right",
}
COLUMNS = FACT | COST | {
    "condition": "what is done to the fact's writes: delete, everything (those of every head from the name on; "
    "attention where the host has some, which is all that is left then), other (other writes at the same tokens "
    "deleted), random, atom, flat_svd, nearest (by cosine), all_active",
    "dictionary": "of what that is: states or writes; empty where there is none",
    "reading": "how the dictionary is read: state, increment or write; empty where it is not",
    "amplitude": "how large what stands in its place is: coefficient, norm or projection; empty for nothing",
    "draw": "which set of other writes",
    "said": "what is answered",
}  # fmt: skip
PLACE = {"layer": "layer", "head": "head, -1 for all of the layer together", "offset": "tokens from the name on"}
MORE = {
    "native": FACT | {
        "facts": "facts that the passage tells", "far": "whether sentences stand between facts and questions",
        "distance": "tokens from the thing to the end of its question", "nats": "log probability of the answer",
        "right": "whether it is what is said",
    },
    "map": FACT | COST | PLACE | {
        "token": "what stands there", "exact": "what the writes give the answer's log odds, to first order",
    },
    "binding": {
        "cell": "head and token of a write",
        "share": "its norm over that of the head's state after it, the median over facts",
        "right": "share of facts right without all of them, where they were found",
        "lost": "median nats that a fact then loses",
    },
    "elsewhere": FACT | {
        "kind": "exchanged (the next fact's value under this fact's key), installed (under a name that the passage "
        "does not tell) or without (the same question, nothing added)",
        "right": "whether the thing that belongs to the moved write is said", "nats": "its log probability",
        "said": "what is said",
    },
    "found": FACT | {
        "how": "exact first order or closed form", "rank": "rank of the first binding write, 1 for the largest of all",
        "writes": "writes before the answer, of all heads",
    },
    "said": {
        "condition": "as in the records, or native", **dict.fromkeys(BY[1:], "as there"),
        "fact": "whose writes are changed, -1 for none", "asked": "whose question", "name": "its name",
        "thing": "its thing", "said": "what is answered", "right": "whether that is the thing",
        "nats": "log probability of the thing",
    },
    "recovery": {
        "cell": "the write", "dictionary": "states, writes, pca, kmeans or random",
        "features": "its atoms", "of": "pair, name or thing", "name": "name, empty for none", "thing": "likewise",
        "count": "writes of it", "coherence": "mean cosine of a pair's writes to their mean; NaN for names and things",
        "alike": "largest cosine of another pair's mean write to it, NaN likewise",
        "best": "largest cosine of an atom to a pair's mean write, NaN likewise",
        "matched": "that of the atom assigned to it, NaN likewise or without one",
        "auroc": "of the feature that is best for it on even passages, on odd ones; NaN where either has none",
    },
}  # fmt: skip


@dataclass(frozen=True)
class Recalled:
    """Native recall at one number of facts, or at one distance."""

    facts: int
    nearest: int | None
    """Tokens from thing to question, at least; None for passages of one number of facts."""
    farthest: int | None
    """And at most."""
    right: Share


@dataclass(frozen=True)
class Spot:
    """What deleting the writes of one head, or of all of a layer, at one token of the statement costs."""

    layer: int
    head: int
    """-1 for all."""
    offset: int
    token: str
    lost: float
    """Median nats of the fact's own answer."""
    neighbours: float
    """Mean nats of the facts told before and after it."""
    others: float
    """Mean nats of all others."""
    right: float
    """Share of facts still right."""
    exact: float
    """Mean of what they give the answer's log odds, to first order."""

    @property
    def name(self) -> str:
        """The heads."""
        return f"L{self.layer}" + (", all" if self.head == ALL else f".H{self.head}")


@dataclass(frozen=True)
class Cost:
    """What is left of facts under one change of the writes that hold them."""

    condition: Annotated[str, Column("in the writes\u2019 place", words.condition)]
    dictionary: Annotated[str, Column("of", lambda text: text or words.MISSING)]
    reading: Annotated[str, Column("read by", lambda text: text or words.MISSING)]
    amplitude: Annotated[str, Column("size", lambda text: text or words.MISSING)]
    right: Annotated[Share, *shared("still right")]
    """Facts whose answer is right; interval by passage."""
    lost: Annotated[float, Column("nats lost, median", lambda x: words.decimals(x, 2))]
    quartiles: Annotated[Interval, Column("quartiles", lambda q: f"{words.decimals(q[0])} to {words.decimals(q[1])}")]
    """Of the nats lost."""
    back: Annotated[float, Column("comes back", words.percent)]
    """Of the nats that deletion costs, the share that this does not: 1 - sum of lost / sum of lost on deletion; NaN
    where nothing is put in the place."""
    back_interval: Annotated[Interval, Column("95 % interval of it", words.interval)]
    wins: Annotated[Share | None, Column("closer than deletion", lambda x: words.percent(x and x.value))]
    """Facts whose answer loses less than on deletion; None where nothing is put in the place."""
    others: Annotated[float, Column("others lose, mean", lambda x: words.decimals(x, 3))]
    others_right: Annotated[float, Column("others right", words.percent)]


@dataclass(frozen=True)
class Moved:
    """What a binding write does somewhere else."""

    kind: str
    right: Share
    """Questions to which the moved write's thing is said."""
    nats: float
    """Its log probability, median."""


@dataclass(frozen=True)
class Ranked:
    """Where attribution ranks the first of the binding writes."""

    how: str
    first: Share
    """Facts for which it is the largest of all writes."""
    reciprocal: float
    """Mean of one over its rank."""
    interval: Interval
    """By passage."""
    chance_first: float
    """What a random order would reach."""
    chance_reciprocal: float


@dataclass(frozen=True)
class Recovered:
    """Known pairs against one dictionary at one cell."""

    cell: str
    dictionary: str
    features: int
    pairs: int
    coherence: float
    """Mean cosine of a pair's writes to their mean."""
    alike: float
    """Median over pairs of the largest cosine of another pair's mean write: an atom at a cosine no higher does not tell
    the two apart."""
    best: Share
    """Pairs with an atom at cosine 0.9."""
    best_low: Share
    """At 0.7."""
    matched: Share
    """The same with every atom counted for one pair."""
    matched_low: Share
    median: float
    """Median over pairs of the best cosine."""
    auroc_pair: float
    """Mean over pairs of the AUROC of one feature."""
    auroc_name: float
    auroc_thing: float


@dataclass(frozen=True)
class Summary:
    """Everything."""

    facts: int
    """A passage, where writes are changed."""
    recalled: tuple[Recalled, ...]
    """By number of facts, those of the main passages among them."""
    distances: tuple[Recalled, ...]
    """By distance."""
    spots: tuple[Spot, ...]
    """The map."""
    first_order: float
    """Rank correlation over the map's single writes of the exact first order with what deletion costs."""
    cells: tuple[str, ...]
    """The writes that hold a fact together."""
    costs: tuple[Cost, ...]
    moved: tuple[Moved, ...]
    ranked: tuple[Ranked, ...]
    recovered: tuple[Recovered, ...]

    def cost(self, condition: str, **how: str) -> Cost | None:
        """The first of a condition that has these; None where it was not measured."""
        how = {"condition": condition, **how}
        return next((c for c in self.costs if all(getattr(c, k) == v for k, v in how.items())), None)

    @property
    def native(self) -> Share:
        """Recall of the main passages."""
        return next(one.right for one in self.recalled if one.facts == self.facts)


def summarise(tables: Mapping[str, pd.DataFrame], config: RecallConfig) -> Summary:
    """The summary of the records."""
    spots = tuple(_spots(tables["map"]))
    single = [spot for spot in spots if spot.head != ALL]
    agreement = spearman([spot.exact for spot in single], [spot.lost for spot in single])
    return Summary(
        facts=config.facts, recalled=tuple(_recalled(tables["native"], config.seed)),
        distances=tuple(_distances(tables["native"], config.seed)), spots=spots, first_order=agreement.statistic,
        cells=tuple(tables["binding"].cell), costs=tuple(_costs(tables["records"], config.seed)),
        moved=tuple(_moved(tables["elsewhere"], config.seed)),
        ranked=tuple(_ranked(tables["found"], len(tables["binding"]), config.seed)),
        recovered=tuple(_recovered(tables["recovery"], config.seed)),
    )  # fmt: skip


def _recalled(native: pd.DataFrame, seed: int) -> list[Recalled]:
    near = native[~native.far]
    return [
        Recalled(int(how["facts"]), None, None, share(part.right, part.passage, seed))
        for how, part in cells(near, ("facts",), sort=True)
    ]


def _distances(native: pd.DataFrame, seed: int) -> list[Recalled]:
    far, found = native[native.far], []
    for low, high in pairwise(EDGES):
        part = far[far.distance.between(low, high - 1)]
        if len(part):
            farthest = min(high - 1, int(part.distance.max()))
            found.append(Recalled(int(part.facts.iloc[0]), low, farthest, share(part.right, part.passage, seed)))
    return found


def _spots(mapped: pd.DataFrame) -> list[Spot]:
    found = []
    for how, part in cells(mapped, ("layer", "head", "offset", "token"), sort=True):
        neighbours, others, right, exact = (float(part[x].mean()) for x in ("neighbours", "others", "right", "exact"))
        lost = float(part.lost.median())
        found.append(Spot(**how, lost=lost, neighbours=neighbours, others=others, right=right, exact=exact))
    return found


def _costs(records: pd.DataFrame, seed: int) -> list[Cost]:
    gone = records[records.condition == "delete"].set_index(["passage", "fact"]).lost
    found = []
    for how, part in cells(records, BY):
        right, low, high = share(part.right, part.passage, seed), *part.lost.quantile([0.25, 0.75])
        back, bounds, wins = float("nan"), Interval(float("nan"), float("nan")), None
        if how["condition"] not in FIRST and gone.sum() > 0:
            of = gone.loc[pd.MultiIndex.from_frame(part[["passage", "fact"]])].to_numpy()
            less = of - part.lost.to_numpy()
            back, wins = float(less.sum() / of.sum()), share(less > 0, part.passage, seed)
            bounds = clustered_ratio(less, of, part.passage, seed)
        cost = Cost(
            **how, right=right, lost=float(part.lost.median()), quartiles=Interval(float(low), float(high)), back=back,
            back_interval=bounds, wins=wins, others=float(part.others.mean()),
            others_right=float(part.others_right.mean()),
        )  # fmt: skip
        found.append(cost)
    return found


def _moved(elsewhere: pd.DataFrame, seed: int) -> list[Moved]:
    return [
        Moved(how["kind"], share(part.right, part.passage, seed), float(part.nats.median()))
        for how, part in cells(elsewhere, ("kind",))
    ]


def _ranked(found: pd.DataFrame, members: int, seed: int) -> list[Ranked]:
    said = []
    for how, part in cells(found, ("how",)):
        reciprocal = 1 / part["rank"]
        chances = {n: chance(int(n), members) for n in part.writes.unique()}
        first, mean = (float(np.mean([chances[n][i] for n in part.writes])) for i in (0, 1))
        of = share(part["rank"] == 1, part.passage, seed), float(reciprocal.mean())
        said.append(Ranked(how["how"], *of, clustered(reciprocal, part.passage, seed), first, mean))
    return said


def chance(writes: int, members: int) -> tuple[float, float]:
    """What a random order of `writes`, `members` of which are sought, reaches: the chance that one of them is first,
    and the mean of one over the rank of the first."""
    left, reciprocal = 1.0, 0.0
    for rank in range(1, writes - members + 2):
        here = left * members / (writes - rank + 1)
        reciprocal, left = reciprocal + here / rank, left - here
    return members / writes, reciprocal


def _recovered(recovery: pd.DataFrame, seed: int) -> list[Recovered]:
    found = []
    for how, part in cells(recovery, ("cell", "dictionary", "features")):
        pairs, told = part[part.of == "pair"], part.groupby("of").auroc.mean()

        def of(column: str, bound: float, pairs: pd.DataFrame = pairs) -> Share:
            return share(pairs[column] >= bound, np.arange(len(pairs)), seed)

        one = Recovered(
            **how, pairs=len(pairs), coherence=float(pairs.coherence.mean()), alike=float(pairs.alike.median()),
            best=of("best", HIGH), best_low=of("best", LOW), matched=of("matched", HIGH),
            matched_low=of("matched", LOW), median=float(pairs.best.median()),
            auroc_pair=float(told["pair"]), auroc_name=float(told["name"]), auroc_thing=float(told["thing"]),
        )  # fmt: skip
        found.append(one)
    return found
