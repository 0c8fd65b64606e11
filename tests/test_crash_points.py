"""A writer that is killed or refused at any file operation can be called again (docs/reliability.md)."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = [sys.executable, str(Path(__file__).parent / "crash_points.py")]
needs_a_compiler = pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("cc") is None, reason="builds a shim that is loaded before the C library"
)


@needs_a_compiler
def test_some_operations_of_two_writers() -> None:
    done = subprocess.run([*COMMAND, "--each", "5", "--kind", "owner", "--kind", "dictionary"], capture_output=True,
                          text=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    printed = done.stdout.splitlines()
    assert printed[0] in (Path(__file__).parent.parent / "docs" / "reliability.md").read_text()
    assert [line.split("|")[1].strip() for line in printed[2:]] == ["owner", "dictionary"]


@pytest.mark.slow
@needs_a_compiler
def test_every_operation_of_every_writer() -> None:
    subprocess.run(COMMAND, check=True)
