"""How a claim's number is read out of results: one small function a kind of number.

Every function takes the results of what the claim asks for, by name, and gives one number or several, each with its
interval. Several seeds of one measurement give their mean, the widest of their intervals, and all their n.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from writesae.evals.common.result import Result
from writesae.evals.common.stats import Interval, clustered, clustered_statistic
from writesae.show import words

Found = Mapping[str, Sequence[Result[Any, Any]]]
"""Name of a measurement -> its results, by seed or by head."""
NOWHERE = Interval(float("nan"), float("nan"))
TIMINGS = ("after_token", "at_token")


class Ours(NamedTuple):
    """One number of ours beside a published one."""

    what: str
    """Which: reading, timing, predictor."""
    value: float
    interval: Interval
    """95%; NaN where nothing could be resampled."""
    n: int


Read = Callable[[Found], list[Ours]]


def over_seeds(what: str, each: Sequence[Ours]) -> Ours:
    """Their mean; the interval holds the interval of every one."""
    low, high = min(one.interval.low for one in each), max(one.interval.high for one in each)
    seeds = f", {len(each)} seeds" if len(each) > 1 else ""
    return Ours(what + seeds, float(np.mean([one.value for one in each])), Interval(low, high), sum(x.n for x in each))


def published_form(cells: Iterable[Any]) -> list[Any]:
    """The cells of the value form of the write, which the paper means; of a head that has one form, all."""
    every = list(cells)
    forms = {cell.native_write for cell in every}
    return [cell for cell in every if cell.native_write == "value" or len(forms) == 1]


def _ways(found: Found, name: str, amplitude: str = "coefficient") -> list[tuple[str, list[tuple[Any, Any]]]]:
    """What to call it -> result and cell of every seed, for each reading and timing."""
    ways = dict[str, list[tuple[Any, Any]]]()
    for result in found[name]:
        for cell in published_form(result.summary.cells):
            if cell.amplitude == amplitude:
                read = "" if cell.reading == "write" else f"read by {cell.reading}, "
                ways.setdefault(f"{read}{words.timing(cell.timing)}", []).append((result, cell))
    return list(ways.items())


def _rows(result: Any, cell: Any) -> pd.DataFrame:
    """The records of one cell."""
    records: pd.DataFrame = result.records
    for name in ("timing", "native_write", "reading", "amplitude", "direction"):
        records = records[records[name] == getattr(cell, name)]
    return records


def wins(*names: str) -> Read:
    """How often the atom beats deletion, by reading and timing; dictionaries of writes have one reading and say so."""

    def read(found: Found) -> list[Ours]:
        numbers = []
        for name in names:
            for what, each in _ways(found, name):
                of = f"dictionary of writes, {what}" if each[0][1].reading == "write" else what
                numbers.append(over_seeds(of, [Ours(of, c.wins.value, c.wins.bounds, c.wins.n) for _, c in each]))
        return numbers

    return read


def of_records(name: str, measure: Callable[[pd.DataFrame], Any], amplitude: str = "coefficient") -> Read:
    """Any number of a substitution's records, with an interval that resamples passages."""

    def read(found: Found) -> list[Ours]:
        numbers = []
        for what, each in _ways(found, name, amplitude):
            own = []
            for result, cell in each:
                table = _rows(result, cell)
                value, interval = clustered_statistic(table, "passage", measure, result.config.seed)
                own.append(Ours(what, value, interval, len(table)))
            numbers.append(over_seeds(what, own))
        return numbers

    return read


def strict_chain(table: pd.DataFrame) -> float:
    """Share with KL of atom < deletion < random."""
    return float(((table.kl_atom < table.kl_delete) & (table.kl_delete < table.kl_random)).mean())


def paired_delta(table: pd.DataFrame) -> float:
    """Share of wins minus share of losses."""
    return float(np.sign(table.kl_delete - table.kl_atom).mean())


def failures_fall(table: pd.DataFrame) -> float:
    """Failure rate in the quarter of the smallest effects of deletion minus that in the quarter of the largest."""
    low, high = table.kl_delete.quantile([0.25, 0.75])
    fails = table.kl_atom >= table.kl_delete
    return float(fails[table.kl_delete <= low].mean() - fails[table.kl_delete >= high].mean())


def median_ratio(table: pd.DataFrame) -> float:
    """Median KL of the atom over that of deletion."""
    return float(table.kl_atom.median() / table.kl_delete.median())


def beats_flat(table: pd.DataFrame) -> float:
    """Wins over deletion of the atom minus those of the flat dictionary's top feature cut to rank 1."""
    return float((table.kl_atom < table.kl_delete).mean() - (table.kl_flat_svd < table.kl_delete).mean())


def population(found: Found) -> list[Ours]:
    """Mean over atoms of their win rates."""
    return [
        over_seeds(what, [Ours(what, c.win_rate, c.interval, c.atoms) for _, c in each])
        for what, each in _ways(found, "population-states")
    ]


def bundle_ratio(table: pd.DataFrame) -> float:
    """Median KL of bundle atoms over that of deletion."""
    return median_ratio(table[table["class"] == "bundle"])


def more_disruption(table: pd.DataFrame) -> float:
    """By how much more often deletion changes the likeliest token where registers fire than where bundles do."""
    changes = table.groupby("class").top1_delete.mean()
    return float(changes.get("register", np.nan) - changes.get("bundle", np.nan))


def all_heads(found: Found) -> list[Ours]:
    """Mean over the heads of a layer of their win rates, resampling heads."""
    ways = dict[str, list[float]]()
    for what, each in _ways(found, "substitution-layer"):
        ways[what] = [cell.wins.value for _, cell in each]
    return [
        Ours(f"{what}, {len(rates)} heads", float(np.mean(rates)), clustered(rates, range(len(rates)), 0), len(rates))
        for what, rates in ways.items()
    ]


def partition(field: str, name: str = "partition-states") -> Read:
    """A number of the partition into registers and bundles; by seed."""

    def read(found: Found) -> list[Ours]:
        each = [published_form(result.summary.partitions)[0].classes for result in found[name]]
        values = [float(getattr(one, field)) for one in each]
        spread = Interval(min(values), max(values)) if len(values) > 1 else NOWHERE
        seeds = f"{len(values)} seeds, range" if len(values) > 1 else "one seed"
        counts = f"{each[0].register} registers, {each[0].bundle} bundles"
        return [Ours(f"{counts}, {seeds}", float(np.mean(values)), spread, each[0].alive)]

    return read


def quality(field: str, *kinds: str) -> Read:
    """A number of the reconstruction, by kind of dictionary; the interval is the range of the seeds."""

    def read(found: Found) -> list[Ours]:
        numbers = []
        for kind in kinds:
            values = [_quality(result, field) for result in found[f"quality-{kind}"]]
            spread = Interval(min(values), max(values)) if len(values) > 1 else NOWHERE
            what = f"{kind}, {len(values)} seeds, range" if len(values) > 1 else kind
            numbers.append(Ours(what, float(np.mean(values)), spread, found[f"quality-{kind}"][0].summary.tokens))
        return numbers

    return read


def _quality(result: Any, field: str) -> float:
    summary = result.summary
    return summary.dead / (summary.dead + summary.alive) if field == "dead share" else float(getattr(summary, field))


def difference(read: Read, what: str) -> Read:
    """The first number minus the second, by seed ranges: the interval is the widest that both allow."""

    def both(found: Found) -> list[Ours]:
        a, b, *_ = read(found)
        bounds = Interval(a.interval.low - b.interval.high, a.interval.high - b.interval.low)
        return [Ours(what, a.value - b.value, bounds, a.n), a, b]

    return both


def passage_loss(found: Found) -> list[Ours]:
    """Bits a token that random writes of the native norm add beyond what deletion adds, then each; by passage."""
    (result,) = found["passage_loss-states"]
    table = result.records[result.records.amplitude == "norm"]
    numbers = []
    for timing in TIMINGS:
        rows = published_form(table[table.timing == timing].itertuples())
        own = pd.DataFrame(rows).drop(columns="Index")
        for name, parts in (("random beyond deletion", ("random", "delete")), ("deletion", ("delete", "native"))):
            value, interval = clustered_statistic(own, "passage", partial(_bits, *parts), result.config.seed)
            numbers.append(Ours(f"{name}, {words.timing(timing)}", value, interval, own.passage.nunique()))
    return numbers


def _bits(more: str, less: str, table: pd.DataFrame) -> float:
    """Bits a token by which one condition's loss is above another's."""
    return float((table[f"nll_{more}"] - table[f"nll_{less}"]).sum() / table.tokens.sum() / np.log(2))


def fidelity(found: Found) -> list[Ours]:
    """Perplexity that a replaced state adds, by kind of dictionary."""
    numbers = []
    for kind in ("states", "flat", "matrix"):
        for result in found[f"fidelity-{kind}"][:1]:
            whole = result.summary.scopes["all"]
            native = whole.perplexity["native"]
            low, high = (native * float(np.expm1(x)) for x in whole.intervals["reconstruction"])
            added = whole.perplexity["reconstruction"] - native
            numbers.append(Ours(kind, added, Interval(low, high), result.summary.passages))
    return numbers


PREDICTORS = {"closed": "closed form", "direct": "direct path", "exact": "exact first order"}


def logit_shift_fitted(found: Found) -> list[Ours]:
    """R squared of each predictor with one factor fitted a cell, as published."""
    (result,) = found["logit_shift-states"]
    return [
        Ours(f"{PREDICTORS[fit.predictor]}, a factor a cell", fit.r2, NOWHERE, result.n)
        for fit in published_form(result.summary.by_cell)
        if fit.timing == "after_token" and fit.predictor in PREDICTORS
    ]


def logit_shift_unfitted(found: Found) -> list[Ours]:
    """R squared of each predictor with nothing fitted, at the smallest size."""
    (result,) = found["logit_shift-states"]
    least = min(result.config.epsilons), min(result.config.horizons)
    return [
        Ours(
            f"{PREDICTORS[cell.predictor]}, nothing fitted, {least[0]} of a write", cell.r2_pooled, NOWHERE, cell.atoms
        )
        for cell in published_form(result.summary.cells)
        if cell.timing == "after_token" and (cell.epsilon, cell.horizon) == least and cell.predictor in PREDICTORS
    ]


def one_after_another(*reads: Read) -> Read:
    """The numbers of several."""
    return lambda found: [number for read in reads for number in read(found)]


def selectivity(found: Found) -> list[Ours]:
    """Over atoms, against random directions."""
    (result,) = found["selectivity-states"]
    return [
        Ours(words.timing(cell.timing), cell.selectivity, cell.interval, cell.atoms)
        for cell in published_form(result.summary.cells)
        if cell.against == "random"
    ]


def erasure(condition: str, dose: float) -> Read:
    """Change of the followed token's log probability."""

    def read(found: Found) -> list[Ours]:
        (result,) = found["erasure-measured"]
        return [
            Ours(words.timing(cell.timing), cell.change.mean, cell.change.interval, cell.change.n)
            for cell in published_form(result.summary.cells)
            if (cell.condition, cell.dose) == (condition, dose)
        ]

    return read


def sign(found: Found) -> list[Ours]:
    """How often the logit moves as predicted: the closed form's own directions, and exact ones, one native write."""
    (result,) = found["sign"]
    wanted = {("closed", "closed"): "closed form", ("exact", "exact"): "exact first order"}
    return [
        Ours(f"{wanted[c.direction, c.predictor]}, {words.timing(c.timing)}", *_share(c.agreement))
        for c in result.summary.cells
        if (c.direction, c.predictor) in wanted and c.magnitude == 1.0
    ]


def _share(found: Any) -> tuple[float, Interval, int]:
    return found.value, found.bounds, found.n


def installs(found: Found) -> list[Ours]:
    """How much more often the continuation holds the target than unedited, at three times the native write."""
    numbers = []
    for name, where in (("installs-one-head", "one head"), ("installs-all-heads", "all heads")):
        (result,) = found[name]
        for cell in published_form(result.summary.cells):
            if cell.magnitude == 3.0 and cell.last == 3 and cell.direction in ("closed", "exact"):
                value, bounds, n = _share(cell.said)
                shifted = Interval(bounds.low - cell.native, bounds.high - cell.native)
                what = f"{where}, {cell.direction} direction, {words.timing(cell.timing)}"
                numbers.append(Ours(what, value - cell.native, shifted, n))
    return numbers


def amplification(found: Found) -> list[Ours]:
    """Change of newlines in a continuation at five times the coefficients."""
    (result,) = found["amplification-writes"]
    return [
        Ours(words.timing(cell.timing), cell.change.mean, cell.change.interval, cell.change.n)
        for cell in result.summary.cells
        if cell.condition == "class" and cell.dose == 5.0
    ]


def seeds(found: Found) -> list[Ours]:
    """Share of atoms that another seed has too."""
    (result,) = found["seeds-states"]
    return [Ours("atoms matched at 0.9", result.summary.matched, NOWHERE, result.n)]


def readers(found: Found) -> list[Ours]:
    """How much more later heads change by an atom than by random writes."""
    (result,) = found["readers-states"]
    return [
        Ours(words.timing(cell.timing), cell.mean, cell.interval, cell.readings)
        for cell in published_form(result.summary.cells)
    ]


def rank_two(found: Found) -> list[Ours]:
    """Percent of perplexity that a replaced state adds with rank-2 atoms beyond rank-1 ones, then each."""
    each = []
    for name, what in (("fidelity-rank2", "rank 2"), ("fidelity-states", "rank 1")):
        result = found[name][0]
        whole = result.summary.scopes["all"]
        value, low, high = (
            100 * float(np.expm1(x)) for x in (whole.added["reconstruction"], *whole.intervals["reconstruction"])
        )
        each.append(Ours(what, value, Interval(low, high), result.summary.passages))
    two, one = each
    bounds = Interval(two.interval.low - one.interval.high, two.interval.high - one.interval.low)
    return [Ours("rank 2 minus rank 1, percent", two.value - one.value, bounds, two.n), *each]
