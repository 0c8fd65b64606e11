"""The probes at small sizes: each number against one worked out another way."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from random_hosts import dictionary, some_tokens, tiny_host
from writesae.edits import AddMatrix, At, Edit, editing, take_write
from writesae.edits.experiments import (
    AmplificationConfig,
    ErasureConfig,
    InstallSweep,
    SignConfig,
    amplification,
    erasure,
    install_sweep,
    sign_test,
    tokens_matching,
)
from writesae.edits.experiments.pictures import plot, table, write_result
from writesae.errors import InputError
from writesae.hosts import Host
from writesae.types import Site


@pytest.mark.parametrize("name", ["qwen3_5", "mamba2"])
def test_sign_test_counts_what_the_engine_measures(name: str) -> None:
    host, site, contexts = tiny_host(name), Site(0, 2), some_tokens(4, 23, 11)
    result = sign_test(host, site, contexts, SignConfig(magnitudes=(0.01, 1.0), ranks=(3, 9)))
    assert len(result.rows) == 3 * 2 * 2 * 2
    small = [r for r in result.rows if r.predictor == "exact" and r.magnitude == 0.01]
    assert all(r.agreement >= 0.9 and r.r2 > 0.9 for r in small)
    for row in result.rows:
        part = result.records.query(
            "direction == @row.direction and timing == @row.timing and magnitude == @row.magnitude"
        )
        agree = np.sign(part[row.predictor]) == np.sign(part["change"])
        assert row.n == 23
        assert row.agreement == pytest.approx(float(agree.mean()))
    exact = result.records.query("direction == 'exact'")
    assert (exact["exact"] >= 0).all()


def test_install_sweep_finds_what_generation_says(host: Host, passages: torch.Tensor) -> None:
    prompts = passages[:, :13]
    config = InstallSweep(magnitudes=(0.0, 5.0), ranks=((2, 9),), new_tokens=5, timing="at_token")
    result = install_sweep(host, [Site(4, 0), Site(5, 0), Site(6, 3)], prompts, config)
    for row in result.rows:
        assert row.n == 7
        if row.magnitude == 0:
            assert (row.rate, row.lift, row.p_native) == (row.native, 0, 1)
    lift = {(row.direction, row.magnitude): row.lift for row in result.rows}
    assert lift["exact", 5.0] > max(lift["random", 5.0], 0)
    assert result.rows[0].random == result.rows[0].native
    with pytest.raises(InputError, match="rank classes"):
        install_sweep(host, Site(5, 0), prompts, InstallSweep(ranks=((5, 9999),)))


def test_erasure_is_a_deletion_and_its_control_an_addition(tiny: Host) -> None:
    site, tokens = Site(1, 4), some_tokens(8, 5, 19)
    sae = dictionary(tiny, site)
    config = ErasureConfig(doses=(1.0, 2.0), firings=7, token=9)
    result = erasure(tiny, sae, site, 2, tokens, config)
    assert [(r.condition, r.dose) for r in result.rows] == [("control", 1), ("control", 2), ("erase", 1), ("erase", 2)]
    record = result.records.query("condition == 'erase' and dose == 2.0").iloc[0]
    text, place = tokens[int(record["passage"])], int(record["position"])
    write = take_write(tiny, text, site, place)
    with torch.no_grad(), editing(tiny, [Edit(site, AddMatrix(-2 * torch.outer(*write)), At((place,)))]):
        patched = tiny.run(text[None], keep=0)
    change = (patched.log_softmax(-1) - tiny.logits(text[None]).log_softmax(-1))[0, place + 1, 9]
    assert record["change"] == pytest.approx(float(change), abs=1e-5)
    assert all(0 <= r.p <= 1 and r.n <= 7 for r in result.rows)
    with pytest.raises(InputError, match="feature 13 of 13 atoms"):
        erasure(tiny, sae, site, 13, tokens)


def test_amplification_counts_tokens_and_dose_one_changes_nothing(host: Host, passages: torch.Tensor) -> None:
    site = Site(5, 0)
    sae = dictionary(host, site, features=31)
    ids = tokens_matching(host, r"^ [A-Z][a-z]+$")
    assert host.tokenizer.encode(" war")[0] not in ids
    config = AmplificationConfig(doses=(1.0, 9.0), features=3, new_tokens=7)
    result = amplification(host, sae, site, passages, passages[:5, :9], ids, config)
    assert len(result.features) == len(set(result.features) - set(result.random_features)) == 3
    rows = {(r.condition, r.dose): r for r in result.rows}
    for condition in ("class", "random"):
        same = rows[condition, 1.0]
        assert (same.mean, same.cohens_d, same.p) == (same.native, 0, 1)
    assert rows["class", 9.0].n == 5
    with pytest.raises(InputError, match="no token of tiny-gdn matches"):
        tokens_matching(host, "zzzzzz")


def test_results_are_written_with_their_protocol(tmp_path: Path) -> None:
    host = tiny_host("mamba2")
    result = sign_test(host, Site(0, 2), some_tokens(4, 5, 7), SignConfig(magnitudes=(0.5,)))
    write_result(result, tmp_path / "out")
    data = json.loads((tmp_path / "out" / "result.json").read_text(encoding="utf-8"))
    assert (data["kind"], data["sites"], len(data["rows"])) == ("SignTest", ["L0.H2"], 12)
    assert data["config"]["timings"] == ["after_token", "at_token"]
    assert len(pd.read_parquet(tmp_path / "out" / "records.parquet")) == 5 * 3 * 2
    assert len(plot(result).data) == 12
    installed = install_sweep(host, Site(0, 2), some_tokens(4, 3, 7), InstallSweep(magnitudes=(1.0,), ranks=((3, 9),)))
    assert {"rate", "low", "high", "native"} <= set(table(installed))
    assert len(plot(installed).data) == 3
