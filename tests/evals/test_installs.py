"""`installs`: what generation says, and tests by prompt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from random_hosts import some_tokens, tiny_host
from writesae.causal.actions import Edit, Install
from writesae.causal.schedule import At
from writesae.edits import generate
from writesae.edits.directions import make_many_directions
from writesae.errors import InputError, OutputError
from writesae.evals import installs
from writesae.evals.installs import InstallsConfig
from writesae.evals.installs.summary import summarise
from writesae.hosts import Host, load
from writesae.types import Site

SITES = ("L4.H0", "L5.H0", "L6.H3")


def test_it_finds_what_generation_says(host: Host, passages: torch.Tensor) -> None:
    prompts = passages[:, :13]
    options: dict[str, Any] = {"ranks": ((2, 9),), "new_tokens": 5, "timings": "at_token"}
    result = installs(host, prompts, site=SITES, magnitudes=(0.0, 5.0), **options)
    rows = {(row.direction, row.magnitude): row for row in result.summary.cells}
    assert [str(site) for site in result.provenance.sites] == list(SITES)
    assert len(rows) == 3 * 2
    for (_, magnitude), row in rows.items():
        assert row.said.n == 7
        if magnitude == 0:
            assert (row.said.value, row.lift.mean, row.p_native, row.lift.above) == (row.native, 0, 1, 0)
    assert rows["exact", 5.0].lift.mean > max(rows["random", 5.0].lift.mean, 0)
    assert rows["closed", 0.0].random == rows["closed", 0.0].native
    found = result.records.query("direction == 'exact' and magnitude == 5").sort_values("passage")
    made = make_many_directions(
        host, [Site.parse(s) for s in SITES], prompts, tuple(found.target), "exact", (-3, -2, -1), "at_token"
    )
    edits = [Edit(site, Install(*pair, 5.0), At((-3, -2, -1)), "at_token") for site, pair in made.items()]
    said = generate(host, prompts, edits, 5, stop_at_end=False).tokens
    assert [t in row for t, row in zip(found.target, said, strict=True)] == found.included.tolist()
    native = host.logits(prompts, keep=1)[:, -1]
    assert [int((native[r] > native[r, t]).sum()) for r, t in enumerate(found.target)] == found["rank"].tolist()
    assert found["rank"].between(2, 8).all()


def test_it_is_the_same_sweep_for_every_size_of_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Targets and directions are drawn by prompt; three budgets give the same trials to rounding."""
    host, prompts = tiny_host("qwen3_5"), some_tokens(4, 7, 7)
    options: dict[str, Any] = {"magnitudes": (2.0,), "ranks": ((3, 60),), "new_tokens": 2, "timings": "after_token"}
    whole = installs(host, prompts, site="L0.H2", **options).records
    monkeypatch.setattr("writesae.evals.common.installing.passages_at_once", lambda *_, **__: 2)
    parts = installs(host, prompts, site="L0.H2", **options).records
    by = ["direction", "passage"]
    whole, parts = (x.sort_values(by, ignore_index=True) for x in (whole, parts))
    pd.testing.assert_frame_equal(whole[[*by, "target", "rank"]], parts[[*by, "target", "rank"]])
    np.testing.assert_allclose(whole["lift"], parts["lift"], atol=1e-5)


def test_a_stopped_sweep_goes_on_to_the_same_result(tmp_path: Path) -> None:
    host, prompts = tiny_host("mamba2"), some_tokens(4, 101, 7)
    options: dict[str, Any] = {
        "magnitudes": (2.0,), "last": (1, 2), "ranks": ((3, 9),), "targets": 2, "new_tokens": 2,
        "timings": "after_token", "site": "L0.H2",
    }  # fmt: skip
    whole = installs(host, prompts, **options)

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        installs(host, prompts, out=tmp_path, progress=stop, **options)
    assert len(list((tmp_path / "parts").glob("part-*.parquet"))) == 1
    told = list[tuple[int, int]]()
    again = installs(host, prompts, out=tmp_path, progress=lambda *x: told.append(x), **options)
    assert told == [(1, 3), (2, 3), (3, 3)]
    pd.testing.assert_frame_equal(again.records, whole.records)
    assert {(r.last, r.direction) for r in again.summary.cells} == {
        (p, d) for p in (1, 2) for d in ("closed", "exact", "random")
    }
    assert all(r.said.n == 202 for r in again.summary.cells)
    with pytest.raises(OutputError):
        installs(host, prompts, out=tmp_path, **(options | {"site": "L0.H3"}))


def test_several_targets_of_a_prompt_count_as_one_trial() -> None:
    """Two targets a prompt: prompts 0 and 1 gain on balance, 2 is even, 3 loses: two against one; p by hand is 1. The
    lifts of one prompt are averaged: four values of one sign can reach p = 1/8 and no less."""
    records = pd.DataFrame(
        {"passage": [0, 0, 1, 1, 2, 2, 3, 3], "included": [True, True, True, False, True, False, False, False],
         "native": [False, True, False, False, False, True, True, True], "lift": [1.0, 2, 3, 4, 5, 6, 7, 8]}
    ).assign(
        which=[0, 1] * 4, direction="exact", timing="after_token", native_write="value", magnitude=3.0, last=3,
        rank_low=3, rank_high=9, floor=[1.5] * 8, share=0.6, target=5, rank=4,
    )  # fmt: skip
    (row,) = summarise({"records": records}, InstallsConfig()).cells
    assert (row.said.n, row.p_native, row.lift.p, row.saturated) == (8, 1.0, 0.125, 1.0)
    assert (row.said.value, row.native, row.lift.above) == (0.5, 0.5, 7 / 8)
    assert row.said.wilson is None
    gained = records.assign(native=False).query("passage < 3")
    (row,) = summarise({"records": gained}, InstallsConfig()).cells
    assert row.p_native == pytest.approx(0.25)  # three of three prompts: 2 / 2^3


def test_log_probabilities_of_a_bfloat16_host_are_of_float32_logits(passages: torch.Tensor) -> None:
    """Steps of bfloat16 at a log probability of -8 are 1/16; the lifts lie between them."""
    half = load("tiny-gdn", dtype="bfloat16")
    options: dict[str, Any] = {"ranks": ((2, 9),), "new_tokens": 1, "timings": "at_token", "directions": "exact"}
    with pytest.raises(InputError, match="bfloat16"):
        installs(half, passages[:, :13], site="L5.H0", magnitudes=0.5, **options)
    result = installs(half, passages[:, :13], site="L5.H0", magnitudes=0.5, allow="precision", **options)
    coarse = torch.tensor(result.records["lift"].to_numpy()).bfloat16().double().numpy()
    assert (np.abs(coarse - result.records["lift"]) > 0).any()
    assert result.provenance.dtype == "bfloat16"


def test_effects_at_the_rounding_are_too_small_to_decide(host: Host, passages: torch.Tensor) -> None:
    options: dict[str, Any] = {
        "new_tokens": 1,
        "timings": "at_token",
        "directions": "random",
        "site": ("L5.H0", "L6.H1"),
    }
    small = installs(host, passages[:, :13], magnitudes=1e-7, **options)
    assert all(r.lift.above < 0.5 for r in small.summary.cells)
    assert "too small to decide" in small.finding
    assert (small.records["floor"] > 0).all()
    large = installs(host, passages[:, :13], magnitudes=1.0, **options)
    assert all(r.lift.above > 0.9 for r in large.summary.cells)
    np.testing.assert_array_equal(small.records["floor"], large.records["floor"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ranks": ((5, 9999),)}, "not within a vocabulary of 4096"),
        ({"ranks": ((9, 5),)}, "hold no token"),
        ({"last": (14,)}, "14 last tokens of prompts of 13"),
        ({"magnitudes": ()}, "magnitudes is empty"),
        ({"targets": 0}, "at least 1"),
        ({"site": "L5.H9"}, "heads 0 to 5"),
    ],
)
def test_bad_input_is_one_line(options: dict[str, Any], message: str, host: Host, passages: torch.Tensor) -> None:
    with pytest.raises(InputError, match=message):
        installs(host, passages[:, :13], **({"site": "L5.H0"} | options))
