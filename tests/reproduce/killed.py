"""A small reproduction that is killed again and again, beside one that is not: `python killed.py FOLDER KILLS`.

A warm process forks; each fork goes on in the same folder and is killed when a random number of files is there. Prints,
as JSON, how many forks were killed, whether the folder's table then is that of an undisturbed run, and how many results
there are.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from writesae.hosts import load
from writesae.reproduce import ReproduceConfig
from writesae.reproduce.run import TABLE, reproduce
from writesae.reproduce.sizes import SIZES

SIZES["quick"] = replace(
    SIZES["quick"], tokens=2_000, length=48, features=24, k=3, train_tokens=8_192, batch=512, passages=3, layers=1,
    options={"sign": {"passages": 8}},
)  # fmt: skip
CONFIG = ReproduceConfig(("tiny-gdn",), ("edit.sign", "k_sweep"), quick=True, workers=1)


def files(out: Path) -> int:
    """How many there are."""
    return sum(path.is_file() for path in out.rglob("*"))


def forked(out: Path, until: int | None) -> bool:
    """Run, or go on, in a fork, to its end or until there are so many files; whether it was killed."""
    child = os.fork()
    if child == 0:
        reproduce(CONFIG, out, Console(quiet=True))
        os._exit(0)
    ended = code = 0
    while not ended:
        ended, code = os.waitpid(child, os.WNOHANG if until is not None else 0)
        if not ended and until is not None:
            if files(out) >= until:
                os.kill(child, signal.SIGKILL)
                until = None
            time.sleep(0.001)
    if code and not os.WIFSIGNALED(code):
        raise SystemExit(f"a run that was not killed ended with {code}")
    return os.WIFSIGNALED(code)


def main(folder: Path, kills: int) -> None:
    """Both runs."""
    load("tiny-gdn")  # every import is made before the first fork
    forked(folder / "undisturbed", None)
    moments = sorted(random.Random(kills).sample(range(2, files(folder / "undisturbed")), kills))
    killed = sum(forked(folder / "killed", moment) for moment in moments)
    forked(folder / "killed", None)
    tables = [(folder / name / TABLE).read_bytes() for name in ("undisturbed", "killed")]
    results = len(list((folder / "killed").rglob("summary.json")))
    print(json.dumps({"killed": killed, "same": tables[0] == tables[1], "results": results}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
