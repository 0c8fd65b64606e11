"""The first chapter of a quickstart: can one atom stand in for one write? What each dictionary's test says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from writesae.evals.common.stats import Interval
from writesae.evals.substitution.summary import Cell, Summary
from writesae.page.find import Found, Placed, is_kind
from writesae.show import words
from writesae.show.document import Chapter, render

TONES = {"wins": "yes", "loses": "no"}
WORDS = {
    "wins": "Better than deleting",
    "loses": "Worse than deleting",
    "undecided": "Undecided",
    "too small to decide": "Too small to decide",
}
REASONS = {
    "wins": "the interval lies above one half",
    "loses": "the interval lies below one half",
    "undecided": "the interval holds one half",
    "too small to decide": "fewer than half of the effects stand above rounding",
}


@dataclass(frozen=True)
class Rate:
    """One line of a card: a share with its interval, 0 to 1."""

    label: str
    value: float
    interval: Interval


@dataclass(frozen=True)
class Card:
    """What the test says of one dictionary."""

    tone: str
    """Its colour: `state` or `write`."""
    title: str
    main: Cell
    n: int
    attempted: int
    lines: Sequence[Rate]
    verdict: str
    verdict_tone: str
    reason: str


def answer(found: Found, folder: Path) -> list[Chapter]:
    """The chapter, where the folder is a quickstart's; else none."""
    tests = [one for one in found.results if one.result.name == "substitution"]
    if not tests or not is_kind(folder / "run.json", "quickstart"):
        return []
    cards = [_card(one) for one in tests]
    source = tests[0].result.provenance
    body = render(
        "answer",
        Path(__file__).parent / "templates",
        cards=cards,
        host=source.host,
        site=source.site,
        text=source.text,
    )
    return [Chapter("answer", "Answer", body)]


def _card(one: Placed) -> Card:
    summary, result = one.result.summary, one.result
    assert isinstance(summary, Summary)
    (dictionary,) = result.provenance.dictionaries
    tone = "state" if dictionary.target == "state" else "write"
    main = summary.cells[0]
    verdict = main.floor.verdict
    lines = [
        Rate(f"{words.timing(cell.timing)}, {cell.native_write} write", cell.wins.value, cell.wins.interval)
        for cell in summary.main
    ]
    return Card(
        tone, f"{tone.capitalize()} dictionary", main, result.n, result.attempted, lines, WORDS[verdict],
        TONES.get(verdict, "open"), REASONS[verdict],
    )  # fmt: skip
