"""The commands: parse, one call, one clear line and exit code 2 on bad input."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from dictionaries import K, N, V, random_sae, same
from fake_hub import Hub, point_at, serve
from huggingface_hub import constants
from legacy_files import random_config, random_state, write_payload
from test_folder import RECORD

from writesae.artifacts import add_to_collection, load_sae, save_sae
from writesae.cli import main
from writesae.sae import SAEConfig, TopK

ONE = random_sae(SAEConfig(K, V, N, sparsity=TopK(5)))
RELEASED = Path(__file__).parent / "released"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    with serve(Hub(), monkeypatch) as running:
        yield running


def writesae(*words: str | Path) -> None:
    main([str(word) for word in words])


def fails(capsys: pytest.CaptureFixture[str], *words: str | Path) -> str:
    with pytest.raises(SystemExit) as caught:
        writesae(*words)
    assert caught.value.code == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "Traceback" not in told
    return told


def test_convert_one_file_and_use_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    writesae("convert", RELEASED / "bilinear.pt", tmp_path / "out", "--write-target", "write-delta")
    assert "bilinear, 23 features of 11 x 7" in capsys.readouterr().out
    assert load_sae(tmp_path / "out", site="L9.H4").config.target == "write-delta"
    writesae("verify", tmp_path / "out")
    assert "(dictionary): all 1 items are as they should be" in capsys.readouterr().out
    assert "is not empty and belongs to something else" in fails(capsys, "convert", RELEASED / "flat.pt", tmp_path)
    assert "already holds a dictionary" in fails(capsys, "convert", RELEASED / "flat.pt", tmp_path / "out")


def test_convert_a_release_and_list_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    writesae("convert", RELEASED, tmp_path / "out")
    assert "5 dictionaries; 0 files agree with the release's manifest" in capsys.readouterr().out
    writesae("list", tmp_path / "out")
    listed = capsys.readouterr().out
    assert listed.count("bilinear") >= 3
    (tmp_path / "out" / "collection.json").write_text("{")
    assert "problems in" in fails(capsys, "verify", tmp_path / "out")


def test_convert_says_what_was_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_payload(tmp_path / "tree" / "good.pt", random_state("bilinear"), random_config("bilinear"))
    (tmp_path / "tree" / "bad.pt").write_bytes(b"PK\x03\x04")
    assert "1 files were refused, the others are in" in fails(capsys, "convert", tmp_path / "tree", tmp_path / "out")
    writesae("verify", tmp_path / "out")


def test_convert_to_saelens_and_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_sae(ONE, tmp_path / "one", RECORD)
    writesae("convert", tmp_path / "one", tmp_path / "lens", "--to", "saelens")
    assert "give --d-k and --d-v" in fails(capsys, "convert", tmp_path / "lens", tmp_path / "back")
    assert "both --d-k and --d-v" in fails(capsys, "convert", tmp_path / "lens", tmp_path / "back", "--d-k", "11")
    writesae("convert", tmp_path / "lens", tmp_path / "back", "--d-k", str(K), "--d-v", str(V))
    assert load_sae(tmp_path / "back").config.features == N


def test_what_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "does not exist" in fails(capsys, "convert", tmp_path / "x", tmp_path / "y")
    assert "does not exist" in fails(capsys, "verify", tmp_path / "x")
    assert "holds no checkpoint" in fails(capsys, "convert", tmp_path, tmp_path / "y")


def test_push_list_pull(hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_sae(ONE, tmp_path / "one", RECORD)
    writesae("push", tmp_path / "one", "me/repo", "--as-cell", "--private")
    add_to_collection(ONE, tmp_path / "many", replace(RECORD, variant="flat"))
    writesae("push", tmp_path / "many", "me/repo", "--message", "More")
    assert capsys.readouterr().out.count("/commit/") == 2
    writesae("list", "me/repo")
    assert "flat" in capsys.readouterr().out
    writesae("pull", "me/repo", tmp_path / "back", "--variant", "flat")
    assert same(load_sae(tmp_path / "back"), ONE)
    writesae("verify", tmp_path / "back")


def test_a_dead_hub_is_one_line(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    point_at(hub, "http://127.0.0.1:9", monkeypatch)
    for words in (("list", "me/repo"), ("pull", "me/repo", tmp_path / "out")):
        told = fails(capsys, *words)
        assert str(tmp_path / "cache") in told
        assert "--offline" in told
    save_sae(ONE, tmp_path / "one", RECORD)
    assert "cannot upload to me/repo" in fails(capsys, "push", tmp_path / "one", "me/repo")
