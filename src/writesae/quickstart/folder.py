"""A run folder: which run it belongs to, and which steps are finished."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from writesae.config import Json, to_json
from writesae.disk import claim, make_folder, read_json, write_json
from writesae.errors import OutputError
from writesae.quickstart.config import QuickstartConfig


class RunFolder:
    """The outputs of one quickstart. A step that finished is not run again."""

    def __init__(self, path: Path, config: QuickstartConfig) -> None:
        """Claim `path`; raises OutputError where it holds anything but this same run."""
        self.path = path
        self.reused: list[str] = []
        claim(path, "quickstart", {"kind": "writesae-quickstart", "config": to_json(config)})

    def step(self, name: str, work: Callable[[], Json]) -> Json:
        """Run one step unless it is finished; returns what it found either way."""
        done = self.path / "steps" / f"{name}.json"
        if done.is_file():
            self.reused.append(name)
            return _found(read_json(done, finite=False))
        begin = time.perf_counter()
        found = work()
        make_folder(done.parent)
        write_json(done, {"seconds": round(time.perf_counter() - begin, 2), "found": found}, finite=False)
        return found

    def seconds(self) -> dict[str, float]:
        """Seconds that each finished step took when it ran, in the order in which they finished."""
        files = sorted((self.path / "steps").glob("*.json"), key=lambda p: p.stat().st_mtime_ns)
        marks = {p.stem: read_json(p, finite=False) for p in files}
        return {name: float(str(mark["seconds"])) for name, mark in marks.items() if isinstance(mark, dict)}


def _found(mark: Json) -> Json:
    if not isinstance(mark, dict) or "found" not in mark:
        raise OutputError("a step's record is damaged: delete the run folder's steps/ to run them again")
    return mark["found"]
