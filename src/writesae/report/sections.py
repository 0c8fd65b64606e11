"""The page's sections, in order. A new one is a builder here and a partial in templates/sections/."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import plotly.graph_objects as go

from writesae.report import marks, plots, words
from writesae.report.records import Atom, Firings, Outcome, Run, TargetRun


@dataclass(frozen=True)
class Content:
    """What one section puts on the page."""

    values: Mapping[str, object]
    """Names its partial uses."""
    figures: Mapping[str, go.Figure] = field(default_factory=dict)
    """Element id -> interactive figure drawn into it."""
    readings: Mapping[str, list[plots.Reading]] = field(default_factory=dict)
    """Figure id -> what to show about a point, where the figure's customdata point into it."""


@dataclass(frozen=True)
class Section:
    """One part of the page."""

    name: str
    """Anchor, and the name of the partial."""
    title: str
    """In the navigation."""
    build: Callable[[Run], Content]


@dataclass(frozen=True)
class Verdict:
    """What an interval says about `the atom beats deletion more often than not`."""

    word: str
    tone: str
    reason: str


def verdict(outcome: Outcome) -> Verdict:
    """Yes or no where the widest known interval excludes one half, undecided where it does not."""
    bounds = outcome.interval_clustered or outcome.interval
    if outcome.win_rate is None or bounds is None:
        return Verdict("Not measured", "open", "no firing was scored")
    if bounds[0] > 0.5:
        return Verdict("Better than deleting", "yes", "the interval lies above one half")
    if bounds[1] < 0.5:
        return Verdict("Worse than deleting", "no", "the interval lies below one half")
    return Verdict("Undecided", "open", "the interval holds one half")


def _answer(run: Run) -> Content:
    cards = []
    for target in run.targets:
        outcomes = target.substitution.outcomes()
        cards.append(
            {
                "target": target.name,
                "main": target.substitution,
                "verdict": verdict(target.substitution),
                "whiskers": {protocol: marks.whiskers(protocol, one) for protocol, one in outcomes.items()},
                "counts": outcomes,
            }
        )
    return Content({"cards": cards})


def _effects(run: Run) -> Content:
    ladders, scatters = [], []
    figures: dict[str, go.Figure] = {}
    readings: dict[str, list[plots.Reading]] = {}
    medians = [
        value
        for target in run.targets
        for outcome in target.substitution.outcomes().values()
        for _, value in outcome.median_kl.items()
    ]
    axis = marks.log_axis(medians)
    for target in run.targets:
        ladders.append(
            {
                "target": target.name,
                "outcomes": {
                    protocol: [
                        (name, value, None if value is None else axis.position(value))
                        for name, value in outcome.median_kl.items()
                    ]
                    for protocol, outcome in target.substitution.outcomes().items()
                },
            }
        )
        for protocol, firings in _main_first(target):
            name = f"scatter-{target.name}-{protocol}"
            scatter = plots.kl_scatter(firings)
            figures[name], readings[name] = scatter.figure, scatter.readings
            scatters.append({"id": name, "target": target.name, "protocol": protocol, "scatter": scatter})
    protocols = list(dict.fromkeys(str(item["protocol"]) for item in scatters))
    values = {"ladders": ladders, "axis": axis, "scatters": scatters, "protocols": protocols}
    return Content(values, figures, readings)


def _main_first(target: TargetRun) -> list[tuple[str, Firings]]:
    main = target.substitution.protocol
    return sorted(target.firings.items(), key=lambda item: item[0] != main)


class HeadMap(NamedTuple):
    """A heat map of the heads, its caption, and how its numbers are written."""

    title: str
    gloss: str
    write: Callable[[float | None], str]
    map: marks.HeatMap


def _spectrum(run: Run) -> Content:
    maps = [
        HeadMap(
            "Decay",
            "mean share of the state that a token keeps",
            words.fixed,
            marks.heat_map(run.heads, lambda h: h.decay),
        ),
        HeadMap(
            "Write share",
            "norm of one write over the norm of the state",
            words.compact,
            marks.heat_map(run.heads, lambda head: head.write_share),
        ),
        HeadMap(
            "Stable rank",
            "squared norm over the largest squared singular value",
            words.compact,
            marks.heat_map(run.heads, lambda head: head.stable_rank),
        ),
        HeadMap(
            "Effect of deleting a write",
            "median KL of the next token, in nats",
            words.compact,
            marks.heat_map(run.heads, lambda head: head.delete_kl, floor=plots.NUMERICAL_ZERO),
        ),
    ]
    return Content({"maps": maps, "chosen": next((head for head in run.heads if head.chosen), None)})


def _training(run: Run) -> Content:
    figures = {
        "training-explained": plots.explained(run.targets),
        "training-alive": plots.alive(run.targets),
    }
    ends = {target.name: _end(target) for target in run.targets if target.history}
    values = [value for t in run.targets for row in t.history for value in (row.explained_variance, row.held_out)]
    cut = any(value is not None and value < plots.LOWEST_EXPLAINED for value in values)
    return Content({"ends": ends, "cut": cut}, figures)


def _end(target: TargetRun) -> dict[str, object]:
    """Where training ended: the last record, and the last held-out measurement."""
    measured = [row.held_out for row in target.history if row.held_out is not None]
    return {"row": target.history[-1], "held_out": measured[-1] if measured else None}


def _atoms(run: Run) -> Content:
    def card(atom: Atom) -> dict[str, object]:
        kls = [("atom", atom.kl.atom), ("delete", atom.kl.delete), ("random", atom.kl.random)]
        axis = marks.log_axis([value for _, value in kls])
        return {
            "atom": atom,
            "v": marks.strip_path(atom.v),
            "w": marks.strip_path(atom.w),
            "kls": [(name, value, None if value is None else axis.position(value)) for name, value in kls],
            "strongest": max((context.coefficient for context in atom.contexts), default=1.0) or 1.0,
        }

    return Content({"groups": [(target.name, [card(atom) for atom in target.atoms]) for target in run.targets]})


def _provenance(run: Run) -> Content:
    summary = run.summary
    run_facts = {
        "host": summary.host.name,
        "host revision": summary.host.revision,
        "site": summary.site,
        "training tokens": words.count(summary.tokens),
        "features": words.count(summary.features),
        "active a token (k)": words.count(summary.k),
        "seed": "not recorded" if summary.seed is None else str(summary.seed),
    }
    groups = [
        ("Run", run_facts),
        ("Protocol", _flat(summary.protocol)),
        ("Hashes (SHA-256)", _flat(summary.hashes)),
        ("Versions", _flat(summary.versions)),
        ("Time by step", {step.replace("-", " "): words.duration(value) for step, value in summary.seconds.items()}),
    ]
    return Content({"groups": [(title, facts) for title, facts in groups if facts]})


def _flat(tree: Mapping[str, object], prefix: str = "") -> dict[str, str]:
    """Nested names joined by spaces: {"sae": {"state": x}} -> {"sae state": x}."""
    found: dict[str, str] = {}
    for key, value in tree.items():
        name = f"{prefix}{str(key).replace('_', ' ')}"
        if isinstance(value, Mapping):
            found |= _flat(value, f"{name} ")
        else:
            found[name] = str(value)
    return found


SECTIONS = (
    Section("answer", "Answer", _answer),
    Section("effects", "Effect sizes", _effects),
    Section("atoms", "Atoms", _atoms),
    Section("spectrum", "Heads", _spectrum),
    Section("training", "Training", _training),
    Section("provenance", "Provenance", _provenance),
)
