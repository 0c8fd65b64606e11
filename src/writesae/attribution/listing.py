"""An attribution in words: what is printed, and what is written as JSON."""

from __future__ import annotations

from dataclasses import asdict
from importlib.metadata import version

from rich.console import Console
from rich.table import Table
from rich.text import Text

from writesae.attribution.attribute import Attribution, Contribution
from writesae.attribution.measured import Compared
from writesae.causal.targets import describe_target
from writesae.config import Json

AROUND = 4
"""Tokens of context shown before a write's own."""


def print_attribution(found: Attribution, console: Console, count: int = 10) -> None:
    """The target's value, the layers and heads, and the largest writes and atoms with their text."""
    console.print(
        Text(
            f"{describe_target(found.host, found.target)}: {found.score:.4f} in {found.host.name}; "
            f"effects are first order, {found.timing}"
        )
    )
    heads = sorted(
        ((float(x), f"L{i}.H{h}") for i, e in found.heads.items() for h, x in enumerate(e)), key=lambda p: -abs(p[0])
    )
    layers = ", ".join(f"{layer}: {effect:+.3f}" for layer, effect in found.layers.items())
    console.print(Text(f"layers  {layers}"))
    console.print(Text("heads   " + ", ".join(f"{name} {effect:+.3f}" for effect, name in heads[:count])))
    _table(found, console, f"native writes ({found.form} form)", found.top_writes(count))
    if found.atoms:
        _table(found, console, "atoms", found.top_atoms(count))


def _table(found: Attribution, console: Console, title: str, entries: list[Contribution]) -> None:
    table = Table(title=title, title_justify="left")
    atoms = any(entry.feature is not None for entry in entries)
    for name in ["site", *(["atom", "coefficient"] if atoms else []), "position", "text", "effect"]:
        table.add_column(name, justify="right" if name in ("position", "effect", "coefficient") else "left")
    texts = found.texts
    for entry in entries:
        context = Text("".join(texts[max(0, entry.position - AROUND) : entry.position]).replace("\n", " "), style="dim")
        context.append(entry.text.replace("\n", "\\n"), style="bold")
        atom = [str(entry.feature), f"{entry.coefficient:.4g}"] if atoms else []
        table.add_row(str(entry.site), *atom, str(entry.position), context, f"{entry.effect:+.4f}")
    console.print(table)


def attribution_json(found: Attribution, count: int = 10, checks: dict[str, Compared] | None = None) -> dict[str, Json]:
    """Everything that identifies the result, the rankings, every native write's effect, and the checks."""

    def entry(c: Contribution) -> Json:
        return {**asdict(c), "site": str(c.site)}

    return {
        "host": found.host.name,
        "revision": found.host.revision,
        "library": version("writesae"),
        "tokens": found.tokens.tolist(),
        "texts": list(found.texts),
        "target": {"kind": type(found.target).__name__, **asdict(found.target)},
        "score": found.score,
        "timing": found.timing,
        "form": found.form,
        "layers": {str(layer): effect for layer, effect in found.layers.items()},
        "heads": {str(layer): effects.tolist() for layer, effects in found.heads.items()},
        "writes": {str(layer): effects.tolist() for layer, effects in found.writes.items()},
        "top_writes": [entry(c) for c in found.top_writes(count)],
        "top_atoms": [entry(c) for c in found.top_atoms(count)],
        "checks": {name: _compared(c) for name, c in (checks or {}).items()},
    }


def _compared(compared: Compared) -> Json:
    return {
        "items": list(compared.items),
        "predicted": compared.predicted.tolist(),
        "measured": compared.measured.tolist(),
        "correlation": compared.correlation,
        "unfitted_r2": compared.r2,
        "sign_agreement": compared.sign_agreement,
    }
