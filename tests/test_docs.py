"""What the pages of docs/ show runs as printed."""

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from writesae.cli import COMMANDS, main
from writesae.evals import EVALUATIONS
from writesae.sae.config import Decoder, Encoder, Sparsity
from writesae.sae.presets import PRESETS

DOCS = Path(__file__).parent.parent / "docs"
PAGE = DOCS / "cli.md"


def test_the_command_line_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```sh\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    assert len(lines) > 5
    for line in lines:
        words = shlex.split(line)
        assert words[0] == "writesae"
        main(words[1:])
    assert (tmp_path / "run" / "sae" / "manifest.json").is_file()
    assert (tmp_path / "quickstart" / "report.html").is_file()


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.name)
def test_no_table_is_announced_and_empty(page: Path) -> None:
    lines = [*page.read_text(encoding="utf-8").splitlines(), ""]
    rules = [number for number, line in enumerate(lines) if re.fullmatch(r"\|(\s*:?-+:?\s*\|)+", line)]
    assert [number for number in rules if not lines[number + 1].startswith("|")] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([name, "--help"])
    assert stop.value.code == 0
    assert f"writesae {name}" in capsys.readouterr().out


def run_python(page: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run a page's Python blocks in order in one namespace; its text."""
    monkeypatch.chdir(folder)
    text = (DOCS / page).read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert blocks
    names: dict[str, object] = {}
    for block in blocks:
        exec(block, names)
    return text


def test_the_dictionaries_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = run_python("dictionaries.md", tmp_path, monkeypatch)
    assert "L5.H2" in capsys.readouterr().out
    for name in PRESETS:
        assert f"`{name}`" in page
    for part in get_args(Encoder) + get_args(Decoder) + get_args(Sparsity):
        assert f"`{part.__name__}" in page


def test_the_edits_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run_python("edits.md", tmp_path, monkeypatch)
    said = capsys.readouterr().out
    assert "the prices of writes" in said
    assert len(said.splitlines()) >= 2


WORDS = (
    "key", "value", "write", "native write", "delta write", "state", "decay", "atom", "feature", "firing", "register",
    "site", "timing", "reading", "amplitude", "control", "share", "passage", "context",
)  # fmt: skip


def test_the_glossary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    page = run_python("glossary.md", tmp_path, monkeypatch)
    assert "share 0." in capsys.readouterr().out
    assert [word for word in WORDS if f"\n| {word} | " not in page] == []
    assert "(docs/glossary.md)" in (DOCS.parent / "README.md").read_text(encoding="utf-8")


def test_the_evaluations_page_names_every_evaluation() -> None:
    page = (DOCS / "evaluations.md").read_text(encoding="utf-8")
    assert all(f"| `{name}` |" in page for name in EVALUATIONS)


def test_tables_are_what_the_result_files_say() -> None:
    """`docs/tables.py` makes every figure of ours on the pages; none is typed by hand."""
    done = subprocess.run([sys.executable, DOCS / "tables.py", "--check"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
