"""A writer that is killed at any file boundary leaves the old state or the new one, and never something that loads."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Kind of write -> what a reader finds after a kill before its 1st, 2nd, ... file operation."""
    program = Path(__file__).parent / "kill_writers.py"
    done = subprocess.run(
        [sys.executable, str(program), str(tmp_path_factory.mktemp("killed"))],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, list[str]] = json.loads(done.stdout)
    return result


@pytest.mark.parametrize(("kind", "before"), [("fresh", "nothing"), ("replace", "old"), ("cell", "old")])
def test_killed_writers_leave_nothing_that_loads(kind: str, before: str, found: dict[str, list[str]]) -> None:
    *states, code = found[kind]
    assert code == "exit 0"
    assert states[-1] == "new"
    assert len(states) > 12, "too few file operations were interrupted"
    assert set(states) <= {before, "new"}, states
    assert states == sorted(states, key=[before, "new"].index), "an earlier state came back"
