"""Atoms one by one: the same numbers as the substitution test, and summaries worked out by hand."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from writesae.errors import ConfigError, InputError
from writesae.evals import partition, population, substitution
from writesae.evals.population import PopulationConfig
from writesae.evals.population.measure import sample
from writesae.evals.population.summary import by_atom, summarise
from writesae.hosts import Host
from writesae.sae import SAE, SAEConfig, TopK
from writesae.types import Site

SITE = Site(5, 2)
FEW: dict[str, Any] = {"site": SITE, "atoms": 9, "most": 4, "fewest": 2, "seed": 1}


def dictionary() -> SAE:
    return SAE(SAEConfig(32, 32, 61, sparsity=TopK(3), target="write-delta"), torch.Generator().manual_seed(5))


def test_scores_what_substitution_scores(host: Host, passages: torch.Tensor) -> None:
    sae = dictionary()
    result = population(host, sae, passages, **FEW)
    assert result.attempted == 9 == result.n + sum(result.refused.values())
    assert [cell.atoms for cell in result.summary.cells] == [result.n] * 4
    assert result.records.groupby(["feature", "timing", "native_write"]).size().between(2, 4).all()
    every = substitution(host, sae, passages, site=SITE, firings=350, amplitudes="coefficient").records
    keys = ["passage", "position", "feature", "timing", "native_write"]
    both = result.records.merge(every, on=keys)
    assert len(both) > 12
    for column in ("coefficient", "cosine", "share", "kl_atom", "kl_delete"):
        np.testing.assert_allclose(both[f"{column}_x"], both[f"{column}_y"], rtol=1e-3, atol=1e-7)


def test_by_increment_atoms_are_those_that_writes_raise_most(host: Host, passages: torch.Tensor) -> None:
    """The same places under substitution: the first form of the write chooses, each form says how large."""
    sae = SAE(SAEConfig(32, 32, 61, sparsity=TopK(3), target="state"), torch.Generator().manual_seed(5))
    result = population(host, sae, passages, **FEW)
    assert list(result.records.reading.unique()) == ["state", "increment"]
    assert result.attempted == 18 == result.n + sum(result.refused.values())
    every = substitution(host, sae, passages, site=SITE, firings=350, amplitudes="coefficient").records
    keys = ["passage", "position", "feature", "timing", "native_write", "reading"]
    both = result.records.merge(every, on=keys)
    assert set(both.reading) == {"state", "increment"}
    assert len(both[(both.reading == "increment") & (both.native_write == "delta")]) > 6
    for column in ("coefficient", "cosine", "share", "kl_atom", "kl_delete"):
        np.testing.assert_allclose(both[f"{column}_x"], both[f"{column}_y"], rtol=1e-3, atol=1e-7)


def test_classes_are_those_of_each_form_of_the_write(host: Host, passages: torch.Tensor) -> None:
    records = population(host, dictionary(), passages, **FEW).records
    classed = partition(host, dictionary(), passages, site=SITE)
    cosine = classed.records[classed.records.k == 0].set_index(["native_write", "feature"]).cosine
    cut = {one.native_write: one.classes.cut for one in classed.summary.partitions}
    for row in records.to_dict("records"):
        form = row["native_write"]
        assert row["atom_cosine"] == cosine[form, row["feature"]]
        assert row["class"] == ("register" if row["atom_cosine"] >= cut[form] else "bundle")
    assert records.groupby("feature").atom_cosine.nunique().eq(2).all()


def test_atoms_are_drawn_evenly_and_one_class_gives_what_the_other_lacks() -> None:
    kinds = {f: "register" if f < 3 else "bundle" for f in range(17)}
    drawn = sample(kinds, PopulationConfig(atoms=11))
    assert (len(drawn), [f for f in drawn if f < 3]) == (11, [0, 1, 2])
    four = sample(kinds, PopulationConfig(atoms=4))
    assert sum(f < 3 for f in four) == 2


def test_by_hand() -> None:
    table = pd.DataFrame({"feature": [1, 1, 2, 2, 3, 3], "passage": range(6), "floor": 1e-13})
    table = table.assign(timing="at_token", native_write="value", amplitude="norm")
    table = table.assign(direction="native||patched", reading="write")
    table["kl_delete"] = 1.0
    table["kl_atom"] = [0.5, 0.5, 0.5, 2.0, 1.0, 1.5]  # win rates 1, 1/2, 0
    table["top1_delete"] = [True, False, True, True, False, False]
    table["class"] = ["register", "register", "register", "register", "bundle", "bundle"]
    table["atom_cosine"] = [0.3, 0.3, 0.2, 0.2, 0.01, 0.01]
    table["per_10k"] = [4.0, 4.0, 8.0, 8.0, 6.0, 6.0]
    table["share"] = [0.1, 0.2, 0.3, 0.5, 0.7, 0.9]
    (s,) = summarise({"records": table}, PopulationConfig(bins=(0.0, 0.25, 1.0))).cells
    assert s.share == 0.4
    assert (s.timing, s.native_write, s.amplitude) == ("at_token", "value", "norm")
    assert (s.atoms, s.win_rate, s.floor.verdict) == (3, 0.5, "undecided")
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
    (small,) = summarise({"records": table.assign(floor=0.3)}, PopulationConfig()).cells
    assert (small.floor.above, small.floor.verdict) == (0.0, "too small to decide")


def test_too_few_firings(host: Host, passages: torch.Tensor) -> None:
    for settings, complaint in (
        ({"atoms": 0}, "too small"),
        ({"most": 3}, "nothing fits"),
        ({"bins": (0.0,)}, "borders"),
        ({"controls": ("flat_svd",)}, "needs a second one"),
    ):
        with pytest.raises(ConfigError, match=complaint):
            PopulationConfig(**settings)
    with pytest.raises(InputError, match="none of 9 sampled atoms"):
        population(host, dictionary(), passages, site=SITE, atoms=9, most=999, fewest=999)


def test_three_alive_atoms_are_refused_in_words(host: Host, passages: torch.Tensor) -> None:
    sae = dictionary()
    sae.b_enc.data[3:] = -1e9
    with pytest.raises(InputError, match=r"only 3 of 61 features fire at least 1 times: .* from 4 on"):
        population(host, sae, passages, **FEW)
