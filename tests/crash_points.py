"""Every file operation of every kind of writer, killed or failing, and whether the same call afterwards finishes.

    python tests/crash_points.py [--each 1] [--kind store]      every writer, for docs/reliability.md
    python tests/crash_points.py --commands 200                 so many points of whole commands together

A shim below Python (`shim.c`, built here) counts what a warm process does to files: opening for writing, writing,
copying, cutting, fsync, rename, link, unlink, mkdir. For every n, a fork of it is killed before the n-th operation, or
the operation fails with ENOSPC or EIO; a second fork then does the same again. It must leave the same bytes, or say in
one line what to do. Of whole commands, some n are taken, spread
evenly, and the faults by turns; clocks stand still, so that the bytes can be the same.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import errno
import io
import os
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

SHIM = "WRITESAE_SHIM"
KEPT = contextlib.ExitStack()
"""What lives as long as this process."""
FAULTS = {"killed": 0, "no room": errno.ENOSPC, "I/O error": errno.EIO}


def started(arguments: list[str]) -> int:
    """Build the shim and start this file again on top of it."""
    with tempfile.TemporaryDirectory() as folder:
        shim = Path(folder) / "shim.so"
        source = Path(__file__).parent / "shim.c"
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", shim, source, "-ldl"], check=True)
        environment = {**os.environ, "LD_PRELOAD": str(shim), SHIM: str(shim), "OMP_NUM_THREADS": "1"}
        environment["HF_HUB_OFFLINE"] = "0"  # `pull` asks a Hub on this machine
        return subprocess.run([sys.executable, __file__, *arguments], env=environment, check=False).returncode


class Writer(NamedTuple):
    """One kind."""

    before: Callable[[Path], object]
    """Makes what is there before."""
    work: Callable[[Path], object]
    """What is disturbed."""


def nothing(folder: Path) -> None:
    """Nothing is there before."""


def writers() -> dict[str, Writer]:
    """By what they write."""
    sys.path[:0] = [str(Path(__file__).parent / name) for name in ("store", "artifacts")]
    import pandas as pd
    import pytest
    import torch
    from dictionaries import K, N, V, random_sae
    from huggingface_hub import close_session
    from legacy_files import random_config, random_state, write_payload
    from store_fakes import FakeHost, capture, some_blocks

    from fake_hub import Hub, serve
    from small_results import small_result
    from writesae.artifacts import add_metrics, add_to_collection, save_sae
    from writesae.artifacts.hub import pull
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

    def store(folder: Path) -> object:
        return capture(FakeHost(), some_blocks(), [4], folder / "it", batch=7, progress=lambda *_: None)

    def pulled(folder: Path) -> None:
        if not hub.address:  # once, for all forks
            saved = folder / "from"
            for variant in ("a", "b"):
                add_to_collection(one, saved, replace(record, variant=variant))
            hub.add_folder("me/saes", saved)
            KEPT.enter_context(serve(hub, pytest.MonkeyPatch()))
            shutil.rmtree(saved)

    def fetch(folder: Path) -> None:
        close_session()  # a connection is of the process that made it
        pull("me/saes", folder / "it", cache_dir=folder / ".cache")

    hub = Hub()

    def released(folder: Path) -> None:
        write_payload(folder / "from" / "writesae_L9_H4" / "a.pt", random_state("bilinear"), random_config("bilinear"))

    made = {
        "JSON file": (nothing, lambda f: write_json(f / "a.json", {"a": [1, 2]})),
        "JSON file, replaced": (lambda f: write_json(f / "a.json", 1), lambda f: write_json(f / "a.json", [2] * 999)),
        "table": (nothing, lambda f: write_table(f / "a.parquet", pd.DataFrame({"a": range(97)}))),
        "owner": (nothing, lambda f: claim(f / "it", "training run", {"a": 1})),
        "checkpoint": (nothing, lambda f: save_checkpoint(f, {"a": torch.arange(97)})),
        "dictionary": (nothing, lambda f: save_sae(one, f / "it", record)),
        "dictionary, replaced": (
            lambda f: save_sae(other, f / "it", record),
            lambda f: save_sae(one, f / "it", record, replace=True),
        ),
        "metrics": (lambda f: save_sae(one, f / "it", record), lambda f: add_metrics(f / "it", {"a": {"b": 1.5}})),
        "collection": (nothing, lambda f: add_to_collection(one, f / "it", record, replace=True)),
        "store": (nothing, store),
        "result": (nothing, lambda f: result.save(f / "it")),
        "result, computed anew": (lambda f: result.save(f / "it"), recompute),
        "page": (lambda f: result.save(f / "it"), report),
        "converted release": (released, lambda f: convert_snapshot(f / "from", f / "to")),
        "pull": (pulled, fetch),
    }
    return {name: Writer(*both) for name, both in made.items()}  # fmt: skip


HOST = ("--host", "tiny-gdn")
TEXT = ("--length", "64")


def stop_clocks(put: Callable[[object, str, object], None] = setattr) -> None:
    """Let no time pass, so that what is written does not depend on it."""
    for clock in ("time", "perf_counter"):
        put(time, clock, lambda: 0.0)


def commands() -> dict[str, Writer]:
    """Whole commands, small; one that is refused raises what it says."""

    def said(*words: str) -> Callable[[Path], object]:
        def run(folder: Path) -> None:
            from writesae.cli import main
            from writesae.errors import WritesaeError

            told = io.StringIO()
            try:
                with contextlib.redirect_stderr(told), contextlib.redirect_stdout(io.StringIO()):
                    main([word.replace("CASE", str(folder)) for word in words])
            except SystemExit as end:
                bars, _, line = told.getvalue().rpartition("writesae: ")  # what a progress bar left stands before it
                if end.code == 2 and line.count("\n") == 1 and "Traceback" not in bars:
                    raise WritesaeError(line) from None
                raise AssertionError(f"ended with {end.code}: {told.getvalue()}") from None

        return run

    def dictionary(folder: Path) -> None:
        store(folder)
        train(folder)

    kept = "--layers 5 --tokens 1024 --batch 8 --out CASE/store"
    steps = "--features 61 --k 5 --batch 128 --steps 23 --workers 1 --out CASE/runs"
    few = "--sae CASE/runs/L5.H0_state_seed0 --passages 24 --out CASE/it"
    chain = "--tokens 2048 --features 61 --k 5 --batch 256 --train-tokens 4096 --firings 23 --passages 12 --atoms 3"
    chain += " --memory-passages 2 --workers 1 --site L5.H0 --out CASE/it"
    store = said("capture", *HOST, *TEXT, *kept.split())
    train = said("train", "CASE/store", "--site", "L5.H0,L5.H2", *steps.split())
    measure = said("eval", "partition", *HOST, *TEXT, *few.split())
    return {
        "writesae capture": Writer(nothing, store),
        "writesae train": Writer(store, train),
        "writesae eval": Writer(dictionary, measure),
        "writesae quickstart": Writer(nothing, said("quickstart", *HOST, *TEXT, *chain.split())),
    }


def forked(work: Callable[[], object], said: Path) -> int:
    """How a fork of this process ends: 0, 2 (one line of ours, in `said`), 3 (a traceback), or a signal below 0."""
    from writesae.errors import WritesaeError

    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    code = 3
    if torch := sys.modules.get("torch"):  # PyTorch refuses to set them in a fork of a process that has set them
        torch.set_num_threads = lambda count: None  # type: ignore[attr-defined]
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


def points(writer: Writer, name: str, each: int = 1, most: int | None = None) -> tuple[int, Counter[str]]:
    """How many operations a writer takes, and how each `each`-th of them ends under every fault; or `most` of them,
    evenly, under the faults by turns."""
    shim = ctypes.CDLL(os.environ[SHIM])
    told: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as scratch:
        case, said, number, made = (Path(scratch) / part for part in ("case", "said", "number", "made"))

        def fresh() -> None:
            shutil.rmtree(case, ignore_errors=True)
            shutil.copytree(made, case, symlinks=True)

        def disturbed(n: int, fault: int) -> Callable[[], None]:
            def run() -> None:
                shim.arm(n, fault)
                try:
                    writer.work(case)
                finally:
                    count = shim.disarm()
                number.write_text(str(count))

            return run

        case.mkdir()
        writer.before(case)
        case.rename(made)
        fresh()
        if "quickstart" not in name:  # whose threads of torch a fork could not go on with
            writer.work(case)  # warm
        fresh()
        assert forked(disturbed(1 << 40, 0), said) == 0, said.read_text()
        total, whole = int(number.read_text()), held(case)
        if most is None:
            cases = [(n, fault) for n in range(1, total + 1, each) for fault in FAULTS]
        else:
            faults = list(FAULTS)
            cases = [(1 + i * total // most, faults[i % len(faults)]) for i in range(most)]
        for n, fault in cases:
            fresh()
            first = forked(disturbed(n, FAULTS[fault]), said)
            where = f"{name}, operation {n} of {total}, {fault}"
            assert first in ((0, 2) if FAULTS[fault] else (-9,)), f"{where}: {said.read_text()}"
            after = held(case)
            again = forked(lambda: writer.work(case), said)
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
    parser.add_argument("--commands", type=int, help="so many points of whole commands, instead of the writers")
    asked = parser.parse_args()
    if SHIM not in os.environ:
        return started(sys.argv[1:])
    warnings.simplefilter("ignore")
    if asked.commands:
        stop_clocks()
    found = commands() if asked.commands else writers()
    kinds = asked.kind or list(found)
    most = asked.commands and -(-asked.commands // len(kinds))
    print(f"| what is written | operations | {' | '.join(FAULTS)} |", "|---|---|---|---|---|", sep="\n", flush=True)
    for name in kinds:
        total, told = points(found[name], name, asked.each, most)
        print(f"| {name} | {total} | {' | '.join(f'{told[fault]} of {told[fault]}' for fault in FAULTS)} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
