"""`sign`: what it counts, against numbers worked out another way."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from random_hosts import some_tokens, tiny_host
from writesae.causal.writes import stream_writes
from writesae.errors import InputError
from writesae.evals import sign
from writesae.evals.common.stats import wilson
from writesae.hosts import Host

DRAWN = ["token", "magnitude", "direction", "timing", "native_write"]


@pytest.mark.parametrize("name", ["qwen3_5", "mamba2"])
def test_it_counts_what_was_measured(name: str) -> None:
    result = sign(tiny_host(name), some_tokens(4, 23, 11), site="L0.H2", magnitudes=(0.01, 1.0), ranks=(3, 9))
    rows = result.summary.cells
    assert len(rows) == 3 * 3 * 2 * 2
    assert result.n == result.attempted == 23
    small = [r for r in rows if r.predictor == "exact" and r.magnitude == 0.01]
    assert all(r.agreement.value >= 0.9 and r.r2 > 0.9 for r in small)
    for row in rows:
        part = result.records.query(
            "direction == @row.direction and timing == @row.timing and magnitude == @row.magnitude"
        )
        agree = np.sign(part[row.predictor]) == np.sign(part["change"])
        assert row.agreement.n == 23
        assert row.agreement.value == pytest.approx(float(agree.mean()))
        assert row.agreement.bounds == wilson(int(agree.sum()), 23)
        above = part["change"].abs() > part["floor"].clip(lower=part["floor"].median())
        assert (row.above, row.among.value) == (pytest.approx(above.mean()), pytest.approx(agree[above].mean()))
    exact = result.records.query("direction == 'exact'")
    assert (exact["exact"] >= 0).all()


def test_the_closed_form_leaves_out_what_is_erased_and_the_carried_one_does_not() -> None:
    """They are one where nothing is erased between the write and its read: Mamba-2, or at_token."""
    for name, differ in (("mamba2", False), ("qwen3_5", True)):
        found = sign(tiny_host(name), some_tokens(4, 5, 7), site="L0.H1", magnitudes=(1.0,)).records
        found = found.assign(error=(found["carried"] - found["closed"]).abs() / found["carried"].abs())
        assert found[found.timing == "at_token"]["error"].max() < 1e-4
        assert (found[found.timing == "after_token"]["error"].max() > 1e-2) == differ


def test_what_is_drawn_for_a_context_does_not_depend_on_the_others() -> None:
    host, tokens = tiny_host("mamba2"), some_tokens(4, 53, 7)
    options: dict[str, Any] = {
        "site": "L0.H2",
        "magnitudes": (0.5,),
        "ranks": (3, 60),
        "timings": "after_token",
        "seed": 3,
    }
    whole, few = (sign(host, some, **options).records for some in (tokens, tokens[:5]))
    whole = whole[whole.passage < 5].sort_values(["passage", "direction"], ignore_index=True)
    few = few.sort_values(["passage", "direction"], ignore_index=True)
    pd.testing.assert_frame_equal(whole[DRAWN], few[DRAWN])
    np.testing.assert_allclose(whole["exact"], few["exact"], rtol=1e-3, atol=1e-7)
    other = sign(host, tokens[:5], **(options | {"seed": 4})).records
    assert not np.allclose(few["exact"], other.sort_values(["passage", "direction"])["exact"], rtol=0.1)


def test_magnitudes_count_in_the_native_write_that_is_asked_for() -> None:
    """Delta and value writes differ in size where something is erased; small effects follow the size."""
    host, tokens = tiny_host("qwen3_5"), some_tokens(4, 5, 7)
    found = sign(host, tokens, site="L0.H2", magnitudes=(0.01,), native_writes=("delta", "value"), timings="at_token")
    by = found.records.pivot(index=["passage", "direction"], columns="native_write", values=["exact", "change"])
    stream = host.record(tokens, [0])[0].heads(2)
    writes = stream_writes(stream)
    sizes = (writes.side("delta")[:, -1].norm(dim=-1) / writes.side("value")[:, -1].norm(dim=-1)).repeat_interleave(3)
    np.testing.assert_allclose(by["exact"]["delta"] / by["exact"]["value"], sizes, rtol=1e-4)
    assert len({r.native_write for r in found.summary.cells}) == 2


def test_effects_at_the_rounding_are_too_small_to_decide(host: Host, passages: torch.Tensor) -> None:
    options: dict[str, Any] = {"site": "L5.H0", "timings": "after_token", "directions": "random"}
    result = sign(host, passages[:, :13], magnitudes=(1e-7,), **options)
    assert all(r.above < 0.5 for r in result.summary.cells)
    assert "too small to decide" in result.finding
    large = sign(host, passages[:, :13], magnitudes=(1.0,), **options)
    assert all(r.above == 1 for r in large.summary.cells)
    assert "too small" not in large.finding


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"site": ("L0.H1", "L1.H1")}, "give one site, not 2"),
        ({"site": "L0.H1", "ranks": (5, 900)}, "not within a vocabulary of 101"),
        ({"site": "L0.H1", "ranks": (5, 5)}, "hold no token"),
        ({"site": "L0.H1", "magnitudes": ()}, "magnitudes is empty"),
        ({}, "needs a head"),
        ({"site": "L9.H1"}, "no recurrent layer 9"),
    ],
)
def test_bad_input_is_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        sign(tiny_host("mamba2"), some_tokens(4, 5, 7), **options)


def test_contexts_of_two_tokens_are_too_short() -> None:
    with pytest.raises(InputError, match="3 tokens or more"):
        sign(tiny_host("mamba2"), some_tokens(4, 5, 2), site="L0.H1")
