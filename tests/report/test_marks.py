"""Positions and words, against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from writesae.report import marks, plots, words
from writesae.report.records import Firings, HeadRow, HistoryRow, MedianKL, Outcome, Substitution, TargetRun
from writesae.report.sections import verdict


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "\u2013"),
        (float("nan"), "\u2013"),
        (0.0, "0.00"),
        (0.012345, "0.0123"),
        (-1.5, "\u22121.50"),
        (123.4, "123"),
        (0.9999, "1.00"),
        (0.00004321, "4.3\u2009\u00d7\u200910⁻⁵"),
        (12345.0, "1.2\u2009\u00d7\u200910⁴"),
    ],
)
def test_quantity(value: float | None, text: str) -> None:
    assert words.quantity(value) == text


def test_compact() -> None:
    shown = [words.compact(value) for value in (None, 0.0, 0.952, 0.9996, 0.0134, 1.26, 31.4, 0.00064)]
    assert shown == [words.MISSING, "0.0", "0.95", "1.0", "0.013", "1.3", "31", "6e\u22124"]
    assert words.fixed(0.9914) == "0.991"


def test_percent_interval_duration_and_power() -> None:
    assert words.percent(0.87312) == "87.3\u202f%"
    assert words.percent(-0.596) == "\u221259.6\u202f%"
    assert words.interval((0.85, 0.894)) == "85.0 to 89.4\u202f%"
    assert words.interval(None) == "\u2013"
    assert words.duration(75.2) == "1\u202fmin 15\u202fs"
    assert words.duration(3.04) == "3.0\u202fs"
    assert [words.power(10.0**i) for i in (-4, -1, 3)] == ["10⁻⁴", "0.1", "10³"]


def test_text_is_made_visible() -> None:
    assert words.visible("a\r\nb\tc\x00\u202ed\ud800") == "a↵ b⇥c\ufffd\ufffdd?"
    assert words.visible_token("  ") == "␣␣"
    assert words.visible_token("\n\n") == "↵↵"
    assert words.visible_token(" the") == " the"


def test_log_axis_holds_whole_decades() -> None:
    axis = marks.log_axis([0.003, 0.2, None])
    assert (axis.low, axis.high) == (-3, 0)
    assert axis.position(0.01) == pytest.approx(1 / 3)
    assert axis.position(0.0) == 0.0
    assert axis.ticks() == pytest.approx([0.001, 0.01, 0.1, 1.0])
    assert marks.log_axis([None]) == marks.LogAxis(-1, 1)
    assert marks.log_axis([1.0]) == marks.LogAxis(0, 1)


def test_heat_map_shades_between_lowest_and_highest() -> None:
    heads = [
        HeadRow(2, 0, 0.2, None, None, None, False),
        HeadRow(2, 1, 0.6, None, None, None, True),
        HeadRow(5, 1, 1.0, None, None, None, False),
    ]
    table = marks.heat_map(heads, lambda head: head.decay)
    assert table.heads == [0, 1]
    assert [layer for layer, _ in table.rows] == [2, 5]
    middle = table.rows[0][1][1]
    assert middle is not None
    assert (middle.value, middle.chosen) == (0.6, True)
    assert middle.shade == pytest.approx(0.5)
    assert table.rows[1][1][0] is None
    assert (table.low, table.high, table.floor) == (0.2, 1.0, None)


def test_heat_map_is_logarithmic_above_its_floor() -> None:
    heads = [HeadRow(0, i, None, None, None, kl, False) for i, kl in enumerate((1.0, 0.1, 0.01, 1e-7, 0.0))]
    table = marks.heat_map(heads, lambda head: head.delete_kl, floor=0.01)
    assert [cell.shade for cell in table.rows[0][1] if cell] == pytest.approx([1.0, 0.5, 0.0, 0.0, 0.0])


def test_strip_path_has_one_bar_a_component_scaled_to_the_largest() -> None:
    assert marks.strip_path([1.0, -2.0]) == "M0.1 1h.8v-0.500h-.8zM1.1 1h.8v1.000h-.8z"
    assert marks.strip_path([0.0]).count("M") == 1


@pytest.mark.parametrize(
    ("interval", "clustered", "tone"),
    [
        ((0.6, 0.7), None, "yes"),
        ((0.51, 0.6), (0.48, 0.63), "open"),
        ((0.3, 0.4), (0.2, 0.49), "no"),
        (None, None, "open"),
    ],
)
def test_verdict_follows_the_widest_interval(
    interval: tuple[float, float] | None, clustered: tuple[float, float] | None, tone: str
) -> None:
    outcome = Outcome(7, 7, {}, 0.55, interval, MedianKL(), interval_clustered=clustered)
    assert verdict(outcome).tone == tone


def _firings(atom: list[float], n: int) -> Firings:
    kl = {name: np.full(n, 0.5) for name in ("atom_norm", "delete", "random", "random_norm")}
    return Firings(
        {"atom": np.array(atom)} | kl, np.arange(n), np.ones(n), np.ones(n), [" x"] * n, ["a b x"] * n
    )  # fmt: skip


def test_scatter_counts_what_it_draws_and_what_it_clips() -> None:
    scatter = plots.kl_scatter(_firings([0.25, 0.0, float("nan"), 0.125, 2.0], 5))
    assert (scatter.scored, scatter.drawn, scatter.floored) == (4, 4, 1)
    assert scatter.floor == 0.125
    assert list(scatter.figure.data[0].x) == [0.25, 0.125, 0.125, 2.0]
    assert len(scatter.readings) == 4
    assert scatter.readings[2] == ("a b", " x", "feature 3, coefficient 1.00, cosine to the write 1.00")


def test_scatter_thins_a_long_series_evenly() -> None:
    n = plots.MOST_POINTS + 101
    scatter = plots.kl_scatter(_firings(np.linspace(0.1, 1.0, n).tolist(), n))
    assert (scatter.drawn, scatter.scored) == (plots.MOST_POINTS, n)
    assert scatter.figure.data[0].x[-1] == 1.0


def test_explained_variance_has_held_out_dots_where_they_were_measured() -> None:
    history = [HistoryRow(1, 10, 0.5, 0.1, 7), HistoryRow(2, 20, 0.4, 0.2, 6, 0.15), HistoryRow(3, 30, 0.3, None, 5)]
    outcome = Substitution(0, 0, {}, None, None, MedianKL())
    line, dots = plots.explained([TargetRun("state", outcome, history, {}, [])]).data
    assert (line.mode, list(line.x), list(line.y)) == ("lines", [10, 20], [0.1, 0.2])
    assert (dots.mode, list(dots.x), list(dots.y)) == ("markers", [20], [0.15])
    (count,) = plots.alive([TargetRun("state", outcome, history, {}, [])]).data
    assert list(count.y) == [7, 6, 5]


def test_scatter_of_nothing() -> None:
    scatter = plots.kl_scatter(_firings([], 0))
    assert (scatter.drawn, scatter.scored) == (0, 0)
