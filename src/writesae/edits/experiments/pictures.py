"""Plots and tables of the probes, and the folder of a result."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots
from rich.box import SIMPLE
from rich.table import Table

from writesae.edits.experiments.amplification import AmplificationConfig, AmplificationSummary
from writesae.edits.experiments.erasure import ErasureConfig, ErasureSummary
from writesae.edits.experiments.installs import InstallSummary, InstallSweep
from writesae.edits.experiments.names import NamesConfig, NamesSummary
from writesae.edits.experiments.sign import SignConfig, SignSummary
from writesae.evals.result import Result, write_text

Probe = (
    Result[SignConfig, SignSummary]
    | Result[InstallSweep, InstallSummary]
    | Result[ErasureConfig, ErasureSummary]
    | Result[AmplificationConfig, AmplificationSummary]
    | Result[NamesConfig, NamesSummary]
)


@dataclass(frozen=True)
class _Panels:
    """How a probe is drawn: one line a `lines`, one panel a `panels`."""

    title: str
    x: str
    measures: tuple[tuple[str, str | None, str], ...]
    """Column of the value, of its interval (None: none), and the axis' title."""
    lines: str
    panels: tuple[str, ...] = ()
    level: str | None = None
    """Column of a level to draw: the unedited value."""


_DRAWN = {
    "sign": _Panels(
        "How often a write moves the target's logit the predicted way", "magnitude",
        (("agreement", "interval", "sign agreement"),), "direction", ("timing", "predictor"),
    ),
    "installs": _Panels(
        "How often a written target is said", "magnitude",
        (("rate", "interval", "target is said"), ("lift_mean", "lift_interval", "first-step lift (nats)")),
        "direction", ("ranks", "positions"), "native",
    ),
    "erasure": _Panels(
        "What taking out a feature's write does to its token", "dose",
        (("mean", "interval", "change of log probability (nats)"),), "condition", ("feature",),
    ),
    "amplification": _Panels(
        "Tokens of the class a generation", "dose", (("difference", "change", "more than unedited"),), "condition",
    ),
    "proper-nouns": _Panels(
        "Installing (above 0) and erasing (below 0) names and ordinary words", "magnitude",
        (("gain", "difference", "change of inclusion"), ("lift", "lift_interval", "first-step lift (nats)")),
        "direction", ("targets",),
    ),
}  # fmt: skip
_COLOURS = ("#3366cc", "#dc3912", "#7f7f7f", "#109618")


def table(result: Probe) -> pd.DataFrame:
    """The summary's rows, intervals as pairs."""
    frame = pd.DataFrame([asdict(row) for row in result.summary.rows])
    if result.name == "amplification":
        frame["difference"] = frame["mean"] - frame["native"]
    if result.name == "proper-nouns":
        frame["gain"] = frame["rate"] - frame["native"]
    return frame


def plot(result: Probe) -> go.Figure:
    """Dose on the x axis, the probe's own measures with their 95% intervals on the y axes, one line a condition."""
    how, frame = _DRAWN[result.name], table(result)
    keys = [key for key in how.panels if frame[key].astype(str).nunique() > 1]
    panels = list(frame.groupby([frame[key].astype(str) for key in keys])) if keys else [((), frame)]
    titles = [", ".join(f"{key} {value}" for key, value in zip(keys, name, strict=True)) for name, _ in panels]
    figure = make_subplots(
        len(how.measures), len(panels), subplot_titles=titles, shared_yaxes=True, shared_xaxes=True,
        horizontal_spacing=0.03, vertical_spacing=0.08,
    )  # fmt: skip
    for column, (_, part) in enumerate(panels, 1):
        for row, (y, interval, axis) in enumerate(how.measures, 1):
            for index, (line, points) in enumerate(part.groupby(how.lines)):
                points = points.sort_values(how.x)
                bars = None
                if interval is not None:
                    ends = np.array(points[interval].tolist())
                    bars = {"type": "data", "array": ends[:, 1] - points[y], "arrayminus": points[y] - ends[:, 0]}
                figure.add_scatter(
                    x=points[how.x], y=points[y], error_y=bars, name=str(line), mode="lines+markers",
                    line_color=_COLOURS[index % len(_COLOURS)], legendgroup=str(line),
                    showlegend=row == column == 1, row=row, col=column,
                )  # fmt: skip
            if how.level is not None and row == 1:
                figure.add_hline(
                    y=float(part[how.level].mean()), line_dash="dot", annotation_text="unedited", row=row, col=column
                )
            if column == 1:
                figure.update_yaxes(title=axis, row=row, col=1)
            if row == len(how.measures):
                figure.update_xaxes(title=how.x, row=row, col=column)
    source = result.provenance
    site = source.site if source.site.count(",") < 4 else f"{source.site.count(',') + 1} heads"
    figure.update_layout(
        title=f"{how.title}<br><sup>{source.host} {site}, n = {result.n}, 95% intervals</sup>", template="plotly_white",
        height=160 + 320 * len(how.measures),
    )  # fmt: skip
    return figure


_SHOWN: dict[str, tuple[tuple[str, str, str | None], ...]] = {
    "sign": (
        ("timing", "timing", None), ("direction", "direction", None), ("predicted by", "predictor", None),
        ("dose", "magnitude", None), ("agreement", "agreement", "interval"), ("unfitted R2", "r2", None),
    ),
    "installs": (
        ("ranks", "ranks", None), ("places", "positions", None), ("direction", "direction", None),
        ("dose", "magnitude", None), ("said", "rate", "interval"), ("unedited", "native", None),
        ("random", "random", None), ("lift", "lift_mean", "lift_interval"), ("saturated", "saturated", None),
        ("p unedited", "p_native", None), ("p random", "p_random", None), ("p lift", "p_lift", None),
    ),
    "erasure": (
        ("feature", "feature", None), ("token", "token", None), ("condition", "condition", None),
        ("dose", "dose", None), ("n", "n", None), ("median", "median", None), ("change", "mean", "interval"),
        ("p", "p", None),
    ),
    "amplification": (
        ("features", "condition", None), ("dose", "dose", None), ("said", "mean", None), ("unedited", "native", None),
        ("more", "difference", "change"), ("texts changed", "changed", None), ("d", "cohens_d", None),
        ("p unedited", "p", None), ("p random", "p_random", None),
    ),
    "proper-nouns": (
        ("targets", "targets", None), ("direction", "direction", None), ("dose", "magnitude", None),
        ("unedited", "native", None), ("said", "rate", None), ("more", "gain", "difference"), ("p", "p", None),
        ("p none", "p_equivalent", None), ("verdict", "verdict", None), ("lift", "lift", "lift_interval"),
        ("p lift", "p_lift", None), ("p words", "p_words", None),
    ),
}  # fmt: skip
"""Columns as printed: heading, value, interval."""


def console_table(result: Probe) -> Table:
    """The summary's rows as they are printed; what all rows share stands in the title."""
    frame = table(result)
    source, title = result.provenance, [f"{result.name}: {result.provenance.host}"]
    title.append(source.site if source.site.count(",") < 4 else f"{source.site.count(',') + 1} heads")
    title.append(f"n {result.n}")
    columns = []
    for heading, value, interval in _SHOWN[result.name]:
        cells = [_cell(value, *row) for row in frame[[value, *([] if interval is None else [interval])]].to_numpy()]
        if len(set(cells)) == 1 and len(cells) > 1 and value not in ("verdict", "p"):
            title.append(f"{heading} {cells[0]}")
        else:
            columns.append((heading, cells))
    shown = Table(title=", ".join(title), title_justify="left", box=SIMPLE, padding=(0, 0, 0, 1))
    for heading, _ in columns:
        shown.add_column(heading, justify="right")
    for row in zip(*(cells for _, cells in columns), strict=True):
        shown.add_row(*row)
    return shown


def _cell(name: str, x: object, interval: tuple[float, float] | None = None) -> str:
    if interval is not None:
        return f"{_cell(name, x)} [{', '.join(_cell(name, end).rstrip('%') for end in interval)}]"
    if isinstance(x, tuple):
        return f"{x[0]} to {x[1] - 1}"  # ranks, the second excluded
    if not isinstance(x, float):
        return str(x)
    if x != x:
        return "-"
    if name == "p" or name.startswith("p_"):
        return f"{x:.2g}"
    if name in _SHARES:
        return f"{100 * x:.1f}%"
    return f"{x:.3g}" if name in ("dose", "magnitude", "r2") else f"{x:+.3f}" if name in _CHANGES else f"{x:.2f}"


_SHARES = {"agreement", "rate", "native", "random", "saturated", "changed"}
_CHANGES = {"lift", "lift_mean", "median", "mean", "gain"}


def write_probe(result: Probe, folder: Path) -> None:
    """`summary.json` (what was measured on, protocol, table), `records.parquet` (every trial) and `plot.html`."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "plot.html", str(plot(result).to_html(include_plotlyjs=True)))
    result.write(folder)
