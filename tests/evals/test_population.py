"""Atoms one by one: the same numbers as the substitution test, and summaries worked out by hand."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from writesae.errors import ConfigError, InputError
from writesae.evals.old.population import PopulationConfig, by_atom, population, summarise
from writesae.evals.old.substitution import SubstitutionConfig, substitution
from writesae.hosts import Host
from writesae.sae import SAE, SAEConfig, TopK
from writesae.types import Site

SITE = Site(5, 2)
CONFIG = PopulationConfig(atoms=9, most=4, fewest=2, seed=1)


def dictionary() -> SAE:
    return SAE(SAEConfig(32, 32, 61, sparsity=TopK(3), target="write-delta"), torch.Generator().manual_seed(5))


def test_scores_what_substitution_scores(host: Host, passages: torch.Tensor, tmp_path: Path) -> None:
    sae = dictionary()
    result = population(host, sae, SITE, passages, CONFIG, tmp_path / "run")
    assert result.attempted == 9 == result.n + sum(result.refused.values())
    assert result.n == result.summary["after_token"].atoms == result.records.feature.nunique()
    assert result.records.groupby("feature").size().between(2, 4).all()
    every = substitution(host, sae, SITE, passages, SubstitutionConfig(("after_token",), firings=350)).records
    keys = ["passage", "position", "feature"]
    both = result.records.merge(every, on=keys)
    assert len(both) > 3
    for column in ("coefficient", "cosine", "kl_atom", "kl_delete", "kl_atom_norm"):
        np.testing.assert_allclose(both[f"{column}_x"], both[f"{column}_y"], rtol=1e-3, atol=1e-7)
    again = population(host, sae, SITE, passages, CONFIG, tmp_path / "run")
    pd.testing.assert_frame_equal(again.records, result.records)


def test_summary_is_recomputed_from_the_files(host: Host, passages: torch.Tensor, tmp_path: Path) -> None:
    result = population(host, dictionary(), SITE, passages, CONFIG)
    result.write(tmp_path)
    records = pd.read_parquet(tmp_path / "records.parquet")
    assert summarise(records, CONFIG) == result.summary
    stored = json.loads((tmp_path / "summary.json").read_text())
    assert stored["summary"]["after_token"]["win_rate"] == result.summary["after_token"].win_rate
    assert stored["provenance"]["revision"] == host.revision
    assert stored["config"]["protocol"]["timings"] == ["after_token"]
    assert stored["attempted"] == stored["n"] + sum(stored["refused"].values())


def test_by_hand() -> None:
    table = pd.DataFrame({"feature": [1, 1, 2, 2, 3, 3], "protocol": "after_token"})
    table["kl_delete"] = 1.0
    table["kl_atom"] = [0.5, 0.5, 0.5, 2.0, 1.0, 1.5]  # win rates 1, 1/2, 0
    table["top1_delete"] = [True, False, True, True, False, False]
    table["class"] = ["register", "register", "register", "register", "bundle", "bundle"]
    table["atom_cosine"] = [0.3, 0.3, 0.2, 0.2, 0.01, 0.01]
    table["per_10k"] = [4.0, 4.0, 8.0, 8.0, 6.0, 6.0]
    s = summarise(table, PopulationConfig(bins=(0.0, 0.25, 1.0)))["after_token"]
    assert (s.atoms, s.win_rate) == (3, 0.5)
    assert s.classes["register"].win_rate == 0.75
    assert s.classes["register"].firings_per_10k == 6
    assert s.classes["register"].top1_disruption == 0.75
    assert s.classes["register"].gap == pytest.approx((0.5 + -0.25) / 2)
    assert s.classes["bundle"].gap == pytest.approx(-0.25)
    assert s.by_cosine == {"0.0 to 0.25": (2, 0.25), "0.25 to 1.0": (1, 1.0)}
    assert (s.deciles[0], s.deciles[5], s.deciles[10]) == (0, 0.5, 1)
    assert s.register_against_bundle.statistic == 2  # both registers beat the bundle
    assert s.cosine_correlation.statistic == pytest.approx(1)
    assert by_atom(table).n.tolist() == [2, 2, 2]


def test_too_few_firings(host: Host, passages: torch.Tensor) -> None:
    for settings, complaint in (
        ({"atoms": 0}, "too small"),
        ({"most": 3}, "nothing fits"),
        ({"bins": (0.0,)}, "borders"),
    ):
        with pytest.raises(ConfigError, match=complaint):
            PopulationConfig(**settings)
    with pytest.raises(InputError, match="none of 9 sampled atoms"):
        population(host, dictionary(), SITE, passages, PopulationConfig(atoms=9, most=999, fewest=999))
