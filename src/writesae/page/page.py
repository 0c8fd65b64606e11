"""Results -> one HTML page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from writesae.page import bundle, run_parts
from writesae.page.measured import Measured
from writesae.page.quickstart import Run
from writesae.page.sections import SECTIONS, Section
from writesae.show import palette, words
from writesae.show.parts import Panel, Plot

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Shown:
    """One result in its section."""

    key: str
    """Prefix of the ids of its figures."""
    of: Measured
    panel: Panel


@dataclass(frozen=True)
class Chapter:
    """One part of the page: its anchor, its name in the navigation, its content."""

    anchor: str
    short: str
    body: str


@dataclass
class _Page:
    environment: Environment
    plots: dict[str, Plot] = field(default_factory=dict)
    """Element id -> what is drawn into it."""
    chapters: list[Chapter] = field(default_factory=list)

    def add(self, anchor: str, short: str, template: str, **values: object) -> None:
        """Render one chapter."""
        body = self.environment.get_template(f"chapters/{template}.html.jinja").render(**values)
        self.chapters.append(Chapter(anchor, short, body))

    def run_part(self, name: str, short: str, run: Run, build: Callable[[Run], run_parts.RunPart]) -> None:
        """One of the parts that only a quickstart has."""
        part = build(run)
        self.plots |= {f"{name}-{plot.name}": plot for plot in part.plots}
        self.add(name, short, name, run=run, summary=run.summary, plots=part.plots, **part.values)

    def section(self, name: str, section: Section, shown: Sequence[Shown]) -> None:
        """All results of one evaluation."""
        for one in shown:
            self.plots |= {f"{one.key}-{plot.name}": plot for plot in one.panel.plots}
        self.add(name, section.short, "evaluation", name=name, section=section, shown=shown)


def show(results: Sequence[Measured]) -> dict[str, list[Shown]]:
    """Build every result's panel: evaluation -> its results. Raises DataError where one is damaged."""
    found: dict[str, list[Shown]] = {}
    for result in results:
        shown = found.setdefault(result.name, [])
        shown.append(Shown(f"{result.name}-{len(shown) + 1}", result, SECTIONS[result.name].build(result)))
    return found


def page(results: Sequence[Measured], run: Run | None = None, *, bare: bool = False) -> str:
    """The page as text; the same results give the same bytes. A bare one has sections only, for a notebook."""
    making, shown = _Page(_environment()), show(results)
    hosts = ", ".join(dict.fromkeys(words.visible(result.source.host) for result in results))
    sites = ", ".join(dict.fromkeys(words.visible(r.source.site) for r in results if r.source.site != "all"))
    if run is not None:
        title = f"{hosts} {words.visible(run.summary.site)}: can one atom stand in for one write?"
        making.run_part("answer", "Answer", run, run_parts.answer)
    else:
        title = f"{hosts} {sites}".strip()
        if not bare and len(results) > 1:
            making.add("overview", "Overview", "overview", hosts=hosts, sites=sites, sections=SECTIONS, shown=shown)
    for name, section in SECTIONS.items():
        if name in shown:
            making.section(name, section, shown[name])
        if name == "substitution" and run is not None:
            making.run_part("atoms", "Atoms", run, run_parts.atoms)
    if run is not None:
        making.run_part("training", "Training", run, run_parts.training)
        making.run_part("provenance", "Provenance", run, run_parts.provenance)
    script = (TEMPLATES / "report.js").read_text(encoding="utf-8")
    return making.environment.get_template("page.html.jinja").render(
        title=title,
        bare=bare,
        chapters=making.chapters,
        style=f"{palette.css()}\n{(TEMPLATES / 'report.css').read_text(encoding='utf-8')}",
        script=script,
        script_integrity=bundle.integrity(script),
        plotly=bundle.plotly_script(),
        figures=bundle.pack(bundle.figures_json(making.plots)),
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
        words.brief,
        words.flat,
    ):
        environment.filters[function.__name__] = function
    return environment
