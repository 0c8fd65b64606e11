"""A run folder: which run it belongs to, which steps are finished, and files that appear whole or not at all."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from writesae.config import Json, read_json, to_json
from writesae.errors import OutputError
from writesae.quickstart.config import QuickstartConfig

MARK = "run.json"


class RunFolder:
    """The outputs of one quickstart. A step that finished is not run again."""

    def __init__(self, path: Path, config: QuickstartConfig) -> None:
        """Claim `path`; raises OutputError where it holds anything but this same run."""
        self.path = path
        self.reused: list[str] = []
        mine: Json = {"kind": "writesae-quickstart", "config": to_json(config)}
        if (path / MARK).is_file():
            theirs = read_json(path / MARK)
            if theirs != mine:
                raise OutputError(
                    f"{path} belongs to another run ({_difference(mine, theirs)}): choose another --out, or delete it"
                )
        elif path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise OutputError(f"{path} exists and is no quickstart folder: choose another --out")
        else:
            path.mkdir(parents=True, exist_ok=True)
            write_json(path / MARK, mine)

    def step(self, name: str, work: Callable[[], Json]) -> Json:
        """Run one step unless it is finished; returns what it found either way."""
        done = self.path / "steps" / f"{name}.json"
        if done.is_file():
            self.reused.append(name)
            return _found(read_json(done))
        begin = time.perf_counter()
        found = work()
        done.parent.mkdir(exist_ok=True)
        write_json(done, {"seconds": round(time.perf_counter() - begin, 2), "found": found})
        return found

    def seconds(self) -> dict[str, float]:
        """Seconds that each finished step took when it ran, in the order in which they finished."""
        files = sorted((self.path / "steps").glob("*.json"), key=lambda p: p.stat().st_mtime_ns)
        marks = {p.stem: read_json(p) for p in files}
        return {name: float(str(mark["seconds"])) for name, mark in marks.items() if isinstance(mark, dict)}


def _found(mark: Json) -> Json:
    if not isinstance(mark, dict) or "found" not in mark:
        raise OutputError("a step's record is damaged: delete the run folder's steps/ to run them again")
    return mark["found"]


def _difference(mine: Json, theirs: Json) -> str:
    ours, other = (x.get("config") if isinstance(x, dict) else None for x in (mine, theirs))
    if not isinstance(ours, dict) or not isinstance(other, dict):
        return "its run.json is of another kind"
    changed = [f"{k} = {other.get(k)!r} there, {v!r} asked" for k, v in ours.items() if other.get(k) != v]
    return ", ".join(changed) or "its settings are of another version"


def write_json(path: Path, data: Json) -> None:
    """Write JSON so that the file is complete whenever it exists."""
    _replace(path, json.dumps(data, indent=2, ensure_ascii=False).encode() + b"\n")


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table as Parquet so that the file is complete whenever it exists."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _replace(path, table.to_parquet(index=False))


def _replace(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(data)
    os.replace(partial, path)
