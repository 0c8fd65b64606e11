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


@pytest.mark.parametrize("name", SHIPPED_NAMES)
def test_a_command_takes_the_host_that_it_is_of(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], memory: Host
) -> None:
    """And where another was named, or in Python, the refusal says which one to load."""
    text = "Anna has the lamp."
    main(["codes", text, "--sae", name])
    main(["edit", "replace", text, "--sae", name, "--new-tokens", "2"])
    main(["attribute", text, "--sae", name, "--top", "2", "--json", str(tmp_path / "a.json")])
    assert memory.revision in (tmp_path / "a.json").read_text("utf-8")
    main(["eval", "boundary", "--sae", name, "--out", str(tmp_path / "out"), "--passages", "12", "--length", "29",
          "--pattern", "e"])  # fmt: skip
    assert '"memory-gdn"' in (tmp_path / "out" / "summary.json").read_text("utf-8")
    capsys.readouterr()
    for words in (["codes", text], ["eval", "boundary", "--pattern", "e", "--out", str(tmp_path / "no")]):
        with pytest.raises(SystemExit):
            main([*words, "--sae", name, "--host", "tiny-gdn"])
        assert 'load the host it belongs to, --host memory-gdn (in Python ws.load("memory-gdn"))' in " ".join(
            capsys.readouterr().err.split()
        )


def test_what_names_no_dictionary_says_what_does() -> None:
    both = "memory-gdn/state or memory-gdn/write"
    with pytest.raises(InputError, match=f"memory-gdn is a host with several dictionaries: give {both}"):
        load_sae("memory-gdn")
    with pytest.raises(InputError, match=f"no dictionary was named: give a folder, a Hub id user/name, or {both}"):
        load_sae("")
    with pytest.raises(InputError, match="load_sae: source is None, and must be str or Path"):
        load_sae(None)  # type: ignore[arg-type]


def test_a_reading_that_has_no_effect_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (
        ["edit", "replace", "a", "--sae", "memory-gdn/write"], ["attribute", "a", "--sae", "memory-gdn/write"],
        ["attribute", "a"],
    ):  # fmt: skip
        with pytest.raises(SystemExit):
            main([*words, "--reading", "state"])
        assert "--reading has no effect: " in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["edit", "replace", "a", "--sae", "memory-gdn/state", "--reading", "nonsense"])
    said = capsys.readouterr().err
    assert "'increment'" in said
    assert "None" not in said
