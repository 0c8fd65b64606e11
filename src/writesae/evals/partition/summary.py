"""What the records say: in numbers, in words, in figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import norm

from writesae.evals.common.cells import table_of
from writesae.evals.common.classes import COLOURS, Classes, classes
from writesae.evals.common.conditions import common
from writesae.evals.common.result import Result
from writesae.evals.common.stats import two_gaussians
from writesae.evals.partition import PartitionConfig
from writesae.show import words
from writesae.show.figures import Floats, canvas, curve, histogram, marks, stacked, upright
from writesae.show.parts import Panel, Plot, Table

COLUMNS = common("feature") | {
    "native_write": "the matrix that the atom is compared with",
    "k": "only the so many largest coefficients of a token count as firings; 0: all",
    "firings": "tokens at which it fires",
    "cosine": "median over these of the atom's cosine to the native write, NaN where there are none",
    "coefficient": "mean coefficient, NaN likewise",
}


@dataclass(frozen=True)
class Partition:
    """One form of the write: the partition and its two sweeps."""

    native_write: str
    classes: Classes
    above: dict[str, int]
    """Threshold -> atoms with at least that cosine."""
    by_k: dict[str, Classes | None]
    """k -> the partition when only the k largest coefficients of a token count; None with too few atoms."""


@dataclass(frozen=True)
class Summary:
    """Every form of the write."""

    features: int
    null: int
    """Features that never fired."""
    partitions: tuple[Partition, ...]


def summarise(tables: Mapping[str, pd.DataFrame], config: PartitionConfig) -> Summary:
    """The summary of the records."""
    records = tables["records"]
    forms = list(records.native_write.unique())
    whole = records[(records.k == 0) & (records.native_write == forms[0])]
    found = tuple(_partition(form, records[records.native_write == form], config) for form in forms)
    return Summary(len(whole), int((whole.firings == 0).sum()), found)


def _partition(form: str, records: pd.DataFrame, config: PartitionConfig) -> Partition:
    used = records[records.firings >= config.minimum]
    cosine = {k: used[used.k == k].cosine.to_numpy(dtype=float) for k in (0, *config.ks)}
    all_of_them = classes(cosine[0], config.seed)
    assert all_of_them is not None
    return Partition(
        form,
        all_of_them,
        {str(t): int((cosine[0] >= t).sum()) for t in config.thresholds},
        {str(k): classes(cosine[k], config.seed) for k in config.ks},
    )


def finding(result: Result[PartitionConfig, Summary]) -> str:
    """How many features of each class, and whether there are two."""
    summary = result.summary
    said = []
    for one in summary.partitions:
        c = one.classes
        better = "" if c.delta_bic < 0 else "not "
        said.append(
            f"compared with the {words.write(one.native_write)}, {words.count(c.register)} are registers (median "
            f"cosine {words.quantity(c.register_median)}) and {words.count(c.bundle)} bundles "
            f"({words.quantity(c.bundle_median)}), and two classes are {better}the better description (BIC of two "
            f"Gaussians minus one {words.signed(c.delta_bic, 0)})"
        )
    never = f"{words.count(summary.null)} of {words.count(summary.features)} features never fire"
    return f"{never}; {'; '.join(said)}."


def panel(result: Result[PartitionConfig, Summary]) -> Panel:
    """For every form of the write: the histogram with the fitted mixture, the threshold sweep, the k sweep."""
    config, records = result.config, result.records
    used = records[(records.k == 0) & (records.firings >= config.minimum)]
    plots, rows = list[Plot](), list[tuple[str, Classes | None]]()
    for one in result.summary.partitions:
        cosine = used[used.native_write == one.native_write].cosine.to_numpy(dtype=float)
        plots += [_mixture(one, cosine, config.seed), _thresholds(one, cosine), _ks(one)]
        named = words.write(one.native_write)
        rows += [(f"{named}, all firings", one.classes), *((f"{named}, k = {k}", c) for k, c in one.by_k.items())]
    table = table_of(Classes, [c for _, c in rows if c is not None])
    found = iter(table.rows)
    lines = [(name, "too few", *[words.MISSING] * 6) if c is None else (name, *next(found)) for name, c in rows]
    return Panel(
        tuple(plots),
        Table(("firings counted", *table.head), lines),
        "A feature is a register from the cosine on at which the two Gaussians cross (cut). Rows with k count only the "
        "so many largest coefficients of a token as firings.",
    )


def _mixture(one: Partition, cosine: Floats, seed: int) -> Plot:
    """The atoms' median cosines with the two Gaussians that class them."""
    figure = canvas()
    edges = np.histogram_bin_edges(cosine, min(60, max(10, len(cosine) // 8)))
    fitted = two_gaussians(cosine, seed)
    upper = cosine >= fitted.cut
    for name, colour, mine in (("bundle", "write", ~upper), ("register", "state", upper)):
        histogram(figure, cosine[mine], edges, name, colour, "cosine")
    figure.update_layout(barmode="stack")
    grid, scale = np.linspace(edges[0], edges[-1], 241), len(cosine) * float(edges[1] - edges[0])
    curves = [
        weight * norm.pdf(grid, mean, deviation) * scale
        for mean, deviation, weight in zip(fitted.means, fitted.deviations, fitted.weights, strict=True)
    ]
    named = (("each Gaussian", curves[0], "dot"), ("", curves[1], "dot"), ("mixture", np.sum(curves, 0), "solid"))
    for name, values, dash in named:
        more = {"name": name, "showlegend": bool(name), "hoverinfo": "skip"}
        curve(figure, grid, values, "ink", 1.75, "", dash, **more)
    upright(figure, fitted.cut)
    figure.update_xaxes(title=f"median cosine to the {words.write(one.native_write)}")
    figure.update_yaxes(title="features", rangemode="tozero")
    caption = f"{words.count(len(cosine))} features that fire; dashed: where the two Gaussians cross."
    title = f"Two kinds of features? {words.write(one.native_write).capitalize()}"
    return Plot(f"mixture-{one.native_write}", title, figure, caption, width="whole")


def _thresholds(one: Partition, cosine: Floats) -> Plot:
    """How many atoms have at least a cosine: no mixture needed."""
    figure = canvas()
    ordered = np.sort(cosine)
    keep = np.unique(np.linspace(0, len(ordered) - 1, min(len(ordered), 400)).round().astype(int))
    says = "%{y} features at %{x:.3g} or more"
    curve(figure, ordered[keep], len(ordered) - keep, "state", 2.25, says, name="every threshold")
    places = ["top center", "bottom center"]
    about = {
        "mode": "markers+text", "name": "thresholds asked for", "text": [words.count(n) for n in one.above.values()],
        "textposition": [places[i % 2] for i in range(len(one.above))], "cliponaxis": False,
        "marker": {"color": "var(--surface)", "size": 9, "line": {"color": "var(--state)", "width": 2}},
    }  # fmt: skip
    asked = [float(t) for t in one.above]
    marks(figure, asked, list(one.above.values()), "state", 9, 1, "%{y} features at %{x} or more", **about)
    figure.update_xaxes(title="threshold on the cosine", rangemode="tozero")
    figure.update_yaxes(title="features at or above", range=[-0.04 * len(cosine), 1.14 * len(cosine)])
    title = f"Without a mixture: any threshold, {words.write(one.native_write)}"
    return Plot(f"thresholds-{one.native_write}", title, figure)


def _ks(one: Partition) -> Plot:
    """Class sizes when only the k largest coefficients of a token count."""
    figure = canvas()
    found = {k: c for k, c in one.by_k.items() if c is not None}
    parts = [*found.values(), one.classes]
    sizes = {"bundle": [c.bundle for c in parts], "register": [c.register for c in parts]}
    stacked(figure, [*(f"k = {k}" for k in found), "all"], sizes, COLOURS)
    figure.update_yaxes(title="features that fire", rangemode="tozero")
    figure.update_xaxes(type="category", showgrid=False, title="coefficients of a token that count")
    title = f"If only the strongest firings count, {words.write(one.native_write)}"
    return Plot(f"ks-{one.native_write}", title, figure)
