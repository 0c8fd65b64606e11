"""What the records say: in numbers, in words, in figures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from writesae.evals.atoms import AtomsConfig
from writesae.evals.common.conditions import CONDITIONS, common
from writesae.evals.common.result import Result
from writesae.evals.common.stats import Interval, clustered
from writesae.show import words
from writesae.show.document import render
from writesae.show.figures import canvas, curve, drawn_of, log_ticks, marks, thinned
from writesae.show.parts import Panel, Plot, Table

COLUMNS = common("feature") | {
    "firings": "tokens at which it fires",
    "rate": "share of tokens at which it fires",
    "top": "share of tokens at which its coefficient is the largest",
    "coefficient": "mean over its firings",
    "largest": "largest coefficient",
    "cosine": "median cosine to the native write at its firings",
    "histogram": "firings by coefficient, in equal bins from 0 to the largest",
    "v": "key side of the atom, [d_k]",
    "w": "value side of the atom, [d_v]",
    "kl_*": "median KL in nats at its scored firings: atom, delete, random (at the atom's coefficient); NaN without "
    "any",
    "wins": "share of its scored firings at which the atom's KL is below that of deletion; NaN likewise",
    "scored": "scored firings",
    "neighbours": "most alike atoms of the dictionary",
    "neighbour_cosine": "their cosines",
    "companions": "features that fire at the same tokens beyond chance",
    "lift": "how many times as often as by chance",
}
MORE = {
    "contexts": common("feature", "passage", "position", "coefficient")
    | {
        "quantile": "of its activations, 1 the strongest",
        "place": "index of that token in the context",
        "tokens": "texts of the context's tokens",
        "values": "coefficients of the feature at them, 0 where it does not fire",
    },
    "tokens": common("feature", "token")
    | {
        "path": "`direct`: W_U W_O w of the unit atom; `first order`: through the whole model, at its own coefficient",
        "sign": "1 promoted, -1 suppressed",
        "rank": "0 is moved most",
        "text": "its text",
        "score": "change of its logit, less the mean over the vocabulary",
    },
    "firings": common("passage", "position", "feature", "coefficient")
    | {"cosine": "to the native write", "kl_*": "KL in nats: atom, delete, random"},
}


@dataclass(frozen=True)
class Summary:
    """Over the atoms that are described."""

    atoms: int
    cosine: float
    """Median over atoms of their median cosine to the native write."""
    rate: float
    """Median share of tokens at which one fires."""
    wins: float
    """Mean over scored atoms of the share of firings at which the atom beats deletion."""
    interval: Interval
    """Of it, bootstrap over atoms."""
    scored: int
    """Atoms with a scored firing."""
    firings: int
    """Scored firings."""


def summarise(tables: Mapping[str, pd.DataFrame], config: AtomsConfig) -> Summary:
    """The summary of the tables."""
    records = tables["records"]
    scored = records[records.scored > 0]
    wins = scored.wins.to_numpy(dtype=float)
    return Summary(
        atoms=len(records),
        cosine=float(records.cosine.median()),
        rate=float(records.rate.median()),
        wins=float(wins.mean()) if len(wins) else float("nan"),
        interval=clustered(wins, scored.feature.to_numpy(), config.seed),
        scored=len(scored),
        firings=int(records.scored.sum()),
    )


CARDS = 240
"""Portraits on a page; all are in the files."""


def finding(result: Result[AtomsConfig, Summary]) -> str:
    """How many atoms, how alike to writes, how often better than deleting."""
    s = result.summary
    said = (
        f"{words.count(s.atoms)} atoms fire; the median one at {words.percent(s.rate, 2)} of tokens, with a cosine to "
        f"the write of {words.quantity(s.cosine)}"
    )
    if s.scored:
        said += (
            f"; the average of {words.count(s.scored)} beats deletion at {words.percent(s.wins)} of its firings "
            f"(95 % interval over atoms {words.interval(s.interval)}, {words.count(s.firings)} firings)"
        )
    return said + "."


def panel(result: Result[AtomsConfig, Summary]) -> Panel:
    """Every atom by rate and cosine, a table of the strongest, and their portraits."""
    records = result.records
    rows = [
        (
            f"feature {r['feature']}", words.count(r["firings"]), words.percent(r["rate"], 2),
            words.quantity(r["coefficient"]), words.quantity(r["cosine"]), words.percent(r["wins"], 0),
            words.quantity(r["kl_atom"]), words.quantity(r["kl_delete"]),
        )
        for r in records.head(12).to_dict("records")
    ]  # fmt: skip
    head = ("strongest", "firings", "of tokens", "mean coefficient", "cosine", "wins", "KL atom", "KL delete")
    note = (
        "Wins and KLs are of the firings that were measured. Contexts: the marked token is where the atom fires. "
        "Tokens by first order go through the whole model, at the atom's own coefficient; those of the direct path "
        "through the head's output projection and the unembedding alone."
    )
    return Panel((_rates(records), _activity(records)), Table(head, rows), note, browser(result))


def _rates(records: pd.DataFrame) -> Plot:
    """How often an atom fires against how alike it is to the writes it fires on."""
    figure = canvas(360)
    kept = records.iloc[thinned(len(records))]
    says = "feature %{customdata[0]}<br>fires at %{x:.2%} of tokens, cosine %{y:.3g}, wins %{customdata[1]}"
    data = [[int(f), words.percent(w, 0)] for f, w in zip(kept.feature, kept.wins, strict=True)]
    marks(figure, kept.rate, kept.cosine, "atom", 6, 0.6, says, customdata=data, showlegend=False)
    low, high = float(records.rate.min()), float(records.rate.max())
    figure.update_xaxes(title="share of tokens", **log_ticks(low / 1.3, max(high, low * 2) * 1.3))
    figure.update_yaxes(title="median cosine to the native write")
    return Plot("rates", "How often, and how alike to the write", figure, drawn_of(len(kept), len(records), "atoms"))


def _activity(records: pd.DataFrame) -> Plot:
    """All atoms' activations together, each as a share of its largest."""
    figure = canvas(360)
    density = np.stack([np.asarray(h, dtype=float) / max(1, np.sum(h)) for h in records.histogram])
    edges = np.linspace(0, 1, density.shape[1] + 1)
    middle = (edges[:-1] + edges[1:]) / 2
    low, mid, high = np.quantile(density, [0.25, 0.5, 0.75], axis=0)
    for values, name, width in ((low, "a quarter of atoms", 1), (mid, "median atom", 2.5), (high, "three quarters", 1)):
        dash = "solid" if width > 1 else "dot"
        curve(figure, middle, values, "atom", width, f"{name}: %{{y:.3g}}", dash, name=name)
    figure.update_xaxes(title="coefficient over the atom's largest", tickformat=".0%")
    figure.update_yaxes(title="share of its firings", rangemode="tozero")
    return Plot("activity", "How strongly atoms fire", figure)


def browser(result: Result[AtomsConfig, Summary]) -> str:
    """The portraits, with a search and an order."""
    shown = result.records.head(CARDS)
    contexts = dict(list(result.more["contexts"].groupby("feature")))
    tokens = dict(list(result.more["tokens"].groupby("feature")))
    cards = [_card(row, contexts.get(row["feature"]), tokens.get(row["feature"])) for row in shown.to_dict("records")]
    return render("cards", Path(__file__).parent, cards=cards, left=len(result.records) - len(cards))


def _card(row: Mapping[Any, Any], contexts: pd.DataFrame | None, tokens: pd.DataFrame | None) -> dict[str, object]:
    """One atom's portrait, as the template wants it."""
    kls = {name: float(row[f"kl_{name}"]) for name in CONDITIONS}
    known = [math.log10(x) for x in kls.values() if words.finite(x) and x > 0]
    low, high = (math.floor(min(known)), math.ceil(max(known))) if known else (-1, 1)
    span, largest = max(1, high - low), float(row["largest"]) or 1.0
    return {
        "record": row, "v": strip_path(row["v"]), "w": strip_path(row["w"]), "histogram": bars_path(row["histogram"]),
        "kls": [
            (name, x, (math.log10(x) - low) / span if words.finite(x) and x > 0 else None) for name, x in kls.items()
        ],
        "contexts": [] if contexts is None else [_context(one, largest) for one in contexts.to_dict("records")],
        "tokens": [] if tokens is None else _moved(tokens), "alike": _alike(row),
    }  # fmt: skip


def _context(row: Mapping[Any, Any], largest: float) -> dict[str, object]:
    """One firing in its text; `part` is its share of the atom's largest coefficient."""
    texts, place, coefficient = row["tokens"], int(row["place"]), float(row["coefficient"])
    before, after = "".join(texts[:place]), "".join(texts[place + 1 :])
    part = coefficient / largest
    return {"before": before, "token": texts[place], "after": after, "coefficient": coefficient, "part": part}


def _moved(tokens: pd.DataFrame) -> list[tuple[str, str, tuple[tuple[str, float], ...]]]:
    found = []
    for (path, sign), part in tokens.sort_values("rank").groupby(["path", "sign"], sort=False):
        pairs = tuple((str(t), float(s)) for t, s in zip(part.text, part.score, strict=True))
        found.append((str(path), "promotes" if sign == 1 else "suppresses", pairs))
    return sorted(found, key=lambda one: (one[0] == "direct", one[1]))


def _alike(row: Mapping[Any, Any]) -> list[tuple[str, str]]:
    nearest = [f"{f} ({words.decimals(x)})" for f, x in zip(row["neighbours"], row["neighbour_cosine"], strict=True)]
    together = [f"{f} ({words.quantity(x)} times)" for f, x in zip(row["companions"], row["lift"], strict=True)]
    both = (("alike", nearest), ("fires with", together))
    return [(name, ", ".join(others)) for name, others in both if others]


def strip_path(vector: Sequence[float]) -> str:
    """SVG path of one bar a component around a zero line, in a box `len(vector)` wide and 2 high."""
    top = max((abs(value) for value in vector), default=0.0) or 1.0
    return "".join(f"M{i}.1 1h.8v{-value / top:.3f}h-.8z" for i, value in enumerate(vector))


def bars_path(counts: Sequence[float]) -> str:
    """SVG path of bars from the floor, in a box `len(counts)` wide and 1 high; small counts stay visible."""
    top = math.log1p(max(counts, default=0.0)) or 1.0
    return "".join(f"M{i}.1 1h.8v{-math.log1p(n) / top:.3f}h-.8z" for i, n in enumerate(counts) if n)
