"""A reproduction that is killed at random moments ends with the table of one that is not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_the_table_is_the_same(kills: int, tmp_path: Path) -> None:
    program = Path(__file__).parent / "killed.py"
    done = subprocess.run([sys.executable, program, tmp_path, str(kills)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["same"]
    assert found["killed"] == kills
    assert found["results"] == 4  # the audit, sign, and two numbers of active atoms
