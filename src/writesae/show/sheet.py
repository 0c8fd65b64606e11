"""What an object says of itself, written once: for a terminal, as plain text, and as HTML for a notebook."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from typing import Literal, NamedTuple, Protocol, TypeVar

from rich.box import SIMPLE
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from writesae.show.palette import COLOURS, css

Style = Literal["plain", "soft", "strong", "gone", "new"]
TERMINAL: dict[Style, str] = {"plain": "", "soft": "dim", "strong": "bold", "gone": "red", "new": "bold green"}
NOTEBOOK: dict[Style, str] = {
    "plain": "",
    "soft": "opacity:.65",
    "strong": "font-weight:600",
    "gone": f"color:light-dark({','.join(COLOURS['bad'])})",
    "new": f"font-weight:600;color:light-dark({','.join(COLOURS['good'])})",
}
WIDTH = 100
"""Columns of what `print` writes."""


class Span(NamedTuple):
    """Text in one style."""

    text: str
    style: Style = "plain"


Line = str | tuple[Span, ...]


@dataclass(frozen=True)
class Listing:
    """Rows under a head; columns of numbers are set to the right."""

    head: tuple[str, ...]
    rows: Sequence[tuple[Line, ...]]
    title: str = ""


@dataclass(frozen=True)
class Sheet:
    """Lines and listings, from top to bottom."""

    parts: tuple[Line | Listing, ...]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        plain = console.color_system is None
        for part in self.parts:
            yield _table(part, plain) if isinstance(part, Listing) else _text(part, plain)

    def __str__(self) -> str:
        """As printed without colour: what changed stands in brackets."""
        written = Console(file=StringIO(), width=WIDTH, color_system=None, force_terminal=False, force_jupyter=False)
        with written.capture() as caught:
            for part in self.parts:
                if isinstance(part, Listing):
                    written.print(_table(part, plain=True))
                else:
                    written.print(_text(part, plain=True), soft_wrap=True)  # a line stays one line, however long
        return "\n".join(line.rstrip() for line in caught.get().rstrip().splitlines())

    def html(self) -> str:
        """The same as HTML, every text escaped."""
        return "".join(
            _html_table(part) if isinstance(part, Listing) else f'<p style="margin:.3em 0">{_html(part)}</p>'
            for part in self.parts
        )

    def page(self, title: str) -> str:
        """The same as a page of its own."""
        style = (
            f"{css()}\nbody {{ font-family: var(--sans); color: var(--ink); background: var(--paper); margin: 2em }}"
        )
        head = f'<meta charset="utf-8"><title>{html.escape(title)}</title><style>{style}</style>'
        return f'<!doctype html><html lang="en">{head}{self.html()}</html>'


def _spans(line: Line) -> tuple[Span, ...]:
    return (Span(line),) if isinstance(line, str) else line


def _text(line: Line, plain: bool) -> Text:
    out = Text()
    for text, style in _spans(line):
        marked = plain and text and style in ("gone", "new")
        out.append(f"[{text}]" if marked else text, style=TERMINAL[style])
    return out


def _html(line: Line) -> str:
    return "".join(
        f'<span style="white-space:pre-wrap;{NOTEBOOK[style]}">{html.escape(text)}</span>'
        for text, style in _spans(line)
    )


def _sides(listing: Listing) -> list[Literal["left", "right"]]:
    """Where each column is set."""
    numbers = [
        all(isinstance(row[i], str) and re.match(r"[-+\u2212]?[\d.]+%?$|$", row[i]) for row in listing.rows)  # type: ignore[arg-type]
        for i in range(len(listing.head))
    ]
    return ["right" if number and listing.rows else "left" for number in numbers]


def _table(listing: Listing, plain: bool) -> Table:
    table = Table(title=listing.title or None, title_justify="left", box=SIMPLE)
    for name, side in zip(listing.head, _sides(listing), strict=True):
        table.add_column(name, justify=side)
    for row in listing.rows:
        table.add_row(*(_text(cell, plain) for cell in row))
    return table


def _html_table(listing: Listing) -> str:
    sides = [f"text-align:{side};vertical-align:top" for side in _sides(listing)]

    def row(cells: Sequence[Line], tag: str) -> str:
        return "".join(f'<{tag} style="{s}">{_html(cell)}</{tag}>' for cell, s in zip(cells, sides, strict=True))

    caption = f'<caption style="text-align:left">{html.escape(listing.title)}</caption>' if listing.title else ""
    body = "".join(f"<tr>{row(cells, 'td')}</tr>" for cells in listing.rows)
    return f"<table>{caption}<tr>{row(listing.head, 'th')}</tr>{body}</table>"


class Describes(Protocol):
    """Something that can write itself down."""

    def sheet(self) -> Sheet:
        """What it says."""


C = TypeVar("C", bound=Describes)


def shows_itself(kind: type[C]) -> type[C]:
    """Let a class print itself (`print`, a prompt, rich's console) and show itself in a notebook by its `sheet`."""
    for name in ("__str__", "__repr__"):
        setattr(kind, name, lambda self: str(self.sheet()))
    kind.__rich__ = lambda self: self.sheet()  # type: ignore[attr-defined]
    kind._repr_html_ = lambda self: self.sheet().html()  # type: ignore[attr-defined]
    return kind
