"""What only a quickstart's page has: the answer, the atoms, the training, and where it all came from."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import plotly.graph_objects as go

from writesae.page import marks
from writesae.page.quickstart import Atom, Run, TargetRun
from writesae.page.sections.substitution import Outcome
from writesae.show import words
from writesae.show.figures import canvas, rounded
from writesae.show.parts import Plot

LOWEST_EXPLAINED = -1.0
"""Where the axis of explained variance ends: an untrained dictionary can lie far below."""


@dataclass(frozen=True)
class RunPart:
    """What one part puts on the page."""

    values: Mapping[str, object]
    """Names its template uses."""
    plots: Sequence[Plot] = field(default_factory=list)


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


def answer(run: Run) -> RunPart:
    """The win rate of every dictionary, its intervals, and what they decide."""
    cards = []
    for target in run.targets:
        outcomes = target.substitution.outcomes()
        cards.append(
            {
                "target": target.name,
                "main": target.substitution,
                "verdict": verdict(target.substitution),
                "whiskers": {protocol: marks.whiskers(one) for protocol, one in outcomes.items()},
                "counts": outcomes,
            }
        )
    return RunPart({"cards": cards})


def atoms(run: Run) -> RunPart:
    """Portraits of the strongest atoms."""

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

    return RunPart({"groups": [(target.name, [card(atom) for atom in target.atoms]) for target in run.targets]})


def training(run: Run) -> RunPart:
    """Curves of explained variance and of features that are alive."""
    ends = {target.name: _end(target) for target in run.targets if target.history}
    values = [value for t in run.targets for row in t.history for value in (row.explained_variance, row.held_out)]
    cut = any(value is not None and value < LOWEST_EXPLAINED for value in values)
    plots = [
        Plot("explained", "Variance explained", explained(run.targets)),
        Plot("alive", f"Alive features of {words.count(run.summary.features)}", alive(run.targets)),
    ]
    return RunPart({"ends": ends, "cut": cut}, plots)


def _end(target: TargetRun) -> dict[str, object]:
    """Where training ended: the last record, and the last held-out measurement."""
    measured = [row.held_out for row in target.history if row.held_out is not None]
    return {"row": target.history[-1], "held_out": measured[-1] if measured else None}


def explained(targets: Sequence[TargetRun]) -> go.Figure:
    """Explained variance against training tokens: a line a target for training batches, dots for held-out text."""
    figure = canvas()
    for target in targets:
        _curve(figure, target, [(row.tokens, row.explained_variance) for row in target.history])
        held_out = [(row.tokens, row.held_out) for row in target.history]
        if any(value is not None for _, value in held_out):
            _curve(figure, target, held_out, suffix=", held out")
    values = [y for trace in figure.data for y in trace.y]
    bottom = max(LOWEST_EXPLAINED, min(values, default=0.0) - 0.03)
    figure.update_yaxes(title="explained variance", range=[bottom, max(values, default=1.0) + 0.05])
    return _against_tokens(figure)


def alive(targets: Sequence[TargetRun]) -> go.Figure:
    """Alive features against training tokens, a line a target."""
    figure = canvas()
    for target in targets:
        _curve(figure, target, [(row.tokens, row.alive) for row in target.history])
    figure.update_yaxes(title="alive features", rangemode="tozero", separatethousands=True)
    return _against_tokens(figure)


def _curve(figure: go.Figure, target: TargetRun, points: Sequence[tuple[int, float | None]], suffix: str = "") -> None:
    kept = [(tokens, value) for tokens, value in points if value is not None]
    colour = {"state": "var(--state)", "write": "var(--write)"}.get(target.name, "var(--ink)")
    name = html.escape(target.name + suffix)
    figure.add_trace(
        go.Scatter(
            x=[tokens for tokens, _ in kept],
            y=rounded([value for _, value in kept]),
            name=name,
            mode="markers" if suffix else "lines",
            line={"color": colour, "width": 2.25},
            marker={"color": colour, "size": 6},
            showlegend=not suffix,
            hovertemplate=f"{name}: %{{y}}<extra></extra>",
        )
    )


def _against_tokens(figure: go.Figure) -> go.Figure:
    figure.update_xaxes(title="training tokens", exponentformat="none", separatethousands=True)
    figure.update_layout(hovermode="x")
    return figure


def provenance(run: Run) -> RunPart:
    """Everything that says which run this is."""
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
        ("Protocol", words.flat(summary.protocol)),
        ("Hashes (SHA-256)", words.flat(summary.hashes)),
        ("Versions", words.flat(summary.versions)),
        ("Time by step", {step.replace("-", " "): words.duration(value) for step, value in summary.seconds.items()}),
    ]
    return RunPart({"groups": [(title, facts) for title, facts in groups if facts]})
