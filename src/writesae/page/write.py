"""A folder of results -> report.html, one self-contained page."""

from __future__ import annotations

from pathlib import Path

from writesae.calls import worded
from writesae.disk import write_text
from writesae.evals import EVALUATIONS
from writesae.page.answer import answer
from writesae.page.find import Found, Unreadable, find
from writesae.page.memory import memory
from writesae.page.shares import shares
from writesae.page.training import training
from writesae.show.document import Chapter, Shown, chapter_of, document, render

TEMPLATES = Path(__file__).parent / "templates"
PAGE = "report.html"


@worded
def report(folder: str | Path) -> Path:
    """Write `report.html` into a folder from all results under it, at any depth, and return its path.

    The page is one file that opens without a network. Results that cannot be read are named on it. Raises InputError
    where there is no result, OutputError where the page cannot be written.
    """
    return write_page(Path(folder))[0]


def write_page(folder: Path) -> tuple[Path, list[Unreadable]]:
    """The same, with what could not be read."""
    found = find(folder)
    path = folder / PAGE
    write_text(path, page(found, folder))
    return path, found.unreadable


def page(found: Found, folder: Path) -> str:
    """The page as text; the same results give the same bytes."""
    shown = show(found)
    hosts = ", ".join(dict.fromkeys(one.result.provenance.host for one in found.results))
    sites = ", ".join(dict.fromkeys(str(s) for one in found.results for s in one.result.provenance.sites))
    chapters = memory(found, folder) + answer(found, folder)
    if len(found.results) > 1 or found.unreadable:
        chapters.append(overview(found, shown, hosts, sites))
    chapters += shares(found)
    for name, some in shown.items():
        about = EVALUATIONS[name]
        chapters.append(chapter_of(name, about.word, about.title, about.intro, some))
    chapters += training(folder)
    return document(f"{hosts} {sites}".strip(), chapters)


def show(found: Found) -> dict[str, list[Shown]]:
    """Every result as it is drawn, by evaluation."""
    shown: dict[str, list[Shown]] = {}
    for one in found.results:
        some = shown.setdefault(one.result.name, [])
        some.append(one.result.shown(f"{one.result.name}-{len(some) + 1}", one.place))
    return shown


def overview(found: Found, shown: dict[str, list[Shown]], hosts: str, sites: str) -> Chapter:
    """Every finding with a link to its chapter, and what could not be read."""
    entries = [(EVALUATIONS[name].title, one, len(some) > 1) for name, some in shown.items() for one in some]
    body = render("overview", TEMPLATES, hosts=hosts, sites=sites, entries=entries, unreadable=found.unreadable)
    return Chapter("overview", "Overview", body)
