"""What the records say: in numbers, in words, in figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import numpy as np
import pandas as pd

from writesae.evals.common.floor import above
from writesae.evals.common.result import Result
from writesae.evals.spectrum import SpectrumConfig
from writesae.show import words
from writesae.show.figures import NUMERICAL_ZERO, canvas, corner, curve, drawn_of, marks, thinned, upright
from writesae.show.heat_map import by_head, heat_map
from writesae.show.parts import Panel, Plot, Table
from writesae.types import NativeWrite, Site

MEMORY = 0.5
"""A head remembers where a token's own write is at most this share of the state after it."""

_HEAD = {
    "layer": "model layer",
    "head": "head within the layer",
    "native_write": "which form of the write was deleted: delta, or value where there is no delta write (RWKV-7)",
    "decay": "mean over all tokens (and channels) of the share of the state that is kept",
}
COLUMNS = _HEAD | {
    "write_share": "|k u^T| / |S_t| (Frobenius), lower median over the writes",
    "stable_rank": "|S_t|_F^2 / |S_t|_2^2, lower median",
    "delete_kl_*": "KL(native || patched) of the next scored token when one write is deleted, nats, lower median; by "
    "timing",
    "above_*": "share of the deletions whose effect stands above rounding; by timing",
    "singular_values": "each singular value of the state as a share of its Frobenius norm, largest first, medians",
}
MORE = {
    "writes": _HEAD | {
        "passage": "number of the passage", "position": "token within it", "token": "its id",
        "state_norm": "|S_t|", "write_share": "of this write", "stable_rank": "of this state",
        "delete_kl_*": "of this write, nats; by timing",
        "floor_*": "KL between two native runs whose rounding differs; by timing",
        "singular_values": "of this state, largest first",
    }
}  # fmt: skip


@dataclass(frozen=True)
class Summary:
    """Over all heads."""

    default_site: str
    """The head with the largest deletion effect among those that remember (write share <= 0.5), else of all."""
    delete_kl: float
    """Its median effect, nats."""
    above: float
    """Share of its deletions whose effect stands above rounding."""
    native_write: NativeWrite
    """Which form of the write was deleted."""
    heads: int
    remembering: int
    """Heads whose write is at most half of the state after it."""
    stable_rank: float
    """Median over heads of their medians, as the following two."""
    write_share: float
    decay: float
    singular_share: float
    """Median over all states of the largest singular value's share of the squared Frobenius norm."""


def heads_of(writes: pd.DataFrame) -> pd.DataFrame:
    """One row a head from the table of writes."""
    timings = [str(name).removeprefix("floor_") for name in writes if str(name).startswith("floor_")]
    rows = []
    for _, own in writes.groupby(["layer", "head"], sort=True):
        relative = np.stack(own.singular_values.tolist()) / np.maximum(own.state_norm.to_numpy()[:, None], 1e-30)
        effects = [f"delete_kl_{timing}" for timing in timings]
        middle = {name: _middle(own[name]) for name in ("write_share", "stable_rank", *effects)}
        middle |= {f"above_{t}": float(above(own[f"delete_kl_{t}"], own[f"floor_{t}"]).mean()) for t in timings}
        same = {str(name): own[name].iloc[0] for name in _HEAD}
        rows.append({**same, **middle, "singular_values": np.median(relative, 0)})
    return pd.DataFrame(rows)


def _middle(x: pd.Series[float]) -> float:
    """The lower median: a value that was measured."""
    return float(np.sort(x.to_numpy())[(len(x) - 1) // 2])


def summarise(tables: Mapping[str, pd.DataFrame], config: SpectrumConfig) -> Summary:
    """The summary of the two tables."""
    records, writes = tables["records"], tables["writes"]
    best, remembering = most(records, config), records[records.write_share <= MEMORY]
    largest = np.array([values[0] for values in writes.singular_values]) / writes.state_norm.to_numpy()
    return Summary(
        default_site=str(Site(int(best["layer"]), int(best["head"]))),
        delete_kl=float(best[f"delete_kl_{config.timings[0]}"]),
        above=float(best[f"above_{config.timings[0]}"]),
        native_write=cast(NativeWrite, str(best.native_write)),
        heads=len(records),
        remembering=len(remembering),
        stable_rank=float(records.stable_rank.median()),
        write_share=float(records.write_share.median()),
        decay=float(records.decay.median()),
        singular_share=float(np.median(np.square(largest))),
    )


def most(records: pd.DataFrame, config: SpectrumConfig) -> pd.Series[Any]:
    """The head with the largest deletion effect among those that remember, else of all."""
    remembering = records[records.write_share <= MEMORY]
    among = remembering if len(remembering) else records
    return among.iloc[int(np.argmax(among[f"delete_kl_{config.timings[0]}"].to_numpy()))]


MOST_LINES = 60
"""Heads whose singular values are drawn, beside the chosen one."""
LEAST_SHARE = 1e-4
"""Where the axis of singular values ends: less is rounding."""
FORMS = {"delta": "delta write", "value": "native write b k v^T, as there is no delta write"}


class Map(NamedTuple):
    """One number of every head, as a heat map and a column of the table."""

    column: str
    title: str
    caption: str
    write: Callable[[float | None], str]
    floor: float | None = None
    """Of a logarithmic shading."""


def maps(config: SpectrumConfig) -> list[Map]:
    """Everything that is drawn of the heads."""
    effects = [
        Map(f"delete_kl_{timing}", f"Deleting a write, {words.timing(timing)}",
            "Median KL of the next scored token, in nats; logarithmic shading.", words.compact, NUMERICAL_ZERO)
        for timing in config.timings
    ]  # fmt: skip
    share = "Norm of one write over the norm of the state after it, median."
    return [
        Map("decay", "Decay", "Mean share of the state that a token keeps.", words.fixed),
        Map("write_share", "Write share", share, words.compact),
        Map("stable_rank", "Stable rank", "Squared norm over the largest squared singular value.", words.compact),
        *effects,
    ]


def finding(result: Result[SpectrumConfig, Summary]) -> str:
    """How many heads remember, and where a write matters most."""
    summary = result.summary
    text = (
        f"{words.count(summary.remembering)} of {words.plural(summary.heads, 'recurrent head')} hold more than their "
        "last write; "
    )
    number = f"(n = {words.plural(result.config.writes, 'write')} a head, {words.timing(result.config.timings[0])})"
    if summary.above < 0.5:
        return (
            f"{text}where writes matter most is too small to decide: even at {summary.default_site} only "
            f"{words.percent(summary.above)} of deletions stand above rounding {number}."
        )
    return (
        f"{text}{'of these, ' if summary.remembering else ''}writes matter most at {summary.default_site}, where "
        f"deleting one ({FORMS[summary.native_write]}) moves the next scored token by a median "
        f"{words.quantity(summary.delete_kl)} nats, at {words.percent(summary.above)} of them by more than rounding "
        f"{number}."
    )


def panel(result: Result[SpectrumConfig, Summary]) -> Panel:
    """Heat maps of the heads, effect against memory, and singular values."""
    records = result.records
    site = [f"L{layer}.H{head}" for layer, head in zip(records["layer"], records["head"], strict=True)]
    heads = records.assign(site=site, chosen=[name == result.summary.default_site for name in site])
    drawn, first = maps(result.config), f"delete_kl_{result.config.timings[0]}"
    plots = (*(_map(heads, one) for one in drawn), _memory(heads, first), _curves(heads))
    strongest = heads.sort_values(first, ascending=False).head(8)
    rows = [(str(r["site"]), *(one.write(float(r[one.column])) for one in drawn)) for r in strongest.to_dict("records")]
    table = Table(("strongest heads", *(one.title.lower() for one in drawn)), rows)
    return Panel(
        plots, table, "Ringed: the head to begin with. A head remembers where one write is at most half of its state."
    )


def _map(heads: pd.DataFrame, one: Map) -> Plot:
    sites = [Site.parse(site) for site in heads.site]
    grid = by_head(dict(zip(sites, heads[one.column].astype(float), strict=True)))
    chosen = [site for site, own in zip(sites, heads.chosen, strict=True) if own]
    ringed = [(grid.rows.index(f"L{site.layer}"), grid.columns.index(f"H{site.head}")) for site in chosen]
    low, high = (words.quantity(float(x)) for x in (heads[one.column].min(), heads[one.column].max()))
    figure = heat_map(grid, one.write, floor=one.floor, ringed=ringed)
    return Plot(one.column, one.title, figure, f"{one.caption} From {low} to {high}.")


def _memory(heads: pd.DataFrame, column: str) -> Plot:
    """Write share (x) against what deleting a write does (y), one dot a head."""
    figure = canvas(360)
    for chosen, rows in heads.groupby("chosen"):
        effect = np.maximum(rows[column].to_numpy(dtype=float), NUMERICAL_ZERO)
        colour, size = ("write", 12) if chosen else ("heat", 7)
        more = {"text": list(rows.site), "showlegend": False}
        marks(
            figure, rows.write_share, effect, colour, size, 0.8, "%{text}<br>write share %{x:.3g}, KL %{y:.3g}", **more
        )
        for x, y, site in zip(rows.write_share, np.log10(effect), rows.site, strict=True) if chosen else ():
            font = {"size": 13, "color": "var(--ink)"}
            figure.add_annotation(
                x=float(x), y=float(y), yshift=16, text=site, showarrow=False, bgcolor="var(--surface)", font=font
            )
    upright(figure, MEMORY)
    figure.update_xaxes(title="share of one write in the state", range=[-0.03, 1.04])
    figure.update_yaxes(title="KL of deleting it (nats)", type="log", dtick=1, exponentformat="power")
    corner(figure, "remembers", top=False, left=True)
    corner(figure, "last write only", top=False, left=False)
    return Plot("memory", "Memory and effect", figure, "One dot a head. Dashed: a write is half of the state.")


def _curves(heads: pd.DataFrame) -> Plot:
    """Singular values of the state as shares of its norm, one line a head."""
    figure = canvas(360)
    others = heads[~heads.chosen]
    drawn = pd.concat([others.iloc[thinned(len(others), MOST_LINES)], heads[heads.chosen]])
    for site, chosen, shares in zip(drawn.site, drawn.chosen, drawn.singular_values, strict=True):
        values = np.asarray(shares, dtype=float)
        colour, width, opacity = ("write", 3, 1.0) if chosen else ("heat", 1.25, 0.45)
        more = {"name": site, "opacity": opacity, "showlegend": False}
        y, says = np.where(values < LEAST_SHARE, np.nan, values), f"{site}, number %{{x}}: %{{y:.3g}}"
        curve(figure, range(1, len(values) + 1), y, colour, width, says, **more)
    figure.update_xaxes(title="number of the singular value")
    figure.update_yaxes(title="share of the state\u2019s norm", type="log", dtick=1, exponentformat="power")
    caption = (
        f"{drawn_of(len(drawn), len(heads), 'heads')} Median over positions; orange: the chosen head. "
        f"Lines end at {words.power(LEAST_SHARE)}."
    )
    return Plot("singular", "Singular values of the state", figure, caption)
