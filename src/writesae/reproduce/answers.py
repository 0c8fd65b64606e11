"""How a claim's number is read out of results: one small function a kind of number.

Every function takes the results of what the claim asks for, by name, and gives one number or several, each with its
interval. Several seeds of one measurement give their mean, the widest of their intervals, and all their n.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from writesae.evals.common.cells import inside
from writesae.evals.common.result import Result
from writesae.evals.common.stats import Interval, clustered, clustered_statistic, r_squared, share
from writesae.evals.logit_shift.summary import fitted, measurable
from writesae.show import words
from writesae.types import Site

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
    beside: str | None = ""
    """The published figure that it stands beside; empty: the claim's main one; None: shown for comparison alone."""


Read = Callable[[Found], list[Ours]]


def aside(numbers: Iterable[Ours]) -> list[Ours]:
    """Shown for comparison alone."""
    return [one._replace(beside=None) for one in numbers]


def first_counts(read: Read) -> Read:
    """The first of several numbers is what the claim is about."""

    def both(found: Found) -> list[Ours]:
        first, *others = read(found)
        return [first, *aside(others)]

    return both


def over_seeds(what: str, each: Sequence[Ours], beside: str | None = "") -> Ours:
    """Their mean; the interval holds the interval of every one."""
    low, high = min(one.interval.low for one in each), max(one.interval.high for one in each)
    seeds = f", {len(each)} seeds" if len(each) > 1 else ""
    mean = float(np.mean([one.value for one in each]))
    return Ours(what + seeds, mean, Interval(low, high), sum(one.n for one in each), beside)


def published_form(cells: Iterable[Any]) -> list[Any]:
    """The cells of the value form of the write, which the paper means; of a head that has one form, all."""
    every = list(cells)
    forms = {cell.native_write for cell in every}
    return [cell for cell in every if cell.native_write == "value" or len(forms) == 1]


def _ways(results: Iterable[Any], amplitude: str = "coefficient") -> list[tuple[str, list[tuple[Any, Any]]]]:
    """What to call it -> result and cell of every seed, for each reading and timing."""
    ways = dict[str, list[tuple[Any, Any]]]()
    for result in results:
        for cell in published_form(result.summary.cells):
            if cell.amplitude == amplitude:
                read = "" if cell.reading == "write" else f"read by {cell.reading}, "
                ways.setdefault(f"{read}{words.timing(cell.timing)}", []).append((result, cell))
    return list(ways.items())


def _by_site(results: Iterable[Any]) -> list[tuple[str, list[Any]]]:
    """The results of each head, by layer."""
    sites = dict[Site, list[Any]]()
    for result in results:
        sites.setdefault(result.provenance.sites[0], []).append(result)
    return [(str(site), sites[site]) for site in sorted(sites, key=lambda site: (site.layer, site.head))]


def wins(*names: str) -> Read:
    """How often the atom beats deletion, by reading and timing; dictionaries of writes have one reading and say so."""

    def read(found: Found) -> list[Ours]:
        numbers = []
        for name in names:
            for what, each in _ways(found[name]):
                of = f"dictionary of writes, {what}" if each[0][1].reading == "write" else what
                numbers.append(over_seeds(of, [Ours(of, c.wins.value, c.wins.bounds, c.wins.n) for _, c in each]))
        return numbers

    return read


def of_records(name: str, measure: Callable[[pd.DataFrame], Any], amplitude: str = "coefficient") -> Read:
    """Any number of a substitution's records, with an interval that resamples passages."""

    def read(found: Found) -> list[Ours]:
        return [_of_records(what, each, measure) for what, each in _ways(found[name], amplitude)]

    return read


def _of_records(
    what: str, each: Iterable[tuple[Any, Any]], measure: Callable[[pd.DataFrame], Any], beside: str = ""
) -> Ours:
    own = []
    for result, cell in each:
        table = inside(result.records, cell)
        value, interval = clustered_statistic(table, "passage", measure, result.config.seed)
        own.append(Ours(what, value, interval, len(table)))
    return over_seeds(what, own, beside)


def by_layer(measure: Callable[[pd.DataFrame], Any], figures: str = "") -> Read:
    """The same at a head of every part of the model; `figures` are those of an early, a middle and a late layer."""

    def read(found: Found) -> list[Ours]:
        sites, numbers = _by_site(found["substitution-layers"]), []
        for number, (site, results) in enumerate(sites):
            third = round(2 * number / (len(sites) - 1)) if len(sites) > 1 else 1
            beside = f"{figures}.{third}" if figures else ""
            numbers += [_of_records(f"{what}, {site}", each, measure, beside) for what, each in _ways(results)]
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
        for what, each in _ways(found["population-states"])
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
    for what, each in _ways(found["substitution-layer"]):
        ways[what] = [cell.wins.value for _, cell in each]
    return [
        Ours(f"{what}, {len(rates)} heads", float(np.mean(rates)), clustered(rates, range(len(rates)), 0), len(rates))
        for what, rates in ways.items()
    ]


def partition(name: str = "partition-states", of: str = "", beside: str = "") -> Read:
    """Median cosine of the registers, resampling them; where two seeds part them otherwise the interval is wider."""

    def read(found: Found) -> list[Ours]:
        each = []
        for result in found[name]:
            classes, cosine = _parted(result)
            register = cosine[cosine >= classes.cut]
            table, seed = register.reset_index(), result.config.seed
            middle, bounds = clustered_statistic(table, "index", partial(_middle, "cosine"), seed)
            what = f"{of}, " * bool(of) + f"{classes.register} registers, {classes.bundle} bundles"
            each.append(Ours(what, middle, bounds, len(register)))
        return [over_seeds(each[0].what, each, beside)]

    return read


def _parted(result: Any) -> tuple[Any, pd.Series[float]]:
    """The classes of a partition, and the cosines that it parts."""
    (first, *_), records = published_form(result.summary.partitions), result.records
    used = (records.k == 0) & (records.native_write == first.native_write) & (records.firings >= result.config.minimum)
    return first.classes, records.cosine[used]


def class_distribution(found: Found) -> list[Ours]:
    """Share of registers among alive atoms: mean over the heads of a layer, resampling heads, then each head."""
    each = []
    for site, (result, *_) in _by_site(found["partition-layer"]):
        classes, cosine = _parted(result)
        high = (cosine >= classes.cut).to_numpy()
        each.append(Ours(site, float(high.mean()), share(high, range(len(high)), 0).bounds, len(high)))
    shares = [one.value for one in each]
    over = Ours(f"mean of {len(each)} heads", float(np.mean(shares)), clustered(shares, range(len(each)), 0), len(each))
    return [over, *aside(each)]


Quality = Literal["mse", "explained_variance", "dead"]


def quality(what: str, result: Any, field: Quality) -> Ours:
    """Of a reconstruction: resampling passages, and for the share of dead features these."""
    passages = result.more["passages"]
    if field == "dead":
        dead = (result.records.firings == 0).to_numpy()
        return Ours(what, float(dead.mean()), share(dead, range(len(dead)), 0).bounds, len(dead))
    value, interval = clustered_statistic(passages, "passage", QUALITIES[field], 0)
    return Ours(what, value, interval, len(passages))


QUALITIES: Mapping[Quality, Callable[[pd.DataFrame], float]] = {
    "mse": lambda table: float(table.error.sum() / table.entries.sum()),
    "explained_variance": lambda table: 1 - float(table.error.sum() / table.variance.sum()),
}


def encoders(field: Quality, more: str, less: str, *others: str) -> Read:
    """By how much one variant has more of something than another, by layer, then every variant at every layer."""

    def read(found: Found) -> list[Ours]:
        each = {
            (kind, site): over_seeds(f"{kind}, {site}", [quality("", result, field) for result in results], None)
            for kind in (more, less, *others)
            for site, results in _by_site(found[f"quality-{kind}"])
        }
        numbers = []
        for site in dict.fromkeys(site for _, site in each):
            a, b = each[more, site], each[less, site]
            bounds = Interval(a.interval.low - b.interval.high, a.interval.high - b.interval.low)
            numbers.append(Ours(f"{more} minus {less}, {site}", a.value - b.value, bounds, a.n))
        return [*numbers, *each.values()]

    return read


def k_sweep(found: Found) -> list[Ours]:
    """Variance explained by how many atoms are active a token."""
    each = sorted(found["quality-ks"], key=lambda result: result.summary.l0)
    return [quality(f"{words.plain(one.summary.l0, 1)} active a token", one, "explained_variance") for one in each]


def spectral_audit(found: Found) -> list[Ours]:
    """Over the heads of the model, resampling them."""
    ((audit,), numbers) = found["spectrum"], []
    heads = audit.records.assign(largest=[float(values[0]) ** 2 for values in audit.records.singular_values])
    for column, what in SPECTRUM.items():
        value, interval = clustered_statistic(heads[[column]].reset_index(), "index", partial(_middle, column), 0)
        numbers.append(Ours(f"{what}, median of {len(heads)} heads", value, interval, len(heads)))
    return numbers


def _middle(column: str, table: pd.DataFrame) -> float:
    return float(table[column].median())


SPECTRUM = {
    "stable_rank": "stable rank of the state",
    "largest": "largest singular value\u2019s share of the squared norm",
    "write_share": "write over state",
}


def known_truth(found: Found) -> list[Ours]:
    """Facts that are still right with an atom, nothing or a random matrix in the place of the write that holds them."""
    numbers = dict[str, Ours]()
    for cost in found["recall"][0].summary.costs:
        if cost.condition == "atom" and cost.amplitude == "coefficient":
            what = TOLD[cost.reading]
        elif cost.condition in ("delete", "random"):
            what = {"delete": "nothing in its place", "random": "a random matrix of its norm"}[cost.condition]
        else:
            continue
        numbers[what] = Ours(what, cost.right.value, cost.right.bounds, cost.right.n)
    return [numbers[what] for what in (*TOLD.values(), *numbers.keys() - set(TOLD.values())) if what in numbers]


TOLD = {"state": "read by state", "increment": "read by increment", "write": "dictionary of writes"}


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
    """R squared of each predictor with one factor fitted a cell, as published, resampling passages."""
    (result,) = found["logit_shift-states"]
    records = published_records(result)
    return [
        _r_squared(f"{name}, a factor a cell", records.assign(predicted=fitted(records, predictor)), result)
        for predictor, name in PREDICTORS.items()
    ]


def logit_shift_unfitted(found: Found) -> list[Ours]:
    """R squared of each predictor with nothing fitted, at the smallest size, resampling passages."""
    (result,) = found["logit_shift-states"]
    size, horizon = min(result.config.epsilons), min(result.config.horizons)
    records = published_records(result)
    records = records[(records.epsilon == size) & (records.horizon == horizon)]
    return [
        _r_squared(f"{name}, nothing fitted, {size} of a write", records.assign(predicted=records[predictor]), result)
        for predictor, name in PREDICTORS.items()
    ]


def published_records(result: Any) -> pd.DataFrame:
    """What atoms change of logits above the rounding, after the token, in units of the published form of the write
    where the head has it."""
    records: pd.DataFrame = result.records[measurable(result.records).to_numpy()]
    records = records[records.timing == "after_token"]
    value = records.native_write == "value"
    return records[value] if value.any() else records


def _r_squared(what: str, table: pd.DataFrame, result: Any) -> Ours:
    def measure(part: pd.DataFrame) -> float:
        return r_squared(part.measured, part.predicted)

    value, interval = clustered_statistic(table, "passage", measure, result.config.seed)
    return Ours(what, value, interval, len(table))


def one_after_another(*reads: Read) -> Read:
    """The numbers of several."""
    return lambda found: [number for read in reads for number in read(found)]


def selectivity(found: Found) -> list[Ours]:
    """Against random directions: mean over cells (heads) of their atoms' means, resampling cells, then each cell."""
    each = dict[str, list[Ours]]()
    for site, (result, *_) in _by_site(found["selectivity-cells"]):
        for cell in published_form(result.summary.cells):
            if cell.against == "random":
                number = Ours(f"{words.timing(cell.timing)}, {site}", cell.selectivity, cell.interval, cell.atoms)
                each.setdefault(words.timing(cell.timing), []).append(number)
    numbers = []
    for timing, ours in each.items():
        means, atoms = [one.value for one in ours], sum(one.n for one in ours)
        bounds = clustered(means, range(len(means)), 0)
        numbers.append(Ours(f"{timing}, {len(ours)} cells", float(np.mean(means)), bounds, atoms))
    return [*numbers, *aside(one for ours in each.values() for one in ours)]


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
    """Share of atoms that another seed has too, resampling atoms."""
    (result,) = found["seeds-states"]
    atoms = result.records.assign(atom=result.records.dictionary * 10**6 + result.records.feature)
    same = (atoms.best > result.config.match).to_numpy()
    return [Ours("atoms matched at 0.9", float(same.mean()), share(same, atoms.atom, 0).bounds, atoms.atom.nunique())]


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
    return [Ours("rank 2 minus rank 1, percent", two.value - one.value, bounds, two.n), *aside(each)]
