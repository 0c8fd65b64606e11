"""The probes at small sizes: each number against one worked out another way."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from random_hosts import dictionary, some_tokens, tiny_host
from writesae.causal.writes import head_writes
from writesae.edits import AddMatrix, At, Edit, EraseWrite, editing, take_write
from writesae.errors import InputError, OutputError
from writesae.evals.old.probes import (
    AmplificationConfig,
    ErasureConfig,
    InstallSweep,
    NamesConfig,
    SignConfig,
    amplification,
    draw_texts,
    erasure,
    install_sweep,
    name_tokens,
    open_host,
    proper_nouns,
    sign_test,
    tokens_matching,
)
from writesae.evals.old.probes.erasure import loses_most
from writesae.evals.old.probes.installs import sign_test_over_prompts
from writesae.evals.old.probes.names import contexts_before, equivalence
from writesae.evals.old.probes.pictures import plot, table, write_probe
from writesae.hosts import Host
from writesae.hosts.fork import native_run
from writesae.types import Site


@pytest.mark.parametrize("name", ["qwen3_5", "mamba2"])
def test_sign_test_counts_what_the_engine_measures(name: str) -> None:
    host, site, contexts = tiny_host(name), Site(0, 2), some_tokens(4, 23, 11)
    result = sign_test(host, site, contexts, SignConfig(magnitudes=(0.01, 1.0), ranks=(3, 9)))
    assert len(result.summary.rows) == 3 * 2 * 2 * 2
    small = [r for r in result.summary.rows if r.predictor == "exact" and r.magnitude == 0.01]
    assert all(r.agreement >= 0.9 and r.r2 > 0.9 for r in small)
    for row in result.summary.rows:
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
    for row in result.summary.rows:
        assert row.n == 7
        if row.magnitude == 0:
            assert (row.rate, row.lift, row.p_native) == (row.native, 0, 1)
    lift = {(row.direction, row.magnitude): row.lift for row in result.summary.rows}
    assert lift["exact", 5.0] > max(lift["random", 5.0], 0)
    assert result.summary.rows[0].random == result.summary.rows[0].native
    with pytest.raises(InputError, match="rank classes"):
        install_sweep(host, Site(5, 0), prompts, InstallSweep(ranks=((5, 9999),)))


def test_erasure_is_a_deletion_and_its_control_an_addition(tiny: Host) -> None:
    site, tokens = Site(1, 4), some_tokens(8, 5, 19)
    sae = dictionary(tiny, site)
    config = ErasureConfig(doses=(1.0, 2.0), firings=7, token=9)
    result = erasure(tiny, sae, site, 2, tokens, config)
    assert [(r.condition, r.dose) for r in result.summary.rows] == [
        ("control", 1),
        ("control", 2),
        ("erase", 1),
        ("erase", 2),
    ]
    record = result.records.query("condition == 'erase' and dose == 2.0").iloc[0]
    text, place = tokens[int(record["passage"])], int(record["position"])
    write = take_write(tiny, text, site, place)
    with torch.no_grad(), editing(tiny, [Edit(site, AddMatrix(-2 * torch.outer(*write)), At((place,)))]):
        patched = tiny.run(text[None], keep=0)
    change = (patched.log_softmax(-1) - tiny.logits(text[None]).log_softmax(-1))[0, place + 1, 9]
    assert record["change"] == pytest.approx(float(change), abs=1e-5)
    assert all(0 <= r.p <= 1 and r.n <= 7 for r in result.summary.rows)
    with pytest.raises(InputError, match="features \\(13,\\) of 13 atoms"):
        erasure(tiny, sae, site, 13, tokens)


def test_amplification_counts_tokens_and_dose_one_changes_nothing(host: Host, passages: torch.Tensor) -> None:
    site = Site(5, 0)
    sae = dictionary(host, site, features=31)
    ids = tokens_matching(host, r"^ [A-Z][a-z]+$")
    assert host.tokenizer.encode(" war")[0] not in ids
    config = AmplificationConfig(r"^ [A-Z][a-z]+$", doses=(1.0, 9.0), features=3, new_tokens=7)
    result = amplification(host, {site: sae}, passages, passages[:5, :9], config)
    assert (
        len(result.summary.features["L5.H0"])
        == len(set(result.summary.features["L5.H0"]) - set(result.summary.random_features["L5.H0"]))
        == 3
    )
    rows = {(r.condition, r.dose): r for r in result.summary.rows}
    for condition in ("class", "random"):
        same = rows[condition, 1.0]
        assert (same.mean, same.cohens_d, same.p) == (same.native, 0, 1)
    assert rows["class", 9.0].n == 5
    with pytest.raises(InputError, match="no token of tiny-gdn matches"):
        tokens_matching(host, "zzzzzz")


def test_results_are_written_with_their_protocol(tmp_path: Path) -> None:
    host = tiny_host("mamba2")
    result = sign_test(host, Site(0, 2), some_tokens(4, 5, 7), SignConfig(magnitudes=(0.5,)))
    write_probe(result, tmp_path / "out")
    data = json.loads((tmp_path / "out" / "summary.json").read_text(encoding="utf-8"))
    assert (data["name"], data["provenance"]["site"], len(data["summary"]["rows"])) == ("sign", "L0.H2", 12)
    assert data["config"]["timings"] == ["after_token", "at_token"]
    assert len(pd.read_parquet(tmp_path / "out" / "records.parquet")) == 5 * 3 * 2
    assert len(plot(result).data) == 12  # three directions in four panels
    installed = install_sweep(host, Site(0, 2), some_tokens(4, 3, 7), InstallSweep(magnitudes=(1.0,), ranks=((3, 9),)))
    assert {"rate", "interval", "native"} <= set(table(installed))
    assert len(plot(installed).data) == 6  # three directions, two measures


def test_names_are_told_from_words_and_contexts_end_before_them(host: Host, passages: torch.Tensor) -> None:
    names, words = name_tokens(host)
    ids = {word: host.tokenizer.encode(word)[0] for word in (" America", " Congress", " The", " war", " people")}
    assert ids[" America"] in names
    assert not {ids[" The"], ids[" war"]} & names
    assert not names & words
    contexts, targets = contexts_before(passages, names | words, 11)
    assert contexts.shape[1] == 11
    for context, target in zip(contexts, targets[:, 0], strict=True):
        row = next(r for r in passages if any(torch.equal(r[t - 11 : t], context) for t in range(11, 53)))
        place = next(t for t in range(11, 53) if torch.equal(row[t - 11 : t], context))
        assert row[place] == target
        assert not {int(t) for t in row[11:place]} & (names | words)
        assert int(target) in names | words


def test_a_null_needs_a_test_of_equivalence() -> None:
    """Nothing different in 300 pairs excludes 5%, in 30 it does not; a real difference is never called none."""
    assert equivalence(np.zeros(300), 0.05) == pytest.approx(0.95**300)
    assert equivalence(np.zeros(30), 0.05) > 0.05
    mixed = np.array([1.0, -1.0] * 10 + [0.0] * 180)
    assert equivalence(mixed, 0.2) < 0.05 < equivalence(mixed, 0.01)
    assert equivalence(np.array([1.0] * 100 + [0.0] * 100), 0.05) > 0.99


def test_proper_nouns_are_installed_and_erased(host: Host) -> None:
    texts = draw_texts(host, "sample", 60, 40, seed=1)
    config = NamesConfig(("exact", "random"), (-4.0, 0.0, 4.0), length=9, new_tokens=2, timing="at_token")
    result = proper_nouns(host, (Site(5, 1),), texts, 11, config)
    rows = {(r.targets, r.direction, r.magnitude): r for r in result.summary.rows}
    assert len(rows) == 2 * 2 * 3
    for key, row in rows.items():
        part = result.records.query("targets == @key[0] and direction == @key[1] and magnitude == @key[2]")
        assert row.rate == pytest.approx(part["included"].mean())
        assert (row.n, np.isnan(row.p_words)) == (11, key[0] == "word")
        if key[2] == 0:
            assert (row.rate, row.lift, row.p, row.verdict) == (row.native, 0, 1, "undecided")
    for kind in ("name", "word"):
        assert rows[kind, "exact", 4.0].lift > 0 > rows[kind, "exact", -4.0].lift
    with pytest.raises(InputError, match="60 texts hold"):
        proper_nouns(host, (Site(5, 1),), texts, 61, config)


def test_several_targets_of_a_prompt_count_as_one_trial_of_the_sign_test() -> None:
    """Two targets a prompt: prompts 0 and 1 gain on balance, 2 is even, 3 loses."""
    part = pd.DataFrame(
        {"prompt": [0, 0, 1, 1, 2, 2, 3, 3], "included": [True, True, True, False, True, False, False, False]}
    )
    other = np.array([False, True, False, False, False, True, True, True])
    assert sign_test_over_prompts(part, other) == pytest.approx(1.0)
    assert sign_test_over_prompts(part[:4], np.zeros(4, bool)) == pytest.approx(0.5)
    assert sign_test_over_prompts(part, part["included"].to_numpy()) == 1


def test_a_stopped_sweep_goes_on_to_the_same_result(tmp_path: Path) -> None:
    host, prompts = tiny_host("mamba2"), some_tokens(4, 101, 7)
    config = InstallSweep(magnitudes=(2.0,), positions=(1, 2), ranks=((3, 9),), targets=2, new_tokens=2)
    whole = install_sweep(host, Site(0, 2), prompts, config)

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        install_sweep(host, Site(0, 2), prompts, config, stop, tmp_path)
    assert len(list(tmp_path.glob("part-*.parquet"))) == 1
    told: list[int] = []
    again = install_sweep(host, Site(0, 2), prompts, config, lambda done, total: told.append(done), tmp_path)
    assert told == [50, 100, 101]
    pd.testing.assert_frame_equal(again.records, whole.records)
    assert {(r.positions, r.direction) for r in again.summary.rows} == {
        (p, d) for p in (1, 2) for d in ("closed", "exact", "random")
    }
    assert all(r.n == 202 for r in again.summary.rows)
    with pytest.raises(OutputError, match="another evaluation"):
        install_sweep(host, Site(0, 3), prompts, config, parts=tmp_path)


def test_the_token_a_feature_stands_for_can_be_measured(tiny: Host) -> None:
    """On one half of the passages, against the editing engine, and tested on the other."""
    site, tokens = Site(1, 4), some_tokens(8, 12, 19)
    result = erasure(tiny, dictionary(tiny, site), site, None, tokens, ErasureConfig((1.0,), follow="measured"))
    assert result.records.query("condition == 'erase'")["passage"].nunique() <= 6
    places = torch.tensor([[0, 3], [2, 9], [5, 17]])
    run = native_run(tiny, tokens, site.layer)
    token = loses_most(run, site, head_writes(run, site.head), ErasureConfig(), places)
    change = torch.zeros(101)
    for row, place in places.tolist():
        text = tokens[row][None]
        with torch.no_grad(), editing(tiny, [Edit(site, EraseWrite("delta"), At((place,)))]):
            patched = tiny.run(text, keep=0)[0, place + 1].log_softmax(-1)
        change += patched - tiny.logits(text)[0, place + 1].log_softmax(-1)
    assert token == int(change.argmin())


def test_random_hosts_by_name() -> None:
    host = open_host("random:bamba")
    assert host.name == "random:bamba"
    assert draw_texts(host, "sample", 3, 5).shape == (3, 5)
    with pytest.raises(InputError, match="unknown tiny model 'gpt'"):
        open_host("random:gpt")
