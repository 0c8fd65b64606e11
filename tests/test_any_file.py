"""Any change to any file that is read ends as refused in one line, or loaded and equal (docs/reliability.md)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from any_file import READERS, SLOWEST, counts

SLOW = ("store, verified", "result, computed anew")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [name for name in READERS if name not in SLOW])
def test_every_case_ends_as_refused_or_equal(name: str) -> None:
    told = counts(name, 100 if name in ("store", "result") else 200)  # those take 20 to 40 ms a case
    assert told["refused"] > 30
    assert told["equal"] > 3
    assert SLOWEST[name] < 5


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", READERS)
def test_every_case_of_many_ends_as_refused_or_equal(name: str) -> None:
    assert counts(name, 10_000)["refused"] > 3_000


def test_the_command_prints_the_table_of_the_docs() -> None:
    command = [sys.executable, str(Path(__file__).parent / "any_file.py"), "--cases", "3", "--kind", "recipe"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert printed[0] in (Path(__file__).parent.parent / "docs" / "reliability.md").read_text()
    assert printed[2].startswith("| recipe | 3 | ")
    assert "The slowest refusal took" in printed[-1]


def test_what_nobody_foresaw_shows_its_traceback(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No handler is for all exceptions: one that is not expected of a reader comes through it."""
    from writesae.artifacts import load_sae

    READERS["dictionary"].make(tmp_path)
    monkeypatch.setattr("writesae.artifacts.folder.read_config", lambda folder: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        load_sae(tmp_path / "it")
