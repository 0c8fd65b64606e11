"""The first chapter of a quickstart: can one atom stand in for one write? What each dictionary's test says."""

from __future__ import annotations

from pathlib import Path

from writesae.page.find import Found, Placed, is_kind
from writesae.show.document import Chapter, render

VERDICTS = {
    "wins": ("yes", "Better than deleting", "the interval lies above one half"),
    "loses": ("no", "Worse than deleting", "the interval lies below one half"),
    "undecided": ("open", "Undecided", "the interval holds one half"),
    "too small to decide": ("open", "Too small to decide", "fewer than half of the effects stand above rounding"),
}
"""Tone, words and reason of each."""


def answer(found: Found, folder: Path) -> list[Chapter]:
    """The chapter, where the folder is a quickstart's; else none."""
    tests = [one for one in found.results if one.result.name == "substitution"]
    if not tests or not is_kind(folder / "run.json", "quickstart"):
        return []
    templates, source = Path(__file__).parent / "templates", tests[0].result.provenance
    body = render("answer", templates, cards=[_card(one) for one in tests], source=source)
    return [Chapter("answer", "Answer", body)]


def _card(one: Placed) -> dict[str, object]:
    """What the test says of one dictionary: in large, every reading at the first timing and form of the write."""
    result = one.result
    (dictionary,), cells = result.provenance.dictionaries, result.summary.main
    first = [c for c in cells if (c.timing, c.native_write) == (cells[0].timing, cells[0].native_write)]
    large = [(cell, dict(zip(("tone", "word", "reason"), VERDICTS[cell.floor.verdict], strict=True))) for cell in first]
    target = "state" if dictionary.target == "state" else "write"
    return {"target": target, "large": large, "cells": cells, "result": result}
