"""Bits a token that deleting or replacing every write of a class adds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
import pandas as pd

from writesae.evals.common.cells import AtTiming, Cells, Column, OfWrite, cells, inside, table_of
from writesae.evals.common.change import Change, change_of
from writesae.evals.common.conditions import CONDITIONS, common
from writesae.evals.common.floor import above
from writesae.evals.common.result import Result
from writesae.evals.passage_loss import PassageLossConfig
from writesae.show import words
from writesae.show.figures import Dot, canvas, drawn_of, label, level, marks, thinned, whiskers
from writesae.show.parts import Panel, Plot
from writesae.types import Amplitude

BY = ("timing", "native_write", "amplitude")
COLUMNS = common("passage", "timing") | {
    "native_write": "which matrix is replaced, and classes the atoms",
    "amplitude": "how large the atom and the random matrix are",
    "firings": "writes that are replaced in it",
    "tokens": "tokens scored",
    "nll_*": "summed negative log-likelihood, nats: native, again (native with other rounding), delete, atom, random",
}
MORE = {
    "firings": {
        "passage": "number of the passage", "position": "token whose write is replaced", "feature": "its top feature",
        "coefficient": "of that feature", "native_write": "the matrix by which it is of the class",
    }
}  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """One condition over all tokens of the passages that have firings, under one timing, form of the write and
    amplitude."""

    condition: Annotated[str, Column("in the write\u2019s place", words.condition)]
    timing: AtTiming
    native_write: OfWrite
    amplitude: Annotated[Amplitude, Column("amplitude", words.amplitude)]
    bits: Annotated[
        Change,
        Column("added bits a token", lambda bits: words.signed(bits.mean, 4)),
        Column("95 % interval", lambda bits: words.span(bits.interval, 4)),
        Column("p (signed ranks)", lambda bits: words.quantity(bits.p)),
        Column("passages", lambda bits: words.count(bits.passages)),
        Column("above", lambda bits: words.percent(bits.above)),
    ]
    """A token, added to the native loss, over passages; above: those whose loss deletion changes by more than rounding
    does; p is not corrected."""
    firings: int
    recovered: float
    """Share of what deletion costs that this does not: 1 - (own - native) / (delete - native) of the summed losses; nan
    where the interval of what deletion adds holds zero."""

    @property
    def where(self) -> str:
        """In words."""
        return f"{words.timing(self.timing)}, {self.native_write} write, {words.amplitude(self.amplitude)}"


Summary = Cells[Cell]


def summarise(tables: Mapping[str, pd.DataFrame], config: PassageLossConfig) -> Summary:
    """The summary of the records."""
    return Cells(tuple(cell for how, part in cells(tables["records"], BY) for cell in _cells(how, part, config.seed)))


def _cells(how: dict[str, str], records: pd.DataFrame, seed: int) -> list[Cell]:
    bits, native = added(records), records.nll_native
    total = {name: float((records[f"nll_{name}"] - native).sum()) for name in CONDITIONS}
    effect, floor = (np.square(records[f"nll_{name}"] - native) for name in ("delete", "again"))
    standing = float(above(effect, floor).mean())
    changes = {name: replace(change_of(bits[name], records.passage, seed), above=standing) for name in CONDITIONS}
    costs = changes["delete"].interval.low > 0
    return [
        Cell(
            name, **how, bits=changes[name], firings=int(records.firings.sum()),  # type: ignore[arg-type]
            recovered=1 - total[name] / total["delete"] if costs else float("nan"),
        )
        for name in CONDITIONS
    ]  # fmt: skip


def added(records: pd.DataFrame) -> pd.DataFrame:
    """Bits a token that each condition adds, by passage."""
    bits = {c: (records[f"nll_{c}"] - records.nll_native) / records.tokens / math.log(2) for c in CONDITIONS}
    return pd.DataFrame(bits)


def finding(result: Result[PassageLossConfig, Summary]) -> str:
    """What deleting or replacing all firings costs."""
    own = {cell.condition: cell for cell in result.summary.alike(*BY)[0]}
    one, atom = own["delete"], own["atom"]
    firings, passages = words.count(one.firings), words.plural(one.bits.passages, "passage")
    number = f"{firings} firings of the class in {passages} ({one.where})"
    if one.bits.small:
        return (
            f"Too small to decide what replacing {number} costs: deletion changes the loss by more than rounding in "
            f"{words.percent(one.bits.above)} of them."
        )
    said = [
        f"{words.condition(name)} {words.signed(cell.bits.mean, 4)} ({words.span(cell.bits.interval, 4)})"
        for name, cell in own.items()
    ]
    text = f"Bits a token that replacing all {number} adds, with 95 % intervals over passages: {'; '.join(said)}."
    if words.finite(atom.recovered):
        text += f" Of what deletion costs, the atoms recover {words.percent(atom.recovered)}."
    return text


def panel(result: Result[PassageLossConfig, Summary]) -> Panel:
    """Bits that each replacement adds, over all passages and in each."""
    summary = result.summary
    note = "Above: the share of passages whose loss deletion changes by more than rounding does."
    lines = []
    for cell in summary.cells:
        name = f"{cell.condition}, {words.timing(cell.timing)}, {cell.native_write}, {cell.amplitude}"
        dot = Dot(f"{words.condition(cell.condition)}, {cell.where}", cell.bits.mean, cell.bits.interval)
        lines.append((name, cell.condition, dot))
    figure = whiskers(lines, lambda v: words.signed(v, 4), 0.0, "native")
    figure.update_xaxes(title="added loss (bits a token)")
    means = Plot("means", "Over all passages", figure, "Bars: 95 % bootstrap intervals over passages.")
    first = summary.cells[0]
    return Panel((means, _passages(inside(result.records, first, BY), first)), table_of(Cell, summary.cells), note)


def _passages(records: pd.DataFrame, cell: Cell) -> Plot:
    """Firings of the class in a passage (x) against the bits that replacing them adds (y)."""
    figure, kept = canvas(), records.iloc[thinned(len(records))]
    bits, numbers = added(kept), [int(n) for n in kept.passage]
    says = "passage %{customdata}, %{x} firings<br>%{y:+.4f} bits a token"
    for c in CONDITIONS:
        about = {"name": label(words.condition(c)), "customdata": numbers}
        marks(figure, kept.firings.to_numpy(float), bits[c].to_numpy(), c, 7, 0.7, says, **about)
    level(figure, 0.0, "solid")
    figure.update_xaxes(title="firings of the class in the passage", rangemode="tozero")
    figure.update_yaxes(title="added bits a token")
    caption = f"{drawn_of(len(kept), len(records), 'passages')} {words.sentence(cell.where)}"
    return Plot("passages", "Passage by passage", figure, caption)
