"""What the system refuses is one line with exit code 2; SIGTERM saves; terminals and locales that are not UTF-8."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from small_results import small_sae
from writesae.artifacts import save_sae
from writesae.cli import COMMANDS, main
from writesae.store import open_store

PROGRAM = [sys.executable, "-m", "writesae.cli"]
ASCII = {"PYTHONIOENCODING": "ascii:strict"}
NO_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
PIECES: dict[str, tuple[list[str], str]] = {
    "capture": (["capture", "--layers", "1", "--length", "31", "--batch", "1", "--tokens", "1860"], "shards/*.json"),
    "eval": (["eval", "quality", "--sae", "SAE", "--passages", "160", "--length", "64"], "parts/part-*"),
    "quickstart": (["quickstart", "--length", "64", "--passages", "64"], "run.json"),
}


@pytest.fixture(scope="module")
def sae_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a dictionary."""
    folder = tmp_path_factory.mktemp("saes") / "sae"
    save_sae(small_sae(), folder)
    return folder


@pytest.fixture(scope="module")
def usual() -> str:
    """What loading a host says here anyway: fla warns where Triton is missing."""
    done = subprocess.run([*PROGRAM, "hosts", "tiny-gdn"], capture_output=True, text=True, check=True)
    return done.stderr


def fails(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stop:
        main(words)
    said = capsys.readouterr().err
    assert (stop.value.code, said.count("\n")) == (2, 1), said
    return said


@pytest.mark.parametrize("name", COMMANDS)
def test_what_the_system_refuses_is_one_line_for_every_command(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/some/place")

    monkeypatch.setattr("writesae.cli.parsing.parse_flags", lambda *_: None)
    command = SimpleNamespace(run=run, parse=lambda _: None, Command=SimpleNamespace(__doc__=""))
    monkeypatch.setattr("importlib.import_module", lambda _: command)
    assert "the system refuses /some/place: No space left on device" in fails([name], capsys)


def test_a_working_folder_that_vanished_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    code = "import os, sys; os.rmdir(os.getcwd()); from writesae.cli import main; main(sys.argv[1:])"
    words = ["capture", "--out", "out", "--layers", "1"]
    done = subprocess.run([sys.executable, "-c", code, *words], cwd=gone, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["attribute", "a b", "--html", "nodir/a.html"],
        ["attribute", "a b", "--json", "file/a.json"],
        ["edit", "erase", "a b", "--site", "L5.H0", "--json", "nodir/a.json"],
        ["capture", "--out", "file/x"],
        ["quickstart", "--out", "file/x"],
        ["eval", "spectrum", "--out", "file/x"],
        ["eval", "all", "--out", "file/x"],
        ["train", "file", "--out", "file/x", "--site", "L5.H0"],
        ["pull", "a/b", "file/x"],
        ["convert", "file", "file/x"],
    ],
)
def test_a_place_that_cannot_be_written_is_said_before_the_work(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.chdir(tmp_path)

    def load(*_: object, **__: object) -> None:
        raise AssertionError("the host was loaded first")

    monkeypatch.setattr("writesae.hosts.load", load)
    said = fails(words, capsys)
    assert "there is no folder nodir: make it first" in said or "/file is a file" in said
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("name", PIECES)
def test_sigterm_saves_what_is_finished_and_the_same_command_goes_on(
    name: str, sae_folder: Path, tmp_path: Path
) -> None:
    words, piece = PIECES[name]
    words = [str(sae_folder) if word == "SAE" else word for word in words]
    out = tmp_path / "out"
    with subprocess.Popen([*PROGRAM, *words, "--out", str(out)], stderr=subprocess.PIPE, text=True) as run:
        begin = time.monotonic()
        while not any(path.stat().st_size for path in out.glob(piece)) and time.monotonic() - begin < 120:
            time.sleep(0.01)
        run.send_signal(signal.SIGTERM)
        _, said = run.communicate(timeout=120)
    assert run.returncode == 143, said
    assert said.rstrip().endswith("writesae: interrupted; run the same command again to continue where it stopped")
    assert "Traceback" not in said
    assert not list(tmp_path.rglob("*.lock"))
    kept = {path: path.stat().st_mtime_ns for path in out.glob(piece)}
    if name == "capture":
        assert 0 < len(kept) < 60
        subprocess.run([*PROGRAM, *words, "--out", str(out)], check=True, capture_output=True)
        assert open_store(out).sequences == 60
    elif name == "eval":
        assert 0 < len(kept) < 10
        subprocess.run([*PROGRAM, *words, "--out", str(out)], check=True, capture_output=True)
        assert kept.items() <= {path: path.stat().st_mtime_ns for path in out.glob(piece)}.items()


def test_a_terminal_that_is_not_utf8_loses_neither_the_files_nor_the_command(tmp_path: Path, usual: str) -> None:
    edit = ["edit", "erase", "日本語 and a café", "--site", "L5.H0", "--new-tokens", "3"]
    for words, name in ((edit, "prompt"), (["attribute", "日本語 and a café"], "text")):
        run = [*PROGRAM, *words, "--json", f"{name}.json", "--html", f"{name}.html"]
        done = subprocess.run(run, cwd=tmp_path, env=os.environ | ASCII, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, usual)
        assert json.loads((tmp_path / f"{name}.json").read_text("utf-8"))[name] == "日本語 and a café"
        page = (tmp_path / f"{name}.html").read_text("utf-8")
        assert "\ufffd" not in page + done.stdout
        assert "caf?" in done.stdout or "xc3" in done.stdout  # what the terminal lacks, and half of a character


def test_words_in_utf8_are_understood_in_a_locale_without_it(tmp_path: Path, usual: str) -> None:
    run = [*PROGRAM, "edit", "erase", "a café", "--site", "L5.H0", "--new-tokens", "3", "--json", "a.json"]
    done = subprocess.run(run, cwd=tmp_path, env=os.environ | NO_LOCALE, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, usual)
    assert json.loads((tmp_path / "a.json").read_text("utf-8"))["prompt"] == "a café"
