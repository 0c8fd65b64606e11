"""Every file operation of every kind of writer, killed or failing, and whether the same call afterwards finishes.

    python tests/crash_points.py [--each 1] [--kind store]      prints the table of docs/reliability.md

A shim below Python (`shim.c`, built here) counts what a warm process does to files: opening for writing, writing,
fsync, rename, unlink, mkdir. For every n, a fork of it is killed before the n-th operation, or the operation fails with
ENOSPC or EIO; a second fork then does the same again. It must leave the same bytes, or say in one line what to do.
"""

from __future__ import annotations

import argparse
import ctypes
import errno
import os
import shutil
import subprocess
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

SHIM = "WRITESAE_SHIM"
FAULTS = {"killed": 0, "no room": errno.ENOSPC, "I/O error": errno.EIO}


def started(arguments: list[str]) -> int:
    """Build the shim and start this file again on top of it."""
    with tempfile.TemporaryDirectory() as folder:
        shim = Path(folder) / "shim.so"
        source = Path(__file__).parent / "shim.c"
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", shim, source, "-ldl"], check=True)
        environment = {**os.environ, "LD_PRELOAD": str(shim), SHIM: str(shim), "OMP_NUM_THREADS": "1"}
        return subprocess.run([sys.executable, __file__, *arguments], env=environment, check=False).returncode


def writers() -> dict[str, tuple[Callable[[Path], object], Callable[[Path], object]]]:
    """What is there before, and the call that is disturbed, by kind."""
    sys.path[:0] = [str(Path(__file__).parent / name) for name in ("store", "artifacts")]
    import pandas as pd
    import torch
    from dictionaries import K, N, V, random_sae
    from legacy_files import random_config, random_state, write_payload
    from store_fakes import FakeHost, capture, some_blocks

    from small_results import small_result
    from writesae.artifacts import add_metrics, add_to_collection, save_sae
    from writesae.artifacts.legacy import convert_snapshot
    from writesae.disk import claim, write_json, write_table
    from writesae.hosts import load
    from writesae.page import report
    from writesae.page.find import recompute
    from writesae.sae import Record, SAEConfig, TopK
    from writesae.training.folder import save_checkpoint
    from writesae.types import Site

    one, other = (random_sae(SAEConfig(K, V, N, sparsity=TopK(5)), seed) for seed in (0, 1))
    record = Record("tiny-gdn", "r1", Site(5, 0), variant="a", seed=3)
    result = small_result("spectrum", load("tiny-gdn"), torch.arange(58).reshape(2, 29))

    def nothing(folder: Path) -> None:
        return None

    def store(folder: Path) -> object:
        return capture(FakeHost(), some_blocks(), [4], folder / "it", batch=7, progress=lambda *_: None)

    def released(folder: Path) -> None:
        write_payload(folder / "from" / "writesae_L9_H4" / "a.pt", random_state("bilinear"), random_config("bilinear"))

    return {
        "JSON file": (nothing, lambda f: write_json(f / "a.json", {"a": [1, 2]})),
        "JSON file, replaced": (lambda f: write_json(f / "a.json", 1), lambda f: write_json(f / "a.json", [2] * 999)),
        "table": (nothing, lambda f: write_table(f / "a.parquet", pd.DataFrame({"a": range(97)}))),
        "owner": (nothing, lambda f: claim(f / "it", "training run", {"a": 1})),
        "checkpoint": (nothing, lambda f: save_checkpoint(f, {"a": torch.arange(97)})),
        "dictionary": (nothing, lambda f: save_sae(one, f / "it", record)),
        "dictionary, replaced": (
            lambda f: save_sae(other, f / "it", record), lambda f: save_sae(one, f / "it", record, replace=True)
        ),
        "metrics": (lambda f: save_sae(one, f / "it", record), lambda f: add_metrics(f / "it", {"a": {"b": 1.5}})),
        "collection": (nothing, lambda f: add_to_collection(one, f / "it", record, replace=True)),
        "store": (nothing, store),
        "result": (nothing, lambda f: result.save(f / "it")),
        "result, computed anew": (lambda f: result.save(f / "it"), recompute),
        "page": (lambda f: result.save(f / "it"), report),
        "converted release": (released, lambda f: convert_snapshot(f / "from", f / "to")),
    }  # fmt: skip


def forked(work: Callable[[], object], said: Path) -> int:
    """How a fork of this process ends: 0, 2 (one line of ours, in `said`), 3 (a traceback), or a signal below 0."""
    from writesae.errors import WritesaeError

    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    code = 3
    try:
        work()
        code = 0
    except WritesaeError as error:
        said.write_text(str(error))
        code = 2
    except BaseException:
        said.write_text(traceback.format_exc())
    finally:
        os._exit(code)


def held(folder: Path) -> dict[str, bytes]:
    """All files that count."""
    from writesae.disk import files_under

    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files_under(folder)}


def points(name: str, each: int) -> tuple[int, Counter[str]]:
    """How many operations a writer takes, and how each `each`-th of them ends under every fault."""
    shim = ctypes.CDLL(os.environ[SHIM])
    before, work = writers()[name]
    told: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as scratch:
        case, said, number = Path(scratch) / "case", Path(scratch) / "said", Path(scratch) / "number"

        def fresh() -> None:
            shutil.rmtree(case, ignore_errors=True)
            case.mkdir()
            before(case)

        def disturbed(n: int, fault: int) -> Callable[[], None]:
            def run() -> None:
                shim.arm(n, fault)
                try:
                    work(case)
                finally:
                    count = shim.disarm()
                number.write_text(str(count))

            return run

        fresh()
        work(case)  # warm
        fresh()
        assert forked(disturbed(1 << 40, 0), said) == 0, said.read_text()
        total, whole = int(number.read_text()), held(case)
        for n in range(1, total + 1, each):
            for fault, code in FAULTS.items():
                fresh()
                first = forked(disturbed(n, code), said)
                where = f"{name}, operation {n} of {total}, {fault}"
                assert first in ((-9,) if not code else (0, 2)), f"{where}: {said.read_text()}"
                after = held(case)
                again = forked(lambda: work(case), said)
                line = said.read_text() if again else ""
                assert again in (0, 2), f"{where}, again: {line}"
                # a line that refuses what is there whole already, or what a second call cannot know to be its own
                now = held(case)
                other = sorted(path for path in now.keys() | whole.keys() if now.get(path) != whole.get(path))
                assert not other, f"{where}: {other} are otherwise, {line}"
                assert again == 0 or after == whole, f"{where}: {line}"
                told[fault] += 1
    return total, told


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--each", type=int, default=1, help="take each so-many-th operation only")
    parser.add_argument("--kind", action="append")
    asked = parser.parse_args()
    if SHIM not in os.environ:
        return started(sys.argv[1:])
    warnings.simplefilter("ignore")
    print(f"| what is written | operations | {' | '.join(FAULTS)} |", "|---|---|---|---|---|", sep="\n", flush=True)
    for name in asked.kind or writers():
        total, told = points(name, asked.each)
        print(f"| {name} | {total} | {' | '.join(f'{told[fault]} of {told[fault]}' for fault in FAULTS)} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
