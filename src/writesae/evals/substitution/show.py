"""What the summary says, in words: the finding, the table, the note."""

from __future__ import annotations

from collections.abc import Sequence

from writesae.evals.common.cells import inside
from writesae.evals.common.floor import rate
from writesae.evals.common.result import Result
from writesae.evals.substitution import PRESETS, PUBLISHED, SubstitutionConfig
from writesae.evals.substitution.figures import distances, grid, scatter, steps, wins
from writesae.evals.substitution.summary import Cell, Summary, accounts
from writesae.show import words
from writesae.show.parts import Panel, Table


def finding(result: Result[SubstitutionConfig, Summary]) -> str:
    """How often the atom wins in the first way of measuring, over all of them, and where that carries the claim."""
    cells, config = result.summary.cells, result.config
    first, known = cells[0], [cell for cell in cells if cell.floor.verdict != "too small to decide"]
    said = rate(first.wins, first.floor, "feature" if config.choose == "features" else "passage")
    chosen = f", of {_drawn(first, config)}" if config.choose == "features" else ""
    parts = [
        f"How often the atom disturbs the model less than deleting the write does ({_named(first, result.summary)}"
        f"{chosen}): {said}."
    ]
    if len(cells) > 1 and known:
        low, high = (words.percent(end(cell.wins.value for cell in known)) for end in (min, max))
        above = [_those(known, [c for c in known if c.wins.interval.low > x]) for x in (0.5, PUBLISHED)]
        few = f"; {words.count(len(cells) - len(known))} are too small to decide" if len(known) < len(cells) else ""
        parts.append(
            f"Over {words.count(len(known))} ways of measuring {low} to {high}{few}: the interval lies above one half "
            f"in {above[0]}, above the published {words.percent(PUBLISHED)} in {above[1]}."
        )
    published = [f"{name} {words.percent(cell.wins.value)}" for cell in cells for name in accounts(cell)]
    if len(published) == len(PRESETS) - 1:  # all accounts: the grid was asked for
        drawn = ", at random tokens and not at firings of registers" if config.choose == "tokens" else ""
        parts.append(f"Measured as the published accounts say{drawn}: {', '.join(published)}.")
    return " ".join(parts)


def _drawn(cell: Cell, config: SubstitutionConfig) -> str:
    """The features whose firings were scored, and how they were chosen."""
    if config.features:
        return words.plural(cell.features, "named feature")
    how = {"by_firings": "drawn by their firings", "evenly": "drawn evenly", "most": "that fire most"}[config.drawn]
    kind = "register" if config.among == "register" else "feature"
    return f"{words.plural(cell.features, kind)} {how}, seed {config.seed}, at most {config.most} firings each"


def _those(known: Sequence[Cell], some: Sequence[Cell]) -> str:
    """How many cells these are, and what they have in common that no other has."""
    if len(some) in (0, len(known)):
        return "all" if some else "none"
    names = {"reading": lambda x: f"read by {x}", "amplitude": words.amplitude}
    names |= {"native_write": words.write, "timing": words.timing}
    for name, said in names.items():
        values = {getattr(cell, name) for cell in some}
        if len(values) == 1 and len(some) == sum(getattr(cell, name) in values for cell in known):
            return f"{len(some)}, all of those {said(values.pop())}"
    return str(len(some))


def _named(cell: Cell, summary: Summary) -> str:
    several = len({one.direction for one in summary.cells}) > 1
    return f"{cell.named}, {words.amplitude(cell.amplitude)}" + (f", {cell.direction}" if several else "")


def panel(result: Result[SubstitutionConfig, Summary]) -> Panel:
    """Firings one by one for every timing and write, wins and KLs of every condition, and a table of all ways."""
    summary = result.summary
    plots = [scatter(cell, inside(result.records, cell)) for cell in summary.main]
    plots += [grid(summary), wins(summary), distances(summary, result.records)]
    plots += steps(summary) if result.config.horizon > 1 else []
    return Panel(tuple(plots), _table(summary), _note(summary, result.config))


def _table(summary: Summary) -> Table:
    others, several = list(summary.cells[0].wins_against), any(map(accounts, summary.cells))
    unlike = len({cell.wins.n for cell in summary.cells}) > 1  # each reading may have firings of its own
    head = (
        "the atom", *(["firings"] if unlike else []), "closer than deletion",
        *(["as published"] if several else []), "above rounding",
        "closer, of these", "decides", *(f"closer than {words.short_condition(name)}" for name in others),
        "median KL, atom", "deletion", *map(words.short_condition, others), "top token changes, atom", "deletion",
    )  # fmt: skip
    rows = []
    for cell in summary.cells:
        kls = (cell.median_kl["atom"], cell.median_kl["delete"], *(cell.median_kl[name] for name in others))
        rows.append(
            (
                _named(cell, summary), *([words.count(cell.wins.n)] if unlike else []),
                f"{words.percent(cell.wins.value)} ({words.interval(cell.wins.interval)})",
                *([", ".join(accounts(cell)) or words.MISSING] if several else []),
                words.percent(cell.floor.above), words.percent(cell.floor.wins.value), cell.floor.verdict,
                *(words.percent(cell.wins_against[name].value) for name in others), *map(words.quantity, kls),
                words.percent(cell.top1["atom"]), words.percent(cell.top1["delete"]),
            )
        )  # fmt: skip
    return Table(head, rows, brief=2 + several + unlike)


def _note(summary: Summary, config: SubstitutionConfig) -> str:
    said, unit = [], "features" if config.choose == "features" else "passages"
    for cell in summary.main:
        quartiles = ", ".join(words.percent(share, 0) for share in cell.failures_by_quartile)
        chains = ", ".join(f"{words.short_condition(x)} {words.percent(y)}" for x, y in cell.strict_chain.items())
        parts = [
            f"{words.sentence(cell.named)[:-1]}: strict chain atom < deletion < {chains}",
            f"median cosine to the write {words.quantity(cell.cosine)}",
            f"median norm of the write over that of the state {words.quantity(cell.share)}",
            f"win rate resampling {words.count(cell.passages)} passages {words.interval(cell.by_passage)}, "
            f"{words.count(cell.features)} features {words.interval(cell.by_feature)}",
            f"paired difference {words.signed(cell.paired_delta)}",
            f"Cliff\u2019s delta {words.signed(cell.cliffs_delta)}",
            f"Wilcoxon on the means of {unit} p = {words.quantity(cell.wilcoxon.p)}",
            f"failures by quartile of the deletion\u2019s effect, smallest first, {quartiles}",
        ]
        said.append("; ".join(parts) + ".")
    said.append(
        "After token: only later tokens read the edited state. At token: the firing token reads it too. Delta write: "
        "what the token really adds to the decayed state; value write: the paper\u2019s b k v\u1d40. Read by state: "
        "the feature with the largest coefficient in the state, at that coefficient; by increment: the one that the "
        "write raises most, and its coefficient is how much the write raises it. Firings of chosen features are those "
        f"where they are active, or raised most. Intervals in the table resample {unit}."
    )
    return " ".join(said)
