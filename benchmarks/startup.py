"""How long `writesae --help` and `import writesae` take, each in a fresh interpreter (median of 9)."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

from rich.console import Console
from rich.table import Table

CASES = {
    "writesae --help": [sys.executable, "-m", "writesae.cli", "--help"],
    "writesae train --help": [sys.executable, "-m", "writesae.cli", "train", "--help"],
    "import writesae": [sys.executable, "-c", "import writesae"],
    "python -c pass": [sys.executable, "-c", "pass"],
}


def seconds(command: list[str]) -> float:
    """Median wall time of one command."""
    times = []
    for _ in range(9):
        begin = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


table = Table("command", "seconds")
for name, command in CASES.items():
    table.add_row(name, f"{seconds(command):.3f}")
Console().print(table)
