"""Positions and words, against values worked out by hand."""

from __future__ import annotations

import pytest

from writesae.page import marks
from writesae.page.quickstart import HistoryRow, Substitution, TargetRun
from writesae.page.run_parts import alive, explained, verdict
from writesae.page.sections.substitution import Outcome
from writesae.show import words


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
    outcome = Outcome(7, 7, {}, 0.55, interval, {}, interval_clustered=clustered)
    assert verdict(outcome).tone == tone


def test_explained_variance_has_held_out_dots_where_they_were_measured() -> None:
    history = [HistoryRow(1, 10, 0.5, 0.1, 7), HistoryRow(2, 20, 0.4, 0.2, 6, 0.15), HistoryRow(3, 30, 0.3, None, 5)]
    outcome = Substitution(0, 0, {}, None, None, {})
    line, dots = explained([TargetRun("state", outcome, history, [])]).data
    assert (line.mode, list(line.x), list(line.y)) == ("lines", [10, 20], [0.1, 0.2])
    assert (dots.mode, list(dots.x), list(dots.y)) == ("markers", [20], [0.15])
    (count,) = alive([TargetRun("state", outcome, history, [])]).data
    assert list(count.y) == [7, 6, 5]


def test_more_words() -> None:
    assert [words.tick(v) for v in (0, 0.02, -0.001, 5e-4, 100)] == ["0", "0.02", "\u221210⁻³", "5\u00d710⁻⁴", "100"]
    assert [words.r_squared(v) for v in (None, -1.5, 0.99, 0.99981, 1.0)] == [
        "\u2013",
        "\u22121.500",
        "0.990",
        "0.99981",
        "1.000",
    ]
    assert words.span((-0.0016, 0.0002), 4) == "\u22120.0016 to +0.0002"
    assert [words.plain(v) for v in (None, 30.28, 1.0, 12345.0)] == ["\u2013", "30.28", "1", "12,345"]
    assert words.brief("a1" * 20) == "a1a1a1a1a1"
    assert words.brief("not recorded") == "not recorded"
    assert words.flat({"a_b": {"c": [1, 2]}, "d": None}) == {"a b c": "1, 2", "d": "none"}
    assert (words.plural(1, "token"), words.plural(2, "dictionary", "dictionaries")) == ("1 token", "2 dictionaries")
