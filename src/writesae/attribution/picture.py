"""Pictures of an attribution: tokens x atoms as a heat map, and tokens x heads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots
from torch import Tensor

from writesae.attribution.attribute import Attribution
from writesae.attribution.measured import Compared
from writesae.causal.targets import describe_target
from writesae.errors import InputError
from writesae.types import Site


def atom_map(found: Attribution, site: Site, count: int = 30) -> go.Figure:
    """Effects of the `count` atoms that matter most at one site (rows) at each token (columns)."""
    if site not in found.atoms:
        raise InputError(
            f"this attribution has no atoms of {site}; it has {', '.join(map(str, found.atoms)) or 'none'}"
        )
    effect = found.atoms[site].effect
    best = effect.abs().sum(0).topk(min(count, effect.shape[1])).indices
    return _map(found, effect[:, best].T, [f"atom {i}" for i in best.tolist()], f"Atoms of {site}")


def write_map(found: Attribution, layer: int | None = None) -> go.Figure:
    """Effects of the native writes of every head (rows) at each token (columns), of one layer or of all."""
    layers = list(found.writes) if layer is None else [layer]
    rows = [found.writes[i][:, h] for i in layers for h in range(found.writes[i].shape[1])]
    names = [str(Site(i, h)) for i in layers for h in range(found.writes[i].shape[1])]
    return _map(found, np.stack([r.cpu().numpy() for r in rows]), names, f"Native writes ({found.form} form)")


def _map(
    found: Attribution,
    effects: Tensor | np.ndarray[tuple[int, int], np.dtype[np.float32]],
    names: list[str],
    title: str,
) -> go.Figure:
    values = effects.cpu().numpy() if isinstance(effects, Tensor) else effects
    bound = float(np.abs(values).max()) or 1.0
    columns = [f"{i} {text!r}" for i, text in enumerate(found.texts)]
    figure = go.Figure(
        go.Heatmap(
            z=values, x=columns, y=names, zmin=-bound, zmax=bound, colorscale="RdBu", reversescale=True,
            colorbar={"title": "effect"},
            hovertemplate="%{x}<br>%{y}<br>effect %{z:.4g}<extra></extra>",
        )
    )  # fmt: skip
    figure.update_layout(
        title=f"{title}: first-order effect on the {describe_target(found.host, found.target)}, {found.timing}",
        height=220 + 16 * len(names),
        yaxis={"autorange": "reversed"},
        template="plotly_white",
    )
    return figure


def check_plot(found: Attribution, checks: Mapping[str, Compared]) -> go.Figure:
    """First-order effects against what deleting for real did, one panel a kind; on the line they agree."""
    titles = [
        f"{len(c.items)} {name}<br>"
        f"<sup>r {c.correlation:.3f}, unfitted R² {c.r2:.3f}, signs {c.sign_agreement:.0%}</sup>"
        for name, c in checks.items()
    ]
    figure = make_subplots(1, len(checks), subplot_titles=titles, horizontal_spacing=0.08)
    for column, compared in enumerate(checks.values(), 1):
        both = np.concatenate([compared.predicted, compared.measured, [0.0]])
        ends = [float(both.min()), float(both.max())]
        figure.add_scatter(
            x=ends, y=ends, mode="lines", line={"color": "#999999", "dash": "dot"}, hoverinfo="skip", row=1, col=column
        )
        figure.add_scatter(
            x=compared.predicted, y=compared.measured, mode="markers", marker={"color": "#3366cc", "size": 7},
            text=list(compared.items), row=1, col=column,
            hovertemplate="%{text}<br>predicted %{x:.4g}<br>measured %{y:.4g}<extra></extra>",
        )  # fmt: skip
        figure.update_xaxes(title="first-order effect", row=1, col=column)
    figure.update_yaxes(title="measured by deleting", row=1, col=1)
    figure.update_layout(
        title=f"Deleted for real: effect on the {describe_target(found.host, found.target)}, {found.timing}",
        template="plotly_white", height=460,
        showlegend=False, margin={"t": 120},
    )  # fmt: skip
    return figure


def write_page(found: Attribution, path: Path, count: int = 30, checks: Mapping[str, Compared] | None = None) -> None:
    """One self-contained HTML page: a heat map a dictionary, one of all native writes, and the checks if there are."""
    figures = [atom_map(found, site, count) for site in found.atoms] + [write_map(found)]
    if checks:
        figures.append(check_plot(found, checks))
    parts = [
        figure.to_html(full_html=False, include_plotlyjs="inline" if i == 0 else False)
        for i, figure in enumerate(figures)
    ]
    head = '<!doctype html><html lang="en"><meta charset="utf-8"><title>writesae attribution</title>'
    path.write_text(head + "\n".join(parts), encoding="utf-8")
