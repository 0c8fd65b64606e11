"""Matched comparison, by hand."""

import math

import pandas as pd
import pytest

from writesae.sweep.compare import levels, over_seeds


def test_means_are_over_matched_runs_and_intervals_over_seeds() -> None:
    rows = [
        ("h", "a", 1, 0, 0.2), ("h", "a", 2, 0, 0.4), ("h", "a", 1, 1, 0.3), ("h", "a", 2, 1, 0.5),
        ("h", "a", 1, 2, 0.2), ("h", "a", 2, 2, 0.2),
        ("h", "b", 1, 0, 0.1), ("h", "b", 2, 0, 0.3), ("h", "b", 1, 1, 0.3), ("h", "b", 2, 1, 0.5),
        ("h", "b", 1, 2, 0.1), ("h", "b", 2, 2, 0.5),
        ("h", "a", 9, 0, 100.0),  # has no partner
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=["host", "kind", "k", "seed", "ev"])
    a, b = levels(table, ["kind", "k", "seed"], "kind", "ev")
    assert (a.value, a.runs, b.runs) == ("a", 6, 6)
    assert a.mean == pytest.approx(0.3)  # seeds 0.3, 0.4, 0.2
    assert b.mean == pytest.approx(0.3)  # 0.2, 0.4, 0.3
    assert b.difference == pytest.approx(0.0)  # -0.1, 0 and 0.1
    half = 4.30265 * 0.1 / math.sqrt(3)  # t(2) and the standard deviation of these three
    assert b.difference_interval == pytest.approx((-half, half), rel=1e-4)
    assert a.difference_interval == (0, 0)


def test_what_has_no_number_is_left_out_and_two_seeds_have_no_interval() -> None:
    table = pd.DataFrame(
        [("h", "a", 0, 0.2), ("h", "b", 0, 0.4), ("h", "c", 0, float("nan"))], columns=["host", "kind", "seed", "ev"]
    )
    assert [(one.value, one.mean) for one in levels(table, ["kind", "seed"], "kind", "ev")] == [("a", 0.2), ("b", 0.4)]
    assert all(map(math.isnan, over_seeds([0.2, 0.3])))
    assert levels(table[2:], ["kind", "seed"], "kind", "ev") == []
