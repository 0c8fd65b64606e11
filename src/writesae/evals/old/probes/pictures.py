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

from writesae.disk import write_text
from writesae.evals.old.probes.amplification import AmplificationConfig, AmplificationSummary
from writesae.evals.old.probes.erasure import ErasureConfig, ErasureSummary
from writesae.evals.old.probes.installs import InstallSummary, InstallSweep
from writesae.evals.old.probes.names import NamesConfig, NamesSummary
from writesae.evals.old.probes.sign import SignConfig, SignSummary
from writesae.evals.old.result import Result

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
    unit: str = "native writes"
    """The x axis' title."""


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
        unit="factor of the coefficients",
    ),
    "proper-nouns": _Panels(
        "Installing (above 0) and erasing (below 0) names and ordinary words", "magnitude",
        (("gain", "difference", "change of inclusion"), ("lift", "lift_interval", "first-step lift (nats)")),
        "direction", ("targets",),
    ),
}  # fmt: skip
_HEADING = {
    "timing": "", "predictor": "predicted by", "ranks": "ranks", "positions": "positions", "feature": "feature",
    "targets": "targets:",
}  # fmt: skip
"""What stands before a panel's value in its title."""
_COLOURS = {
    "closed": "#3366cc", "exact": "#dc3912", "random": "#7f7f7f", "class": "#3366cc", "erase": "#dc3912",
    "control": "#7f7f7f",
}  # fmt: skip


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
    titles = [
        ", ".join(f"{_HEADING[key]} {_cell('', part[key].iloc[0])}".strip() for key in keys) for _, part in panels
    ]
    figure = make_subplots(
        len(how.measures), len(panels), subplot_titles=titles, shared_yaxes=True, shared_xaxes=True,
        horizontal_spacing=0.03, vertical_spacing=0.08,
    )  # fmt: skip
    step = 0.015 * float(np.ptp(frame[how.x]) or 1.0)
    for column, (_, part) in enumerate(panels, 1):
        for row, (y, interval, axis) in enumerate(how.measures, 1):
            for index, (line, points) in enumerate(part.groupby(how.lines)):
                points = points.sort_values(how.x)
                apart = step * (index - (part[how.lines].nunique() - 1) / 2)  # so that intervals do not hide others
                bars = None
                if interval is not None:
                    ends = np.array(points[interval].tolist())
                    bars = {"type": "data", "array": ends[:, 1] - points[y], "arrayminus": points[y] - ends[:, 0]}
                figure.add_scatter(
                    x=points[how.x] + apart, y=points[y], error_y=bars, name=str(line), mode="lines+markers",
                    line_color=_COLOURS[str(line)], legendgroup=str(line),
                    showlegend=row == column == 1, row=row, col=column,
                )  # fmt: skip
            if how.level is not None and row == 1:
                figure.add_hline(
                    y=float(part[how.level].mean()), line_dash="dot", annotation_text="unedited", row=row, col=column
                )
            if column == 1:
                figure.update_yaxes(title=axis, row=row, col=1)
            if row == len(how.measures):
                figure.update_xaxes(title=how.unit, row=row, col=column)
    figure.update_xaxes(tickvals=sorted(frame[how.x].unique()))
    source = result.provenance
    site = source.site if source.site.count(",") < 4 else f"{source.site.count(',') + 1} heads"
    figure.update_layout(
        title=f"{how.title}<br><sup>{source.host} {site}, n = {result.n}, 95% intervals</sup>", template="plotly_white",
        height=160 + 320 * len(how.measures),
    )  # fmt: skip
    return figure


_Column = tuple[str, str, str | None, str]
"""As printed: heading, column of the value, column of its interval, and how: a share `%`, a change `+`, a `p`, a
number `.`, or as it is."""
_SHOWN: dict[str, tuple[_Column, ...]] = {
    "sign": (
        ("timing", "timing", None, ""), ("direction", "direction", None, ""), ("predicted by", "predictor", None, ""),
        ("dose", "magnitude", None, ""), ("agreement", "agreement", "interval", "%"), ("unfitted R2", "r2", None, "."),
    ),
    "installs": (
        ("ranks", "ranks", None, ""), ("places", "positions", None, ""), ("direction", "direction", None, ""),
        ("dose", "magnitude", None, ""), ("said", "rate", "interval", "%"), ("unedited", "native", None, "%"),
        ("random", "random", None, "%"), ("lift", "lift_mean", "lift_interval", "+"),
        ("saturated", "saturated", None, "%"), ("p unedited", "p_native", None, "p"),
        ("p random", "p_random", None, "p"), ("p lift", "p_lift", None, "p"),
    ),
    "erasure": (
        ("feature", "feature", None, ""), ("token", "token", None, ""), ("condition", "condition", None, ""),
        ("dose", "dose", None, ""), ("n", "n", None, ""), ("median", "median", None, "+"),
        ("mean", "mean", "interval", "+"), ("p", "p", None, "p"),
    ),
    "amplification": (
        ("features", "condition", None, ""), ("dose", "dose", None, ""), ("said", "mean", None, "."),
        ("unedited", "native", None, "."), ("more", "difference", "change", "+"),
        ("texts changed", "changed", None, "%"), ("d", "cohens_d", None, "."), ("p unedited", "p", None, "p"),
        ("p random", "p_random", None, "p"),
    ),
    "proper-nouns": (
        ("targets", "targets", None, ""), ("direction", "direction", None, ""), ("dose", "magnitude", None, ""),
        ("unedited", "native", None, "%"), ("said", "rate", None, "%"), ("more", "gain", "difference", "%"),
        ("p", "p", None, "p"), ("p none", "p_equivalent", None, "p"), ("verdict", "verdict", None, ""),
        ("lift", "lift", "lift_interval", "+"), ("p lift", "p_lift", None, "p"), ("p words", "p_words", None, "p"),
    ),
}  # fmt: skip


def console_table(result: Probe) -> Table:
    """The summary's rows as they are printed; what all rows share stands in the title."""
    frame = table(result)
    source, title = result.provenance, [f"{result.name}: {result.provenance.host}"]
    title.append(source.site if source.site.count(",") < 4 else f"{source.site.count(',') + 1} heads")
    title.append(f"n {result.n}")
    columns = []
    for heading, value, interval, how in _SHOWN[result.name]:
        ends = frame[value if interval is None else interval]
        cells = [_cell(how, x, None if interval is None else i) for x, i in zip(frame[value], ends, strict=True)]
        if len(set(cells)) == 1 and len(cells) > 1 and (how == "" or cells[0] == "-"):
            title += [] if cells[0] == "-" else [f"{heading} {cells[0]}"]
        else:
            columns.append((heading, cells))
    shown = Table(title=", ".join(title), title_justify="left", box=SIMPLE, padding=(0, 0, 0, 1))
    for heading, _ in columns:
        shown.add_column(heading, justify="right")
    for row in zip(*(cells for _, cells in columns), strict=True):
        shown.add_row(*row)
    return shown


def _cell(how: str, x: object, interval: tuple[float, float] | None = None) -> str:
    if interval is not None:
        return f"{_cell(how, x)} [{', '.join(_cell(how, end).rstrip('%') for end in interval)}]"
    if isinstance(x, tuple):
        return f"{x[0]} to {x[1] - 1}"  # ranks, the second excluded
    if not isinstance(x, float):
        return str(x)
    if x != x:
        return "-"
    return {"%": f"{100 * x:.1f}%", "+": f"{x:+.3f}", "p": f"{x:.2g}", ".": f"{x:.2f}"}.get(how, f"{x:g}")


def write_probe(result: Probe, folder: Path) -> None:
    """`summary.json` (what was measured on, protocol, table), `records.parquet` (every trial) and `plot.html`."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "plot.html", str(plot(result).to_html(include_plotlyjs=True)))
    result.write(folder)
