"""The colours of the page, once: as CSS variables for the browser, as plain values for figures shown elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import plotly.graph_objects as go


class Pair(NamedTuple):
    """One colour on light and on dark ground."""

    light: str
    dark: str


COLOURS: Mapping[str, Pair] = MappingProxyType(
    {
        "paper": Pair("#faf9f6", "#121417"),
        "surface": Pair("#ffffff", "#1a1d22"),
        "sunken": Pair("#f1efe9", "#22262c"),
        "ink": Pair("#1a1b1e", "#eceae4"),
        "ink-soft": Pair("#55575e", "#a8abb3"),
        "rule": Pair("#e5e2da", "#2c3037"),
        "rule-strong": Pair("#b9b5aa", "#565c66"),
        "state": Pair("#2a63ad", "#74adf2"),
        "write": Pair("#b0521a", "#f2a469"),
        "atom": Pair("#0b7565", "#45cdb3"),
        "delete": Pair("#bd2a58", "#f5819f"),
        "random": Pair("#70757f", "#949ba6"),
        "violet": Pair("#6a4aa8", "#b7a0f0"),
        "gold": Pair("#93700a", "#e0bd52"),
        "mark": Pair("#ffe28a", "#6b5200"),
        "heat": Pair("#06475a", "#4fc4d6"),
        "heat-ink": Pair("#ffffff", "#0c1417"),
        "good": Pair("#0b6b4f", "#5fd6a6"),
        "bad": Pair("#a3243f", "#f58a9c"),
    }
)
"""Name -> colour; the name is the CSS variable's, so a figure says `var(--atom)`."""

SANS = '"Inter", ui-sans-serif, system-ui, -apple-system, "Segoe UI", "Helvetica Neue", Arial, sans-serif'


def css() -> str:
    """The custom properties of the page's root."""
    lines = [f"  --{name}: light-dark({light}, {dark});" for name, (light, dark) in COLOURS.items()]
    return "\n".join([":root {", *lines, f"  --sans: {SANS};", "}"])


def standalone(figure: go.Figure) -> go.Figure:
    """The figure with the light colours in the place of variables, for a notebook or an image file."""
    plain: dict[str, object] = _resolved(figure.to_plotly_json())  # type: ignore[assignment]
    found = go.Figure(plain)
    found.update_layout(paper_bgcolor=COLOURS["surface"].light, plot_bgcolor=COLOURS["surface"].light)
    return found


def _resolved(value: object) -> object:
    if isinstance(value, str) and value.startswith("var(--"):
        name = value[6:].partition(")")[0].partition(",")[0]
        return SANS if name == "sans" else COLOURS[name].light
    if isinstance(value, Mapping):
        return {key: _resolved(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_resolved(one) for one in value]
    return value
