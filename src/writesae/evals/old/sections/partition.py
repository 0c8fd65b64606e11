"""Registers, bundles and nulls: which atoms look like the writes they fire on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go
from scipy.stats import norm

from writesae.errors import DataError
from writesae.evals.common.stats import two_gaussians
from writesae.evals.old.measured import Measured
from writesae.show import words
from writesae.show.figures import Floats, canvas, histogram, label, rounded
from writesae.show.parts import Panel, Plot, Table


@dataclass(frozen=True)
class Classes:
    """One partition."""

    alive: int
    register: int
    bundle: int
    register_median: float | None
    bundle_median: float | None
    delta_bic: float | None


@dataclass(frozen=True)
class Summary:
    """The partition and its two sweeps."""

    features: int
    null: int
    classes: Classes
    above: dict[str, int]
    by_k: dict[str, Classes | None]


def build(of: Measured) -> Panel:
    """Histogram with the fitted mixture, threshold sweep, k sweep."""
    records = of.numeric(["feature", "firings", "cosine", "k"])
    summary = of.read(Summary)
    used = records[(records.k == 0) & (records.firings >= of.setting(int, "minimum")) & records.cosine.notna()]
    if len(used) < 4:
        raise DataError(f"the records of {of.file} hold {len(used)} cosines; a partition has at least 4")
    cosine = used.cosine.to_numpy(dtype=float)
    plots = (_mixture(cosine, of.setting(int, "seed")), _thresholds(cosine, summary), _ks(summary))
    classes = summary.classes
    better = words.signed(classes.delta_bic, 0)
    finding = (
        f"Of {words.count(summary.features)} features, {words.count(classes.register)} are registers (median cosine "
        "to the write "
        f"{words.quantity(classes.register_median)}), {words.count(classes.bundle)} bundles "
        f"({words.quantity(classes.bundle_median)}) and {words.count(summary.null)} never fire. "
        f"Two Gaussians against one: BIC {better}, so two classes are "
        f"{'' if (classes.delta_bic or 0) < 0 else 'not '}the better description."
    )
    return Panel(
        finding,
        plots,
        _table(summary),
        "Rows with k count only the so many largest coefficients of a token as firings.",
    )


def _mixture(cosine: Floats, seed: int) -> Plot:
    """The atoms' median cosines with the two Gaussians that class them."""
    figure = canvas()
    edges = np.histogram_bin_edges(cosine, min(60, max(10, len(cosine) // 8)))
    fitted = two_gaussians(cosine, seed)
    for name, colour, mine in (("bundle", "write", ~fitted.upper), ("register", "state", fitted.upper)):
        histogram(figure, cosine[mine], edges, name, f"var(--{colour})", "cosine")
    figure.update_layout(barmode="stack")
    grid, scale = np.linspace(edges[0], edges[-1], 241), len(cosine) * float(edges[1] - edges[0])
    curves = []
    for mean, deviation, weight in zip(fitted.means, fitted.deviations, fitted.weights, strict=True):
        curves.append(weight * norm.pdf(grid, mean, deviation) * scale)
    for name, curve, dash in (
        ("each Gaussian", curves[0], "dot"),
        ("", curves[1], "dot"),
        ("mixture", sum(curves), "solid"),
    ):
        figure.add_trace(
            go.Scatter(
                x=rounded(grid),
                y=rounded(np.asarray(curve)),
                name=name,
                mode="lines",
                showlegend=bool(name),
                line={"color": "var(--ink)", "width": 1.75, "dash": dash},
                hoverinfo="skip",
            )
        )
    figure.update_xaxes(title="median cosine to the native write")
    figure.update_yaxes(title="features", rangemode="tozero")
    return Plot(
        "mixture",
        "Two kinds of features?",
        figure,
        f"{words.count(len(cosine))} features that fire, classed by the likelier Gaussian.",
        width="whole",
    )


def _thresholds(cosine: Floats, summary: Summary) -> Plot:
    """How many atoms have at least a cosine: no mixture needed."""
    figure = canvas()
    ordered = np.sort(cosine)
    keep = np.unique(np.linspace(0, len(ordered) - 1, min(len(ordered), 400)).round().astype(int))
    figure.add_trace(
        go.Scatter(
            x=rounded(ordered[keep]),
            y=(len(ordered) - keep).tolist(),
            mode="lines",
            name="every threshold",
            line={"color": "var(--state)", "width": 2.25},
            hovertemplate="%{y} features at %{x:.3g} or more<extra></extra>",
        )
    )
    figure.add_trace(
        go.Scatter(
            x=[float(t) for t in summary.above],
            y=list(summary.above.values()),
            mode="markers+text",
            name="thresholds asked for",
            text=[words.count(n) for n in summary.above.values()],
            textposition=["top center", "bottom center"] * (len(summary.above) // 2)
            + ["top center"] * (len(summary.above) % 2),
            cliponaxis=False,
            marker={"color": "var(--surface)", "size": 9, "line": {"color": "var(--state)", "width": 2}},
            hovertemplate="%{y} features at %{x} or more<extra></extra>",
        )
    )
    figure.update_xaxes(title="threshold on the cosine", rangemode="tozero")
    figure.update_yaxes(title="features at or above", range=[-0.04 * len(cosine), 1.14 * len(cosine)])
    return Plot("thresholds", "Without a mixture: any threshold", figure)


def _ks(summary: Summary) -> Plot:
    """Class sizes when only the k largest coefficients of a token count."""
    figure = canvas()
    found = {k: c for k, c in summary.by_k.items() if c is not None}
    names = [f"k = {label(k)}" for k in found] + ["all"]
    parts = [*found.values(), summary.classes]
    for name, colour in (("bundle", "write"), ("register", "state")):
        sizes = [c.register if name == "register" else c.bundle for c in parts]
        figure.add_trace(
            go.Bar(
                x=names,
                y=sizes,
                name=name,
                marker={"color": f"var(--{colour})", "opacity": 0.75},
                text=sizes,
                texttemplate="%{text}",
                textposition="inside",
                textangle=0,
                insidetextfont={"color": "var(--heat-ink)"},
                hovertemplate=f"%{{x}}: %{{y}} {name}s<extra></extra>",
            )
        )
    figure.update_layout(barmode="stack", bargap=0.25)
    figure.update_yaxes(title="features that fire", rangemode="tozero")
    figure.update_xaxes(type="category", showgrid=False, title="coefficients of a token that count")
    return Plot("ks", "If only the strongest firings count", figure)


def _table(summary: Summary) -> Table:
    rows = [("all firings", summary.classes), *((f"k = {k}", c) for k, c in summary.by_k.items())]
    head = (
        "firings counted",
        "features that fire",
        "registers",
        "bundles",
        "register cosine",
        "bundle cosine",
        "\u0394BIC",
    )
    return Table(head, [_row(name, c) for name, c in rows])


def _row(name: str, c: Classes | None) -> tuple[str, ...]:
    if c is None:
        return (name, "too few", *[words.MISSING] * 5)
    medians = (words.quantity(c.register_median), words.quantity(c.bundle_median), words.signed(c.delta_bic, 0))
    return (name, *(words.count(n) for n in (c.alive, c.register, c.bundle)), *medians)
