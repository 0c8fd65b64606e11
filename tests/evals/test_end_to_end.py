"""`writesae eval substitution` and `population` from the command line: whatever the summary says, the records say."""

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch

from writesae.artifacts import save_sae
from writesae.cli import main
from writesae.config import from_json
from writesae.evals.old.population import PopulationConfig
from writesae.evals.old.population import summarise as summarise_population
from writesae.evals.old.result import plain
from writesae.evals.old.substitution import SubstitutionConfig, detail, summarise
from writesae.hosts import Host
from writesae.sae import SAE, Record, SAEConfig, TopK
from writesae.types import Site

SITES = (Site(5, 2), Site(2, 0))
TEXT = "--passages 7 --length 37"


@pytest.fixture(scope="module")
def saes(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two dictionaries on disk, of which neither fires at every token."""
    folders = []
    for seed, site in enumerate(SITES):
        sae = SAE(SAEConfig(32, 32, 61, sparsity=TopK(3), target="write-delta"), torch.Generator().manual_seed(seed))
        sae.b_enc.data[:] = -0.004
        folder = tmp_path_factory.mktemp("sae")
        save_sae(sae, folder, Record("tiny-gdn", site=site))
        folders.append(str(folder))
    return folders


@pytest.fixture
def evaluate(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Run the command on a host that is loaded already; returns the result folder."""
    monkeypatch.setattr("writesae.hosts.load", lambda *_, **__: host)

    def run(name: str, flags: str, *dictionaries: str) -> Path:
        words = ["eval", name, "--out", str(tmp_path / name), "--sae", *dictionaries, *TEXT.split(), *flags.split()]
        main(words)
        return tmp_path / name

    return run


def read(folder: Path) -> tuple[dict[str, object], pd.DataFrame]:
    return json.loads((folder / "summary.json").read_text()), pd.read_parquet(folder / "records.parquet")


@pytest.mark.parametrize("heads", [1, 2])
def test_substitution(evaluate: Callable[..., Path], saes: list[str], heads: int) -> None:
    flags = "--firings 40 --horizon 2 --controls pca other_atom"
    stored, records = read(evaluate("substitution", flags, *saes[:heads]))
    config = from_json(SubstitutionConfig, stored["config"])
    attempted, refused = stored["attempted"], from_json(dict[str, int], stored["refused"])
    assert attempted == config.firings == 40
    again = {}
    for timing in config.timings:
        part = records[records.protocol == timing]
        assert len(part) == 40 - sum(refused.values()) == stored["n"]
        summary = summarise(part, refused, config.seed)
        again[timing] = {**json.loads(json.dumps(plain(summary))), "detail": plain(detail(part, config.seed))}
    assert json.loads(json.dumps(again)) == stored["summary"]
    assert refused
    assert len(again["after_token"]["detail"]["win_rate_by_step"]) == 2
    where = stored["provenance"]
    assert isinstance(where, dict)
    assert where["site"] == ("L5.H2", "L2.H0,L5.H2")[heads - 1]
    assert ("feature_L2.H0" in records) == (heads == 2)
    mean = (records.step1_kl_pca + records.step2_kl_pca) / 2
    pd.testing.assert_series_equal(records.kl_pca, mean, check_names=False)


def test_population(evaluate: Callable[..., Path], saes: list[str]) -> None:
    stored, records = read(evaluate("population", "--atoms 9 --most 4 --fewest 2 --protocol.horizon 2", saes[0]))
    config = from_json(PopulationConfig, stored["config"])
    assert json.loads(json.dumps(plain(summarise_population(records, config)))) == stored["summary"]
    assert stored["n"] == records.feature.nunique()
