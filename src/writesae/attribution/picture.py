"""Pictures of an attribution: tokens x atoms and tokens x heads as heat maps, and prices against deletions."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import Tensor

from writesae.attribution.effects import Attribution
from writesae.attribution.measured import Compared
from writesae.attribution.verdict import failed, verdict
from writesae.errors import InputError
from writesae.show import words
from writesae.show.document import Shown, chapter_of, document
from writesae.show.figures import canvas, diagonal, label, marks
from writesae.show.heat_map import Grid, heat_map
from writesae.show.parts import Panel, Plot, Table
from writesae.types import Site


def atom_map(found: Attribution, site: Site, count: int = 30) -> Plot:
    """Effects of the `count` atoms that matter most at one site (rows) at each token (columns)."""
    if site not in found.atoms:
        raise InputError(
            f"this attribution has no atoms of {site}; it has {', '.join(map(str, found.atoms)) or 'none'}"
        )
    effect = found.atoms[site].effect
    best = effect.abs().sum(0).topk(min(count, effect.shape[1])).indices
    rows = {f"atom {i}": effect[:, i] for i in best.tolist()}
    return _map(found, f"atoms-{site.layer}-{site.head}", f"Atoms of {site}", rows)


def write_map(found: Attribution, layer: int | None = None) -> Plot:
    """Effects of the native writes of every head (rows) at each token (columns), of one layer or of all."""
    layers = list(found.writes) if layer is None else [layer]
    rows = {str(Site(i, h)): effects for i in layers for h, effects in enumerate(found.writes[i].T)}
    return _map(found, "writes", f"Native writes ({found.native_write})", rows)


def _map(found: Attribution, name: str, title: str, rows: Mapping[str, Tensor]) -> Plot:
    columns = [f"{i} {words.visible_token(text)}" for i, text in enumerate(found.texts)]
    figure = heat_map(Grid(list(rows), columns, [x.tolist() for x in rows.values()]), words.compact, signed=True)
    return Plot(name, title, figure, "First-order effect on the target, of each row at each token.", "whole")


def check_plot(name: str, compared: Compared) -> Plot:
    """First-order effects against what deleting for real did; on the line they agree."""
    both = np.concatenate([compared.predicted, compared.measured, [0.0]])
    figure = canvas(390)
    diagonal(figure, float(both.min()), float(both.max()))
    says, named = "%{text}<br>predicted %{x:.4g}<br>measured %{y:.4g}", [label(item) for item in compared.items]
    marks(figure, compared.predicted, compared.measured, "atom", 8, 1, says, text=named, showlegend=False)
    figure.update_xaxes(title="first-order effect")
    figure.update_yaxes(title="measured by deleting")
    return Plot(f"check-{name}", f"Deleted for real: {name}", figure, words.sentence(verdict(name, compared)))


def shown(found: Attribution, count: int = 30, checks: Mapping[str, Compared] | None = None) -> Shown:
    """A heat map a dictionary, one of all native writes, and the checks if there are."""
    plots = (
        *(atom_map(found, site, count) for site in found.atoms),
        write_map(found),
        *(check_plot(name, compared) for name, compared in (checks or {}).items()),
    )
    top = found.top_atoms(count) if found.atoms else found.top_writes(count)
    rows = [
        (f"{c.site} at {c.position} {c.text!r}", "" if c.feature is None else f"{c.feature}", words.signed(c.effect, 4))
        for c in top
    ]
    finding = f"{found.title} is {words.signed(found.score)}"
    if rows:
        finding += f"; the largest first-order effect on it is {rows[0][2]}, of {rows[0][0]}"
    for name, compared in (checks or {}).items():
        if failed(compared):
            most = int(np.abs(compared.measured).argmax())
            effect = words.signed(float(compared.measured[most]))
            finding += (
                f". Deleted for real, {compared.items[most]} matters most: {effect}; prices of {name} mislead here"
            )
    panel = Panel(plots, Table(("write", "atom", "effect"), rows))
    facts = [f"{found.host.name}", found.timing, f"native write: {found.native_write}", *found.overruled]
    return Shown("attribution", "", f"{finding}.", panel, facts, {"Measured on": words.flat(found.measured_on)})


def attribution_page(found: Attribution, count: int = 30, checks: Mapping[str, Compared] | None = None) -> str:
    """The same as one self-contained HTML page."""
    chapter = chapter_of("attribution", "Attribution", found.title, "", [shown(found, count, checks)])
    return document(found.title, [chapter])
