"""Interactive figures of a run and its dictionary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from writesae.sae.compare import WriteCosines
from writesae.sae.model import SAE
from writesae.training.log import StepRecord

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


def plot_history(history: Sequence[StepRecord]) -> Figure:
    """Explained variance (training batch and held-out) and living features over the tokens seen."""
    from plotly.graph_objects import Scatter
    from plotly.subplots import make_subplots

    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, row_heights=[0.7, 0.3], vertical_spacing=0.06)
    tokens = [r.tokens for r in history]
    held = [r for r in history if r.held_out is not None]
    trained = Scatter(x=tokens, y=[r.explained_variance for r in history], name="training batch")
    figure.add_trace(trained, row=1, col=1)
    marks = Scatter(x=[r.tokens for r in held], y=[r.held_out for r in held], name="held out", mode="markers+lines")
    figure.add_trace(marks, row=1, col=1)
    figure.add_trace(Scatter(x=tokens, y=[r.alive for r in history], name="alive"), row=2, col=1)
    figure.update_yaxes(title_text="explained variance", row=1, col=1)
    figure.update_yaxes(title_text="alive features", row=2, col=1)
    figure.update_xaxes(title_text="tokens", row=2, col=1)
    return figure


def plot_cosines(cosines: WriteCosines) -> Figure:
    """Median cosine with the write against how often a feature fires."""
    from plotly.graph_objects import Figure, Scatter

    alive = (cosines.firings > 0).nonzero().squeeze(1).tolist()
    points = Scatter(
        x=cosines.firings[alive].tolist(),
        y=cosines.median[alive].tolist(),
        text=[f"F{i}" for i in alive],
        mode="markers",
        marker={"size": 5, "opacity": 0.6},
    )
    figure = Figure(points)
    figure.update_xaxes(title_text="firings", type="log")
    figure.update_yaxes(title_text="median cosine with the write")
    return figure


def plot_atom(sae: SAE, feature: int) -> Figure:
    """One atom as a matrix."""
    import torch
    from plotly.graph_objects import Figure, Heatmap

    matrix = sae.atom_matrices(torch.tensor([feature]))[0].detach()
    size = float(matrix.abs().max())
    figure = Figure(Heatmap(z=matrix.tolist(), colorscale="RdBu", zmin=-size, zmax=size))
    figure.update_layout(title=f"F{feature}", xaxis_title="value side", yaxis_title="key side")
    return figure
