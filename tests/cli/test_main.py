"""The command as a whole: speed, help, exit codes, and what happens to an error."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from writesae.cli import COMMANDS, RENAMED, main
from writesae.reproduce.rows import without

PROGRAM = [sys.executable, "-m", "writesae.cli"]


def failed(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line of a command that ends with exit code 2."""
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith("writesae: ")
    return said


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_and_refuses_an_unknown_flag_in_one_line(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main([name, "--help"])
    assert stop.value.code == 0
    assert f"usage: writesae {name}" in capsys.readouterr().out
    assert "nonsense" in failed([name, "--nonsense", "3"], capsys)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_is_light(name: str) -> None:
    code = f"import sys; from writesae.cli import main\ntry: main([{name!r}, '--help'])\nexcept SystemExit: pass\n"
    code += "sys.exit(any(m in sys.modules for m in ('torch', 'transformers', 'pandas')))"
    assert subprocess.run([sys.executable, "-c", code], check=False, stdout=subprocess.DEVNULL).returncode == 0


def test_the_list_of_commands_needs_no_parser() -> None:
    code = "import sys; from writesae.cli import main\nmain(['--help'])\n"
    code += "sys.exit(any(m in sys.modules for m in ('tyro', 'rich', 'numpy', 'inspect')))"
    assert subprocess.run([sys.executable, "-c", code], check=False, stdout=subprocess.DEVNULL).returncode == 0


def test_unknown_and_renamed_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert "unknown command 'trian': choose one of quickstart" in failed(["trian"], capsys)
    assert f"is gone, {RENAMED['experiment']}" in failed(["experiment", "sign"], capsys)


def test_words_that_are_no_text_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert r"'a\udcff' is not text in UTF-8" in failed(["hosts", os.fsdecode(b"a\xff")], capsys)
    assert r"'\ud800' is not text in UTF-8" in failed(["hosts", "\ud800"], capsys)


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["eval", "--help"]])
def test_a_reader_that_went_away_is_no_error(words: list[str]) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([*PROGRAM, *words], stdout=write, stderr=subprocess.PIPE, check=False)
    os.close(write)
    assert done.stderr == b""
    assert done.returncode in (1, 141)


@pytest.mark.parametrize("error", [BrokenPipeError("of another pipe"), ZeroDivisionError("unforeseen")])
def test_an_unforeseen_error_shows_its_traceback(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(_: object) -> None:
        raise error

    monkeypatch.setattr("importlib.import_module", lambda _: SimpleNamespace(parse=lambda _: None, run=run))
    with pytest.raises(type(error), match=str(error)):
        main(["eval", "x"])


def test_lines_for_a_pipe_are_not_wrapped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of `reproduce` and `quickstart`, whose lines are longer than a terminal is wide."""
    why = "is about hosts of another family " * 9
    rows = [without("hosts.rwkv7", "tiny-gdn", why.strip())]
    monkeypatch.setattr("writesae.reproduce.run.reproduce", lambda *_: rows)
    monkeypatch.setattr("writesae.reproduce.page.write_page", lambda out, *_: out / "page.html")
    main(["reproduce", "--out", str(tmp_path / "out")])
    said = capsys.readouterr().out
    assert any("hosts.rwkv7" in line and why.strip() in line for line in said.splitlines())
    monkeypatch.setattr("writesae.hosts.load", lambda *_, **__: None)
    monkeypatch.setattr("writesae.quickstart.run.quickstart", lambda *given: given[-1].print(why.strip()))
    main(["quickstart", "--out", str(tmp_path / "quick")])
    assert capsys.readouterr().out == f"{why.strip()}\n"
