"""Plots and tables of the probes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go

from writesae.edits.experiments.amplification import Amplification
from writesae.edits.experiments.erasure import Erasure
from writesae.edits.experiments.installs import InstallResult
from writesae.edits.experiments.sign import SignTest

Result = SignTest | InstallResult | Erasure | Amplification


def table(result: Result) -> pd.DataFrame:
    """The summary rows; intervals as `low` and `high`."""
    frame = pd.DataFrame([asdict(row) for row in result.rows])
    if "interval" in frame:
        frame[["low", "high"]] = pd.DataFrame(frame.pop("interval").tolist())
    return frame


def plot(result: Result) -> go.Figure:
    """Dose on the x axis, the probe's own measure with its interval on the y axis, one line a condition."""
    frame = table(result)
    if isinstance(result, SignTest):
        keys, x, y, title = ["direction", "predictor", "timing"], "magnitude", "agreement", "sign agreement"
    elif isinstance(result, InstallResult):
        keys, x, y, title = ["direction", "positions", "ranks"], "magnitude", "rate", "target appears"
    elif isinstance(result, Erasure):
        keys, x, y, title = ["condition"], "dose", "mean", "change of the token's log probability (nats)"
    else:
        keys, x, y, title = ["condition"], "dose", "mean", "tokens of the class a generation"
    figure = go.Figure()
    for name, part in frame.astype(dict.fromkeys(keys, str)).groupby(keys):
        bars = None
        if "low" in part:
            bars = {"type": "data", "array": part["high"] - part[y], "arrayminus": part[y] - part["low"]}
        label = ", ".join(map(str, name)) if isinstance(name, tuple) else str(name)
        figure.add_scatter(x=part[x], y=part[y], error_y=bars, name=label, mode="lines+markers")
    if isinstance(result, InstallResult | Amplification):
        figure.add_hline(y=float(frame["native"].mean()), line_dash="dot", annotation_text="unedited")
    figure.update_layout(xaxis_title=x, yaxis_title=title, template="plotly_white", title=f"{result.host}: {title}")
    return figure


def write_result(result: Result, folder: Path) -> None:
    """`result.json` (host, revision, protocol, rows), `records.parquet` (every trial) and `plot.html`."""
    folder.mkdir(parents=True, exist_ok=True)
    sites: Sequence[object] = result.sites if isinstance(result, InstallResult) else [result.site]
    data = {
        "kind": type(result).__name__,
        "host": result.host,
        "revision": result.revision,
        "library": version("writesae"),
        "sites": [str(site) for site in sites],
        "config": asdict(result.config),
        "rows": [asdict(row) for row in result.rows],
    }
    result.records.to_parquet(folder / "records.parquet")
    plot(result).write_html(folder / "plot.html", include_plotlyjs=True)
    (folder / "result.json").write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
