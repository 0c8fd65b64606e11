"""The rows of a reproduction as one self-contained page: the claims on a screen, then each with all its numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from writesae.disk import write_text
from writesae.reproduce import plainly
from writesae.reproduce.bindings import BINDINGS
from writesae.reproduce.claims import Claim, claim
from writesae.reproduce.plainly import failures
from writesae.reproduce.rows import Row
from writesae.reproduce.verdict import MEANING, Verdict
from writesae.show import words
from writesae.show.document import Chapter, document, render

PAGE = "reproduction.html"
TEMPLATES = Path(__file__).parent / "templates"
TONES: dict[Verdict, str] = {
    "holds": "yes", "turns": "yes", "holds in direction": "yes", "does not hold here": "no", "fails here too": "no",
    "ours alone": "open", "not comparable": "open",
}  # fmt: skip
NOTHING = {one.claim: one.nothing for one in BINDINGS}


@dataclass(frozen=True)
class Line:
    """A row as it is drawn; places on its track are percentages."""

    row: Row
    number: str
    bounds: str
    tone: str
    dot: float | None
    low: float
    width: float
    published: float | None
    nothing: float | None


def line(row: Row) -> Line:
    """Draw a row: our number and interval, the published number, and no effect, on one scale of their own."""
    nothing, value = NOTHING.get(row.claim), row.value
    known = value is not None and math.isfinite(value)
    low, high = (x if math.isfinite(x) else value for x in row.interval)
    marks = [x for x in (value, low, high, row.published, nothing) if x is not None and math.isfinite(x)]
    least, most = min(marks, default=0.0), max(marks, default=1.0)
    room = (most - least) * 0.06 or 1.0

    def at(x: float | None) -> float | None:
        usable = x is not None and math.isfinite(x) and known
        return round(100 * (x - least + room) / (most - least + 2 * room), 2) if usable and x is not None else None

    start, end = at(low) or 0.0, at(high) or 0.0
    bounds = " to ".join(map(words.quantity, row.interval)) if math.isfinite(row.interval.low) else ""
    tone = TONES[row.verdict or "not comparable"]
    where = at(value), start, round(end - start, 2), at(row.published), at(nothing)
    return Line(row, words.quantity(value), bounds, tone, *where)


def headline(rows: Sequence[Row]) -> list[Row]:
    """The first number of every claim and host, and beside it the first one that is read by increment."""
    first: dict[tuple[str, str, bool], Row] = {}
    for row in rows:
        increment = row.what.startswith("read by increment")
        if not increment or (row.claim, row.host, False) in first:
            first.setdefault((row.claim, row.host, increment), row)
    return list(first.values())


def counted(rows: Sequence[Row]) -> dict[str, int]:
    """Verdict -> how many claims and hosts have it, by their first numbers: in the published reading."""
    found: dict[str, int] = dict.fromkeys(MEANING, 0)
    for row in headline(rows):
        if row.verdict is not None and not row.what.startswith("read by increment"):
            found[row.verdict] += 1
    return {name: count for name, count in found.items() if count}


def page(rows: Sequence[Row], settings: str) -> str:
    """The page as text; equal rows give equal bytes."""
    by_claim: dict[str, tuple[Claim, list[Line]]] = {}
    for row in rows:
        by_claim.setdefault(row.claim, (claim(row.claim), []))[1].append(line(row))
    hosts = ", ".join(dict.fromkeys(row.host for row in rows))
    first = [line(row) for row in headline(rows)]
    shared = {"claims": by_claim, "hosts": hosts, "meaning": MEANING, "settings": settings}
    failed = [line(row) for _, own in failures(rows) for row in own if row.value is not None]
    told = {"first": first, "counted": counted(rows), "said": plainly.headline(rows), "failed": failed}
    overview = render("overview_of_claims", TEMPLATES, **told, **shared)
    chapters = [
        Chapter("claims", "Claims", overview),
        Chapter("numbers", "Every number", render("every_number", TEMPLATES, **shared)),
    ]
    return document(f"Reproduction, {hosts}", chapters)


def write_page(folder: Path, rows: Sequence[Row], settings: str) -> Path:
    """Write the page into a folder and return its path."""
    path = folder / PAGE
    write_text(path, page(rows, settings))
    return path
