"""The figures: one passage, the map, and what comes back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from writesae.evals.common.cells import cells
from writesae.evals.common.result import Result
from writesae.evals.recall import RecallConfig
from writesae.evals.recall.summary import BY, Cost, Summary
from writesae.show import words
from writesae.show.figures import Dot, canvas, dots, lines_of, whiskers
from writesae.show.heat_map import Grid, heat_map
from writesae.show.parts import Plot

if TYPE_CHECKING:
    import pandas as pd

COLOURS = {
    "delete": "delete", "other": "random", "everything": "delete", "attention": "delete", "random": "random",
    "nearest": "gold",
}  # fmt: skip
"""Of conditions; all others have the atom's."""
READ = {"state": "state", "increment": "atom", "write": "write"}


def named(condition: str, dictionary: str, reading: str, amplitude: str) -> str:
    """What stands in the writes' place, in words."""
    if condition == "native":
        return "as it is"
    kind = f" of {dictionary}" * bool(dictionary)
    read = f", read by {reading}" * (reading in ("state", "increment"))
    size = f", {words.amplitude(amplitude)}" * bool(amplitude and condition not in ("random", "all_active"))
    return f"{words.condition(condition)}{kind}{read}{size}"


def passage(result: Result[RecallConfig, Summary]) -> Plot:
    """One passage: its facts (columns), what was done to the writes of one of them (rows), and what the model says."""
    said = result.more["said"]
    fact = typical(said, result.summary.costs)
    here = said[(said.fact == fact) | (said.fact == -1)]
    told = here[here.condition == "native"].sort_values("asked")
    first = result.config.amplitudes[0]
    rows, values, texts = list[str](), list[list[float | None]](), list[list[str]]()
    for how, part in cells(here, BY):
        if how["condition"] == "atom" and how["amplitude"] != first:
            continue
        answers = part.sort_values("asked")
        rows.append(named(**how))
        values.append([1.0 if right else -1.0 for right in answers.right])
        texts.append([text.strip() for text in answers.said])
    columns = [f"{name.strip()}: {thing.strip()}" for name, thing in zip(told.name, told.thing, strict=True)]
    ringed = [(row, fact) for row in range(1, len(rows))]
    figure = heat_map(Grid(rows, columns, values, texts), words.plain, signed=True, ringed=ringed)
    figure.update_layout(height=60 + 34 * len(rows))
    caption = (
        "Columns: who has what, as the passage tells it; cells: what the model answers, teal where it is right. In "
        f"every row but the first, the writes that hold \u201c{columns[fact]}\u201d are changed."
    )
    return Plot("passage", "One passage", figure, caption, "whole")


def typical(said: pd.DataFrame, costs: tuple[Cost, ...]) -> int:
    """The first fact that is right where most facts are, whatever is done to its writes; the first where none is."""
    most = {tuple(getattr(c, name) for name in BY): c.right.value >= 0.5 for c in costs}
    for fact, own in said[said.fact == said.asked].groupby("fact"):
        how = own[list(BY)].itertuples(index=False, name=None)
        if all(right == most[one] for one, right in zip(how, own.right, strict=True)):
            return int(str(fact))
    return 0


def mapped(result: Result[RecallConfig, Summary]) -> Plot:
    """Heads and layers (down) by tokens of the statement (across): what deleting the writes there costs the fact."""
    spots = {(spot.name, spot.offset): spot for spot in result.summary.spots}
    rows = list(dict.fromkeys(spot.name for spot in result.summary.spots))
    tokens = {spot.offset: f"+{spot.offset} {spot.token.strip()}" for spot in result.summary.spots}
    offsets = sorted(tokens)
    values = [[spots[r, o].lost if (r, o) in spots else None for o in offsets] for r in rows]
    held = set(result.summary.cells)
    ringed = [(i, j) for i, r in enumerate(rows) for j, o in enumerate(offsets) if f"{r}+{o}" in held]
    figure = heat_map(Grid(rows, [tokens[o] for o in offsets], values), lambda x: words.decimals(x, 2), ringed=ringed)
    caption = (
        "Median nats that a fact loses when the write of a head, or those of all heads of a layer, is deleted at a "
    )
    caption += "token of its statement; ringed: the writes that hold it."
    return Plot("map", "Where a fact is kept", figure, caption, "whole")


def comes_back(costs: tuple[Cost, ...]) -> Plot:
    """Facts that are still right, whatever stands in the place of their writes."""
    lines = []
    for cost in costs:
        name = named(cost.condition, cost.dictionary, cost.reading, cost.amplitude)
        colour = COLOURS.get(cost.condition) or READ.get(cost.reading, "atom")
        text = f"{words.decimals(cost.lost)} nats lost in the median"
        lines.append((name, colour, Dot(name, cost.right.value, cost.right.bounds, text)))
    figure = whiskers(lines, words.percent, 1.0, "")
    figure.update_xaxes(title="facts still right", tickformat=".0%", range=[-0.03, 1.03])
    return Plot("back", "What is left of a fact", figure, "Bars: 95 % intervals by passage. Dashed: all.", "whole")


def recalled(summary: Summary) -> Plot:
    """Native recall by number of facts and by distance."""
    lines = [(f"{words.count(one.facts)} facts", one) for one in summary.recalled]
    lines += [(f"{one.nearest} to {one.farthest} tokens before", one) for one in summary.distances]
    figure = canvas()
    lines_of(figure, [name for name, _ in lines])
    for i, (name, one) in enumerate(lines):
        dots(figure, name, [Dot(name, one.right.value, one.right.bounds)], "state", float(i), words.percent)
    figure.update_layout(showlegend=False)
    figure.update_xaxes(title="answered right", tickformat=".0%", range=[-0.03, 1.03])
    caption = f"By distance: {summary.facts} facts a passage. Bars: 95 % intervals by passage."
    return Plot("recall", "What it remembers", figure, caption)


def recovered(summary: Summary) -> Plot:
    """Known pairs that have an atom, for the dictionary and for others of its size."""
    lines, told = [], []
    for one in summary.recovered:
        name = f"{one.dictionary}, {words.count(one.features)} at {one.cell}"
        colour = {"states": "atom", "writes": "write"}.get(one.dictionary, "random")
        text = f"best of all atoms {words.percent(one.best.value)}, at cosine 0.7 {words.percent(one.best_low.value)}"
        lines.append((name, colour, Dot(name, one.matched.value, one.matched.bounds, text)))
        aurocs = (words.decimals(x) for x in (one.auroc_pair, one.auroc_name, one.auroc_thing))
        told.append(f"{one.dictionary} {', '.join(aurocs)}")
    figure = whiskers(lines, words.percent, 1.0, "")
    figure.update_xaxes(title="pairs with an atom of their own at cosine 0.9", tickformat=".0%", range=[-0.03, 1.03])
    caption = (
        "Bars: 95 % intervals over pairs. AUROC of the one feature that is best on other passages, for a pair, a name"
    )
    caption += f" and a thing: {'; '.join(told)}."
    return Plot("recovery", "Known pairs among atoms", figure, caption)
