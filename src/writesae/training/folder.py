"""A run's folder: whose it is, its checkpoint, its result. Everything appears whole or not at all.

run.json            the configuration and the store's hash; another run is refused
history.jsonl       one record a line
checkpoint.pt       all that an exact continuation needs
sae/                the finished dictionary
result.json         written last: its presence means that the run is finished
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import cast

import torch

from writesae.config import Json, from_json, read_json, to_json
from writesae.errors import DataError, OutputError
from writesae.sae.metrics import Metrics
from writesae.training.config import TrainConfig

RUN, HISTORY, CHECKPOINT, DICTIONARY, RESULT = "run.json", "history.jsonl", "checkpoint.pt", "sae", "result.json"


def claim(out: Path, config: TrainConfig, store_hash: str) -> None:
    """Make `out` the folder of this run, or check that it already is; raises OutputError if it is another's."""
    mine = {"config": to_json(config), "store": store_hash}
    try:
        out.mkdir(parents=True, exist_ok=True)
        held = sorted(path.name for path in out.iterdir() if not path.name.endswith(".tmp"))
    except OSError as error:
        raise OutputError(f"cannot use {out} for a training run: {error.strerror}") from None
    if not held:
        replace_file(out / RUN, (json.dumps(mine, indent=2) + "\n").encode())
        return
    if RUN not in held:
        raise OutputError(f"{out} holds {held[0]} and no training run; choose another folder or empty it")
    theirs = read_json(out / RUN)
    if theirs != mine:
        raise OutputError(f"{out} belongs to another run ({_difference(theirs, mine)}); choose another folder")


def _difference(theirs: Json, mine: dict[str, Json]) -> str:
    if not isinstance(theirs, dict) or not isinstance(theirs.get("config"), dict):
        return f"{RUN} is not readable"
    if theirs.get("store") != mine["store"]:
        return "it was trained on another store"
    old, new = cast(dict[str, Json], theirs["config"]), cast(dict[str, Json], mine["config"])
    name = next(key for key in {**old, **new} if old.get(key) != new.get(key))
    return f"{name} is {old.get(name)} there and {new.get(name)} here"


def replace_file(path: Path, data: bytes) -> None:
    """Write a file atomically and durably; raises OutputError where the disk refuses, the old file then stays."""
    partial = path.with_name(path.name + ".tmp")
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise OutputError(f"cannot write {path}: {error.strerror}; what was there before is unchanged") from None


def save_checkpoint(out: Path, state: dict[str, object]) -> None:
    """Replace the checkpoint atomically; raises OutputError where the disk refuses."""
    import io

    buffer = io.BytesIO()
    torch.save(state, buffer)
    replace_file(out / CHECKPOINT, buffer.getvalue())


def load_checkpoint(out: Path, device: torch.device) -> dict[str, object] | None:
    """The checkpoint, or None before the first; raises DataError if it is damaged."""
    path = out / CHECKPOINT
    if not path.exists():
        return None
    try:
        return cast(dict[str, object], torch.load(path, map_location=device, weights_only=True))
    except Exception as error:  # torch raises many kinds for a cut or foreign file
        raise DataError(
            f"the checkpoint {path} cannot be read ({type(error).__name__}); delete it to start over"
        ) from None


def save_result(out: Path, metrics: Metrics, steps: int, seconds: float) -> None:
    """Declare the run finished."""
    data = {"metrics": asdict(metrics), "steps": steps, "seconds": seconds}
    replace_file(out / RESULT, (json.dumps(data, indent=2) + "\n").encode())


def load_result(out: Path) -> tuple[Metrics, float] | None:
    """`(metrics, seconds)` of a finished run, or None."""
    if not (out / RESULT).exists():
        return None
    data = cast(dict[str, Json], read_json(out / RESULT))
    return from_json(Metrics, data["metrics"]), float(cast(float, data["seconds"]))
