"""What the summary says, in words: the finding, the table, the note."""

from __future__ import annotations

from writesae.evals.common.cells import table_of
from writesae.evals.common.result import Result
from writesae.evals.recall import RecallConfig, figures
from writesae.evals.recall.summary import Cost, Summary
from writesae.show import words
from writesae.show.parts import Panel

HOW = {"exact": "exact first order", "closed": "the closed form"}
KINDS = {
    "exchanged": "with the next fact\u2019s value under its own key, the next fact\u2019s thing is said",
    "installed": "with the write of another passage added, a name that was never told is known",
    "without": "with nothing added it is",
}


def finding(result: Result[RecallConfig, Summary]) -> str:
    """What is remembered, where it is kept, what its loss costs, and what an atom brings back."""
    s, several = result.summary, len(result.summary.cells) > 1
    gone, other, random = s.cost("delete"), s.cost("other"), s.cost("random")
    every, attends = s.cost("everything"), s.cost("attention")
    assert gone is not None
    held = f"{', '.join(s.cells[:-1])} and {s.cells[-1]} together" if several else s.cells[0]
    text = (
        f"{result.provenance.host} answers {words.percent(s.native.value)} of {s.facts} facts right "
        f"({words.interval(s.native.bounds)}). A fact is held by {held}: without {'these writes' if several else 'it'} "
        f"{_right(gone)} stay right, {words.decimals(gone.lost)} nats are lost in the median, and "
        f"{words.percent(gone.others_right)} of the other facts stay right"
    )
    if other is not None:
        text += f"; without as many other writes of the same tokens {words.percent(other.right.value)} do"
    for cost, what in ((every, "without those of every head from the name on"), (attends, "by attention alone")):
        text += f"; {what} {words.percent(cost.right.value)}" if cost is not None else ""
    atoms = [c for c in s.costs if c.condition == "atom" and c.amplitude == result.config.amplitudes[0]]
    said = [f"an atom of {c.dictionary}{f' read by {c.reading}' * (c.reading != 'write')} {_right(c)}" for c in atoms]
    said += [f"a random matrix {_right(random)}"] if random is not None else []
    text += f". Right with something in {'their' if several else 'its'} place: {', '.join(said)}."
    known = []
    for kind in dict.fromkeys(c.dictionary for c in atoms):
        own = [one.matched.value for one in s.recovered if one.dictionary == kind]
        low, high = words.percent(min(own)), words.percent(max(own))
        known.append(f"{low if low == high else f'{low} to {high}'} have one of {kind}")
    if known:
        text += f" Of {words.count(s.recovered[0].pairs)} known pairs, with an atom of their own at cosine 0.9: "
        text += ", ".join(known) + "."
    return text


def _right(cost: Cost) -> str:
    return f"{words.percent(cost.right.value)} ({words.interval(cost.right.bounds)})"


def panel(result: Result[RecallConfig, Summary]) -> Panel:
    """One passage, the map, what comes back, recall, recovery."""
    s = result.summary
    plots = [figures.passage(result), figures.mapped(result), figures.comes_back(s.costs), figures.recalled(s)]
    plots += [figures.recovered(s)] if s.recovered else []
    notes = [
        *(
            f"{words.percent(x)} of the state of {site} is its {form} write there."
            for site, own in result.shares.items() for form, x in own.items()
        ),
        f"The write of the pair most like it has a cosine of {words.decimals(s.recovered[0].alike)} to a pair\u2019s."
        if s.recovered else "",
        f"Deletion and first order agree over single writes with a rank correlation of {words.decimals(s.first_order)}."
        if words.finite(s.first_order) else "",
        *(
            f"{how.capitalize()}: {words.percent(one.right.value)} ({words.interval(one.right.bounds)})."
            for one in s.moved for how in [KINDS[one.kind]]
        ),
        *(
            f"By {HOW[one.how]}, a binding write is the first of all writes for "
            f"{words.percent(one.first.value)} of facts ({words.interval(one.first.bounds)}; by chance "
            f"{words.percent(one.chance_first)}), mean reciprocal rank "
            f"{words.decimals(one.reciprocal)} (by chance {words.decimals(one.chance_reciprocal)})."
            for one in s.ranked
        ),
    ]  # fmt: skip
    return Panel(tuple(plots), table_of(Cost, s.costs), " ".join(filter(None, notes)))
