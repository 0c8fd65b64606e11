"""A run folder -> report.html."""

from __future__ import annotations

import os
from pathlib import Path

import plotly.graph_objects as go
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from writesae.errors import OutputError
from writesae.report import bundle, words
from writesae.report.data import load_run
from writesae.report.plots import Reading
from writesae.report.records import Run
from writesae.report.sections import SECTIONS

TEMPLATES = Path(__file__).parent / "templates"


def write_report(run: Path) -> Path:
    """Write `report.html` into a finished run's folder, from its result files alone, and return its path.

    The page is one file that opens without a network. Raises InputError where a file is missing, DataError where one
    is damaged, OutputError where the page cannot be written; the folder is left as it was then.
    """
    page = render(load_run(run))
    path, partial = run / "report.html", run / ".report.html.partial"
    try:
        partial.write_text(page, encoding="utf-8")
        os.replace(partial, path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}") from None
    return path


def render(run: Run) -> str:
    """The page as text; the same run gives the same bytes."""
    environment = _environment()
    figures: dict[str, go.Figure] = {}
    readings: dict[str, list[Reading]] = {}
    parts = []
    for section in SECTIONS:
        content = section.build(run)
        figures |= content.figures
        readings |= content.readings
        partial = environment.get_template(f"sections/{section.name}.html.jinja")
        parts.append((section, partial.render(run=run, summary=run.summary, **content.values)))
    script = (TEMPLATES / "report.js").read_text(encoding="utf-8")
    return environment.get_template("page.html.jinja").render(
        summary=run.summary,
        parts=parts,
        style=(TEMPLATES / "report.css").read_text(encoding="utf-8"),
        script=script,
        script_integrity=bundle.integrity(script),
        plotly=bundle.plotly_script(),
        figures=bundle.pack(bundle.figures_json(figures, readings)),
    )


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for function in (
        words.percent,
        words.interval,
        words.quantity,
        words.count,
        words.duration,
        words.power,
        words.condition,
        words.protocol,
        words.visible,
        words.visible_token,
    ):
        environment.filters[function.__name__] = function
    return environment
