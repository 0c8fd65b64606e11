"""The dictionaries that ship: whole, of the embedded hosts, learnt from the text that they are said to be of."""

from __future__ import annotations

from pathlib import Path

import pytest
from dictionaries import K, N, V, random_sae, same

from writesae.artifacts import load_sae, save_sae
from writesae.artifacts.shipped import NAMES as SHIPPED_NAMES
from writesae.artifacts.shipped import SHIPPED
from writesae.artifacts.verify import verify
from writesae.causal.identity import mismatches
from writesae.cli import main
from writesae.corpus.facts import fact_blocks, vocabulary
from writesae.errors import InputError
from writesae.hosts import Host, load
from writesae.quickstart.config import FACTS, HOST, NAMES, SEED, THINGS
from writesae.sae import SAEConfig, TopK


@pytest.fixture(scope="module")
def memory() -> Host:
    return load(HOST)


def test_they_are_whole_and_listed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    done = verify(SHIPPED)
    assert (done.kind, done.findings) == ("collection", ())
    assert set(SHIPPED_NAMES) == {"memory-gdn/state", "memory-gdn/write"}
    monkeypatch.setenv("COLUMNS", "200")
    main(["list"])
    listed = capsys.readouterr().out
    assert all(name in listed for name in SHIPPED_NAMES)


@pytest.mark.parametrize(("name", "target"), [("memory-gdn/state", "state"), ("memory-gdn/write", "write-delta")])
def test_they_fit_the_embedded_host(name: str, target: str, memory: Host) -> None:
    sae = load_sae(name)
    assert sae.target == target
    assert sae.site is not None
    assert not mismatches(memory, sae.site, sae)
    assert sae.record is not None
    assert sae.record.host_revision == memory.revision
    assert sae.record.metrics["k chosen by agreement of seeds"]


@pytest.mark.parametrize("name", SHIPPED_NAMES)
def test_they_were_trained_on_the_stated_facts_and_on_no_others(name: str, memory: Host) -> None:
    record, words = load_sae(name).record, vocabulary(memory.tokenizer).first(NAMES, THINGS)
    assert record is not None
    assert record.text is not None
    first = fact_blocks(words, 200, FACTS, SEED, "train")
    assert record.text.overlap(first) == 1
    assert (record.corpus or "").startswith(f"facts, {first.part}")
    assert record.text.overlap(fact_blocks(words, 200, FACTS, (SEED[0], 1), "held out")) == 0


def test_a_folder_of_that_name_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    own = random_sae(SAEConfig(K, V, N, sparsity=TopK(5)))
    save_sae(own, "memory-gdn/state")
    assert same(load_sae("memory-gdn/state"), own)
    assert not same(load_sae("memory-gdn/write"), own)
    with pytest.raises(InputError, match="near: memory-gdn/write"):
        load_sae("memory-gdn/writes", offline=True)
