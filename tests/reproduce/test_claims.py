"""Claims as data, what they are bound to, and what a number says of a published one."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import pytest

from writesae.errors import InputError
from writesae.evals import EVALUATIONS
from writesae.evals.common.stats import Interval, clustered_statistic
from writesae.reproduce import ReproduceConfig, answers
from writesae.reproduce.answers import Ours
from writesae.reproduce.bindings import BINDINGS, MEASUREMENTS
from writesae.reproduce.claims import claim, claims
from writesae.reproduce.config import chosen
from writesae.reproduce.dictionaries import KINDS, SHIPPED
from writesae.reproduce.page import counted, headline, line
from writesae.reproduce.rows import Row
from writesae.reproduce.rows import row as made_row
from writesae.reproduce.verdict import MEANING, Verdict, verdict


def test_every_claim_is_bound_once() -> None:
    assert [one.id for one in claims()] == [one.claim for one in BINDINGS]
    without = [one.id for one in claims() if not one.numbers]
    assert without == ["firing_order", "class_distribution", "k_sweep", "spectral_audit", "known_truth"]
    assert len(claims()) == 33 + len(without)


@pytest.mark.parametrize("binding", BINDINGS, ids=lambda b: b.claim)
def test_what_a_claim_is_bound_to_exists(binding: object) -> None:
    assert binding in BINDINGS
    one = next(b for b in BINDINGS if b is binding)
    for path in filter(None, (one.published, *one.by_family.values())):
        assert math.isfinite(claim(one.claim).number(path))
    assert set(one.asks) <= set(MEASUREMENTS)


@pytest.mark.parametrize("name", MEASUREMENTS)
def test_measurements_fit_their_evaluations(name: str) -> None:
    one = MEASUREMENTS[name]
    evaluation = EVALUATIONS[one.evaluation]
    assert name.partition("-")[0] == one.evaluation
    options = {key: value for key, value in one.options.items() if key != "site"}
    evaluation.configured(options)  # raises for an unknown one
    assert {word.partition("/")[0] for words in one.dictionaries for word in words.split()} <= {
        *KINDS, "layer", "layers", "cells", "ks", SHIPPED,
    }  # fmt: skip


def test_no_measurement_is_asked_for_by_nobody() -> None:
    asked = {name for one in BINDINGS for name in one.asks}
    assert set(MEASUREMENTS) == asked


@pytest.mark.parametrize(
    ("value", "low", "high", "kind", "said"),
    [
        (0.9, 0.88, 0.93, {}, "holds"),  # reaches 0.92
        (0.97, 0.96, 0.98, {}, "holds"),  # beyond it
        (0.7, 0.6, 0.8, {}, "holds in direction"),
        (0.52, 0.48, 0.56, {}, "does not hold here"),
        (0.3, 0.2, 0.4, {}, "does not hold here"),
        (0.7, 0.6, 0.8, {"published": 0.48}, "turns"),  # published on the wrong side of no effect: a failure
        (0.48, 0.4, 0.55, {"published": 0.48}, "fails here too"),
        (0.52, 0.48, 0.56, {"no_effect": True}, "holds"),
        (0.7, 0.6, 0.8, {"no_effect": True}, "does not hold here"),
        (0.95, math.nan, math.nan, {}, "not comparable"),  # without an interval nothing is said
        (0.95, 0.9, 0.99, {"published": None}, "ours alone"),
        (math.nan, math.nan, math.nan, {}, "not comparable"),
    ],
)
def test_verdicts(value: float, low: float, high: float, kind: dict[str, Any], said: Verdict) -> None:
    options = {"published": 0.92, "nothing": 0.5, "rising": True, "no_effect": False} | kind
    assert verdict(Ours("", value, Interval(low, high), 9), **options) == said
    assert said in MEANING


def test_a_claim_that_lies_below_no_effect() -> None:
    number = Ours("", -0.2, Interval(-0.3, -0.1), 9)
    assert verdict(number, -0.116, 0.0, False, False) == "holds"
    assert verdict(number, -0.5, 0.0, False, False) == "holds in direction"
    assert verdict(number, 0.116, 0.0, True, False) == "does not hold here"


RECORDS = pd.DataFrame(
    {
        "passage": [0, 0, 1, 1, 2, 2, 3, 3],
        "kl_atom": [1.0, 2.0, 3.0, 9.0, 1.0, 1.0, 1.0, 7.0],
        "kl_delete": [2.0, 1.0, 4.0, 8.0, 3.0, 5.0, 6.0, 7.0],
        "kl_random": [3.0, 3.0, 3.5, 9.0, 4.0, 4.0, 9.0, 9.0],
        "kl_flat_svd": [3.0, 3.0, 3.0, 3.0, 3.0, 3.0, 3.0, 3.0],
    }
)


def test_numbers_of_records_by_hand() -> None:
    assert answers.strict_chain(RECORDS) == 3 / 8  # rows 0, 4 and 6
    assert answers.paired_delta(RECORDS) == (5 - 2) / 8  # row 7 is a tie
    assert answers.beats_flat(RECORDS) == 5 / 8 - 5 / 8
    assert answers.median_ratio(RECORDS) == 1.5 / 4.5
    # quarters of deletion: rows 1 and 0 (one of them fails), rows 7 and 3 (both fail)
    assert answers.failures_fall(RECORDS) == 0.5 - 1.0


def test_an_interval_resamples_whole_passages() -> None:
    table = pd.DataFrame({"passage": [0] * 50 + [1] * 50, "x": [0.0] * 50 + [1.0] * 50})
    value, bounds = clustered_statistic(table, "passage", lambda t: float(t.x.mean()), 0)
    assert (value, bounds) == (0.5, (0.0, 1.0))
    value, bounds = clustered_statistic(table[:50], "passage", lambda t: float(t.x.mean()), 0)
    assert value == 0.0
    assert math.isnan(bounds.low)


def test_seeds_are_joined_by_their_widest_interval() -> None:
    each = [Ours("a", 0.6, Interval(0.5, 0.7), 10), Ours("a", 0.8, Interval(0.75, 0.9), 20)]
    joined = answers.over_seeds("a", each)
    assert joined.what == "a, 2 seeds"
    assert joined.value == pytest.approx(0.7)
    assert (joined.interval, joined.n) == ((0.5, 0.9), 30)


def test_a_published_number_is_that_of_the_host_s_own_family() -> None:
    (cosine,) = [one for one in BINDINGS if one.claim == "hosts.cosine"]
    ours = Ours("", 0.4, Interval(0.3, 0.5), 9)
    assert made_row(cosine, ours, "h", "mamba2").published == 0.0575
    assert made_row(cosine, ours, "h", "gated-deltanet").published == 0.262


def test_a_replaced_state_that_adds_nothing_is_what_was_claimed() -> None:
    (fidelity,) = [one for one in BINDINGS if one.claim == "fidelity.ppl"]
    assert made_row(fidelity, Ours("", -0.01, Interval(-0.07, 0.03), 9), "h", "").verdict == "holds"
    assert made_row(fidelity, Ours("", 0.5, Interval(0.4, 0.6), 9), "h", "").verdict == "does not hold here"


def row(claim: str, what: str, value: float, said: Verdict | None) -> Row:
    return Row(claim, "h", what, 0.9, value, Interval(value - 0.1, value + 0.1), 9, said, "")


def test_the_first_screen_has_both_readings_and_counts_the_published_one() -> None:
    rows = [
        row("population", "read by state, after token", 0.4, "does not hold here"),
        row("population", "read by increment, after token", 0.8, "holds in direction"),
        row("population", "read by increment, at token", 0.9, "holds"),
        row("selectivity", "after token", 0.9, "holds"),
    ]
    assert headline(rows) == [rows[0], rows[1], rows[3]]
    assert counted(rows) == {"holds": 1, "does not hold here": 1}


def test_a_row_is_drawn_on_a_scale_of_its_own() -> None:
    drawn = line(row("population", "", 0.6, "holds in direction"))  # 0.5 is no effect, 0.9 was published
    assert drawn.nothing == pytest.approx(100 * 0.06 / 1.12, abs=0.01)  # scale from 0.5 to 0.9, 6% beside each end
    assert drawn.published == pytest.approx(100 * 1.06 / 1.12, abs=0.01)
    assert drawn.dot == pytest.approx(100 * 0.31 / 1.12, abs=0.01)
    assert drawn.low == drawn.nothing
    assert drawn.width == pytest.approx(100 * 0.5 / 1.12, abs=0.02)


def test_claims_by_name_and_by_beginning() -> None:
    assert chosen("edit.install") == ["edit.install", "edit.install.mamba2"]
    assert chosen("population") == ["population"]
    with pytest.raises(InputError, match="no published claim is called 'edits'"):
        ReproduceConfig(claims=("edits",))
