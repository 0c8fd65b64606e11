"""Results as HTML: one self-contained page of chapters, or a single result as a notebook shows it."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import plotly.graph_objects as go
from jinja2 import ChoiceLoader, Environment, FileSystemLoader, StrictUndefined

from writesae.show import bundle, palette, words
from writesae.show.figures import label
from writesae.show.parts import Panel, Plot

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Shown:
    """One result as it is drawn."""

    key: str
    """Prefix of the ids of its figures."""
    place: str
    """Where it was found; empty for one that was just measured."""
    finding: str
    panel: Panel
    facts: Sequence[str]
    """What it was measured on, each in a few words."""
    ledger: Mapping[str, Mapping[str, str]]
    """Title -> everything about it: protocol, provenance, files."""

    @property
    def figures(self) -> dict[str, Plot]:
        """Element id -> figure."""
        return {f"{self.key}-{plot.name}": plot for plot in self.panel.plots}


@dataclass(frozen=True)
class Chapter:
    """One part of a page: its anchor, its name in the navigation, its content, and the figures in it."""

    anchor: str
    short: str
    body: str
    figures: Mapping[str, Plot] = field(default_factory=dict)


def chapter_of(anchor: str, short: str, title: str, intro: str, shown: Sequence[Shown]) -> Chapter:
    """All results of one evaluation."""
    body = render("evaluation", name=anchor, title=title, intro=intro, shown=shown)
    return Chapter(anchor, short, body, {key: plot for one in shown for key, plot in one.figures.items()})


def render(template: str, folder: Path | None = None, **values: object) -> str:
    """A template with these values; those of `folder` are known beside the ones here."""
    return _environment(folder).get_template(f"{template}.html.jinja").render(**values)


def document(title: str, chapters: Sequence[Chapter], *, bare: bool = False) -> str:
    """The page as text; equal chapters give equal bytes. A bare one has no frame, for a notebook."""
    script = (TEMPLATES / "report.js").read_text(encoding="utf-8")
    plots = {key: plot for chapter in chapters for key, plot in chapter.figures.items()}
    return render(
        "page",
        title=words.visible(title),
        bare=bare,
        chapters=chapters,
        style=f"{palette.css()}\n{(TEMPLATES / 'report.css').read_text(encoding='utf-8')}",
        script=script,
        script_integrity=bundle.integrity(script),
        plotly=bundle.plotly_script(),
        figures=bundle.pack(bundle.figures_json(plots)),
    )


class Plots(Mapping[str, go.Figure]):
    """The figures of one result by name; in a notebook the finding, figures and table as the page shows them."""

    def __init__(self, title: str, shown: Shown) -> None:
        """`title` is the evaluation's."""
        self.title, self.shown = title, shown
        self._plots = {plot.name: plot for plot in shown.panel.plots}

    def __getitem__(self, name: str) -> go.Figure:
        return standing_alone(self._plots[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._plots)

    def __len__(self) -> int:
        return len(self._plots)

    def __repr__(self) -> str:
        """The finding, and the figures' names."""
        return f"{words.plain_spaces(self.shown.finding)}\nfigures: {', '.join(self)}"

    def _repr_html_(self) -> str:
        chapter = chapter_of("result", self.title, self.title, "", [self.shown])
        text = html.escape(document(self.title, [chapter], bare=True))
        style = "width:100%;height:900px;border:0"
        return f'<iframe srcdoc="{text}" style="{style}" title="{html.escape(self.title)}"></iframe>'


def standing_alone(plot: Plot) -> go.Figure:
    """A figure in the light colours with its title, for a notebook or an image file."""
    figure = palette.standalone(plot.figure)
    figure.update_layout(title={"text": label(plot.title), "x": 0.02}, margin={"t": 90, "l": 20, "r": 20, "b": 20})
    return figure


def _environment(folder: Path | None) -> Environment:
    places = [TEMPLATES] if folder is None else [folder, TEMPLATES]
    environment = Environment(
        loader=ChoiceLoader([FileSystemLoader(place) for place in places]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for function in (
        words.percent, words.interval, words.quantity, words.count, words.duration, words.power, words.condition,
        words.timing, words.visible, words.visible_token, words.brief, words.flat,
    ):  # fmt: skip
        environment.filters[function.__name__] = function
    return environment
