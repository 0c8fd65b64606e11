"""The report's section of one result, in Python: its figures, and the section itself as a notebook shows it."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from writesae.errors import InputError
from writesae.evals.result import Result
from writesae.evals.substitution import Substitution
from writesae.page.measured import Measured
from writesae.page.page import page
from writesae.page.reading import find, measured
from writesae.page.sections import SECTIONS
from writesae.show.figures import label
from writesae.show.palette import standalone
from writesae.show.parts import Table


@dataclass(frozen=True)
class Plots:
    """What the report says about one result. A notebook shows it as the report does, without a network."""

    finding: str
    """The sentence above the figures."""
    figures: Mapping[str, go.Figure]
    """Name -> Plotly figure, in the report's light colours."""
    table: Table
    of: Measured = field(repr=False)

    def _repr_html_(self) -> str:
        text = html.escape(page([self.of], bare=True))
        title, style = html.escape(self.of.name), "width:100%;height:900px;border:0"
        return f'<iframe srcdoc="{text}" style="{style}" title="{title}"></iframe>'

    def __repr__(self) -> str:
        """The sentence, and the figures' names."""
        return f"{self.finding}\nfigures: {', '.join(self.figures)}"


def plot(result: Result[Any, Any] | Substitution | str | Path) -> Plots:
    """The figures of a result, or of the one result in a folder, the same as in the report.

    Raises InputError for a folder with another number of results, DataError for one that is damaged.
    """
    of = _of_folder(Path(result)) if isinstance(result, str | Path) else _of_result(result)
    panel = SECTIONS[of.name].build(of)
    figures = {one.name: standalone(one.figure) for one in panel.plots}
    for one in panel.plots:
        figures[one.name].update_layout(
            title={"text": label(one.title), "x": 0.02}, margin={"t": 90, "l": 20, "r": 20, "b": 20}
        )
    return Plots(panel.finding, figures, panel.table, of)


def _of_folder(folder: Path) -> Measured:
    results = find(folder).results
    if len(results) != 1:
        places = ", ".join(f"{one.name} in {one.place}" for one in results)
        raise InputError(f"{folder} holds {len(results)} results ({places}): give the folder of one")
    return results[0]


def _of_result(result: Result[Any, Any] | Substitution) -> Measured:
    whole = result.result() if isinstance(result, Substitution) else result
    data = whole.to_json()
    assert isinstance(data, dict)
    return measured(data, whole.name, f"the {whole.name} result").filled(whole.records, whole.more)
