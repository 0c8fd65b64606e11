"""What the summary says, in words: the finding, the table, the note."""

from __future__ import annotations

from writesae.evals.common.cells import inside
from writesae.evals.common.floor import rate
from writesae.evals.common.result import Result
from writesae.evals.substitution import SubstitutionConfig
from writesae.evals.substitution.figures import distances, grid, scatter, steps, wins
from writesae.evals.substitution.summary import Summary
from writesae.show import words
from writesae.show.parts import Panel, Table


def finding(result: Result[SubstitutionConfig, Summary]) -> str:
    """How often the atom wins, for every timing and form of the write."""
    said = "; ".join(f"{cell.named}, {rate(cell.wins, cell.floor)}" for cell in result.summary.main)
    return f"How often the atom disturbs the model less than deleting the write does: {said}."


def panel(result: Result[SubstitutionConfig, Summary]) -> Panel:
    """Firings one by one for every timing and write, wins and KLs of every condition, and a table of all ways."""
    summary = result.summary
    plots = [scatter(cell, inside(result.records, cell)) for cell in summary.main]
    plots += [grid(summary), wins(summary), distances(summary, result.records)]
    plots += steps(summary) if result.config.horizon > 1 else []
    return Panel(tuple(plots), _table(summary), _note(summary))


def _table(summary: Summary) -> Table:
    others = list(summary.cells[0].wins_against)
    several = len({cell.direction for cell in summary.cells}) > 1
    head = (
        "the atom", "closer than deletion", "above rounding", "closer, of these", "decides",
        *(f"closer than {words.short_condition(name)}" for name in others), "median KL, atom", "deletion",
        *(words.short_condition(name) for name in others), "top token changes, atom", "deletion",
    )  # fmt: skip
    rows = []
    for cell in summary.cells:
        named = f"{cell.named}, {words.amplitude(cell.amplitude)}" + (f", {cell.direction}" if several else "")
        kls = (cell.median_kl["atom"], cell.median_kl["delete"], *(cell.median_kl[name] for name in others))
        rows.append(
            (
                named, f"{words.percent(cell.wins.value)} ({words.interval(cell.wins.interval)})",
                words.percent(cell.floor.above), words.percent(cell.floor.wins.value), cell.floor.verdict,
                *(words.percent(cell.wins_against[name].value) for name in others), *map(words.quantity, kls),
                words.percent(cell.top1["atom"]), words.percent(cell.top1["delete"]),
            )
        )  # fmt: skip
    return Table(head, rows)


def _note(summary: Summary) -> str:
    said = []
    for cell in summary.main:
        quartiles = ", ".join(words.percent(share, 0) for share in cell.failures_by_quartile)
        parts = [
            f"{words.sentence(cell.named)[:-1]}: strict chain atom < deletion < random "
            f"{words.percent(cell.strict_chain)}",
            f"median cosine to the write {words.quantity(cell.cosine)}",
            f"median norm of the write over that of the state {words.quantity(cell.share)}",
            f"win rate resampling features {words.interval(cell.by_feature)}",
            f"paired difference {words.signed(cell.paired_delta)}",
            f"Cliff\u2019s delta {words.signed(cell.cliffs_delta)}",
            f"Wilcoxon on the means of {words.count(cell.passages)} passages p = {words.quantity(cell.wilcoxon.p)}",
            f"failures by quartile of the deletion\u2019s effect, smallest first, {quartiles}",
        ]
        said.append("; ".join(parts) + ".")
    said.append(
        "After token: only later tokens read the edited state. At token: the firing token reads it too. Delta write: "
        "what the token really adds to the decayed state; value write: the paper\u2019s b k v\u1d40. Read by state: "
        "the feature with the largest coefficient in the state; by increment: the one that the write raises most, by "
        "how much it raises it. Intervals are by passage."
    )
    return " ".join(said)
