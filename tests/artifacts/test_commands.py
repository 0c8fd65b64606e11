"""The commands: parse, one call, one clear line and exit code 2 on bad input."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from dictionaries import K, N, V, random_sae, same
from huggingface_hub import constants
from legacy_files import random_config, random_state, write_payload
from test_folder import RECORD

from fake_hub import Hub, point_at, serve
from writesae.artifacts import add_to_collection, load_sae, save_sae
from writesae.artifacts.hub import list_cells
from writesae.cli import main
from writesae.errors import InputError
from writesae.sae import SAEConfig, TopK
from writesae.types import Site

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
    writesae("convert", tmp_path / "lens", tmp_path / "back", "--d-k", str(K), "--d-v", str(V))
    assert load_sae(tmp_path / "back").config.features == N


def test_what_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "holds no checkpoint" in fails(capsys, "convert", tmp_path, tmp_path / "y")


WRONG = [
    ("list {0}/onee", "there is no folder {0}/onee (near: {0}/one), and it is no Hub id user/name"),
    ("push {0}/onee me/repo", "there is no file or folder {0}/onee (near: {0}/one)"),
    ("verify {0}/onee", "there is no file or folder {0}/onee (near: {0}/one)"),
    ("convert {0}/onee {0}/out", "there is no file or folder {0}/onee (near: {0}/one)"),
    ("report {0}/onee", "there is no file or folder {0}/onee (near: {0}/one)"),
    ("convert {0}/one {0}/file/out", "{0}/file is a file"),
    ("pull me/repo {0}/file", "{0}/file is a file"),
    ("pull repo {0}/out", "'repo' is not written like a repository on the Hub, user/name"),
    ("report {0}/file", "{0}/file is a file"),
    ("convert {0}/one {0}/out --d-k 3", "both --d-k and --d-v"),
    ("convert {0}/one {0}/out --d-k 3 --d-v -3", "at least 1 each"),
    (
        "convert {0}/one {0}/out --to saelens --threshold 3",
        "--threshold says nothing to an export, which takes --side",
    ),
    ("convert {0}/one {0}/out --side key", "--side says nothing to a release, which takes --write-target, --d-k"),
    ("convert {0}/lens {0}/out --d-k 3 --d-v 3 --host h", "--host says nothing to an SAE of vectors"),
]
"""Words of a command and what is said of them, where nothing has to be loaded to see it."""


@pytest.fixture
def places(tmp_path: Path) -> Path:
    """A few files and folders."""
    (tmp_path / "one").mkdir()
    (tmp_path / "lens").mkdir()
    (tmp_path / "lens" / "cfg.json").write_text("{}")
    (tmp_path / "file").write_text("")
    return tmp_path


@pytest.mark.parametrize(("words", "message"), WRONG)
def test_what_is_wrong(words: str, message: str, places: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert message.format(places) in fails(capsys, *words.format(places).split())
    assert not (places / "out").exists()


def test_what_costs_nothing_to_see_is_seen_before_anything_is_loaded(places: Path) -> None:
    every = [words.format(places).split() for words, _ in WRONG]
    code = f"import sys; from writesae.cli import main\nfor words in {every}:\n"
    code += "    try: main(words)\n    except SystemExit: print(words[0])\n"
    code += "sys.exit(any(m in sys.modules for m in ('torch', 'pandas', 'transformers')))"
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout.count("\n"), done.stderr.count("\n")) == (0, len(WRONG), len(WRONG))


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """What `train` writes for two heads."""
    for head in (4, 5):
        folder = tmp_path / "runs" / f"L9.H{head}_state_seed0"
        save_sae(ONE, folder / "sae", replace(RECORD, site=Site(9, head), seed=0))
        (folder / "history.jsonl").write_text('{"step": 1')  # cut short by a kill
    return tmp_path / "runs"


def test_what_train_wrote_is_listed_loaded_pushed_and_exported(
    runs: Path, hub: Hub, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    run = runs / "L9.H5_state_seed0"
    writesae("list", runs)
    listed = capsys.readouterr().out
    assert "L9.H4_state_seed0/sae" in listed
    assert "L9.H5_state_seed0/sae" in listed
    assert load_sae(run).site == load_sae(runs, site="L9.H5").site == Site(9, 5)
    with pytest.raises(InputError, match=r"fits several dictionaries of .*runs.*L9\.H4.*L9\.H5"):
        load_sae(runs)
    with pytest.raises(InputError, match="fits no dictionary"):
        load_sae(run, site="L9.H4")
    writesae("push", run, "me/one")
    writesae("push", runs, "me/both")
    assert [str(cell.site) for cell in list_cells("me/one")] == ["L9.H5"]
    assert [str(cell.site) for cell in list_cells("me/both")] == ["L9.H4", "L9.H5"]
    assert same(load_sae("me/both", site="L9.H4"), ONE)
    writesae("convert", run, runs.parent / "lens", "--to", "saelens")
    assert '"writesae_site": "L9.H5"' in (runs.parent / "lens" / "cfg.json").read_text()


def test_runs_that_would_be_the_same_cell_are_not_pushed(
    runs: Path, hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    save_sae(ONE, runs / "again" / "sae", replace(RECORD, site=Site(9, 4), seed=0))
    told = fails(capsys, "push", runs, "me/repo")
    assert "again/sae would be the same cell" in told
    assert "push them one by one" in told
    (runs / "again" / "sae" / "config.json").write_text("{}")
    assert "is not uploaded" in fails(capsys, "push", runs, "me/repo")
    assert "neither a dictionary nor a collection, nor a run" in fails(capsys, "push", runs.parent, "me/repo")


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
