"""The first chapter of a quickstart: what one write holds. One passage, and what is left of all facts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from writesae.corpus.facts import PATTERN
from writesae.evals.common.result import Result
from writesae.evals.common.stats import Share
from writesae.evals.recall.figures import typical
from writesae.page.find import Found, is_kind
from writesae.show.document import Chapter, render
from writesae.types import Site

INSTEAD = {
    "native": ("the write itself", "nothing is changed"),
    "delete": ("nothing", "the write is erased"),
    "random": ("a random matrix", "rank 1, of its size"),
    "state": ("the atom largest in the state", "dictionary of states, read as published"),
    "increment": ("the atom that this write raises most", "the same dictionary, read by increment"),
    "write": ("the atom of this write", "dictionary of writes"),
}
"""What stands in a write's place, by condition or, of atoms, by reading: its name, and what it is."""


@dataclass(frozen=True)
class Row:
    """What becomes of facts with one thing in the place of their writes."""

    kind: str
    """A key of INSTEAD, and the colour's name."""
    still: Share
    """Facts still right."""
    result: Result[Any, Any]

    def answer(self, fact: int) -> tuple[str, bool]:
        """What is said to the question of one fact of the example, and whether it is right."""
        said, atom = self.result.more["said"], self.kind not in ("native", "delete", "random")
        rows = said[(said.asked == fact) & (said.condition == ("atom" if atom else self.kind))]
        rows = rows[(rows.fact == fact) | (self.kind == "native")]
        rows = rows[rows.reading == self.kind] if atom else rows
        return str(rows.said.iloc[0]).strip(), bool(rows.right.iloc[0])


def memory(found: Found, folder: Path) -> list[Chapter]:
    """The chapter, where the folder is a quickstart's that has asked for facts; else none."""
    first = next((one.result for one in found.results if one.result.name == "recall"), None)
    if first is None or not is_kind(folder / "run.json", "quickstart"):
        return []
    rows, told = rows_of(first), first.more["said"]
    told = told[told.condition == "native"].sort_values("asked")
    fact = typical(first.more["said"], first.summary.costs)
    pattern = (first.config.pattern or PATTERN).strip()
    facts = [pattern.format(name=n.strip(), thing=t.strip()) for n, t in zip(told.name, told.thing, strict=True)]
    lines = [(row, *INSTEAD[row.kind], *row.answer(fact)) for row in rows]
    places, gone = [place(first, cell) for cell in first.summary.cells], first.summary.cost("delete")
    question = pattern.partition("{thing}")[0].format(name=told.name.iloc[fact].strip())
    back = max(lines[3:], key=lambda line: line[0].still.value, default=None)
    body = render(
        "memory", Path(__file__).parent / "templates", host=first.provenance.host, places=places, facts=facts,
        marked=fact, question=question, rows=lines, gone=gone, back=back,
    )  # fmt: skip
    return [Chapter("memory", "Memory", body)]


def rows_of(result: Result[Any, Any]) -> list[Row]:
    """The write itself, nothing, a random matrix, and every dictionary's atom at its coefficient, by reading."""
    rows = [Row("native", result.summary.native, result)]
    rows += [Row(name, result.summary.cost(name).right, result) for name in ("delete", "random")]
    atoms = [c for c in result.summary.costs if (c.condition, c.amplitude) == ("atom", "coefficient")]
    return rows + [Row(cost.reading, cost.right, result) for cost in atoms]


def place(result: Result[Any, Any], cell: str) -> str:
    """Where a write is: `head L1.H1, at the thing`."""
    head, offset = cell.split("+")
    site = Site.parse(head)
    spots = [s for s in result.summary.spots if (s.layer, s.offset) == (site.layer, int(offset))]
    return f"head {head}, at the {spots[0].token.strip() if spots else f'token {offset} behind the name'}"
