"""A run's folder: its checkpoint and its result. `writesae.disk` says whose it is and writes what is in it.

run.json            the configuration and the store's hash; another run is refused
history.jsonl       one record a line
checkpoint.pt       all that an exact continuation needs
sae/                the finished dictionary
result.json         written last: its presence means that the run is finished
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import cast

import torch

from writesae.config import Json, from_plain
from writesae.disk import read_json, whole, write_json
from writesae.errors import DataError
from writesae.sae.metrics import Metrics

HISTORY, CHECKPOINT, DICTIONARY, RESULT = "history.jsonl", "checkpoint.pt", "sae", "result.json"


def save_checkpoint(out: Path, state: dict[str, object]) -> None:
    """Replace the checkpoint atomically; raises OutputError where the disk refuses."""
    with whole(out / CHECKPOINT) as partial, partial.open("wb") as file:
        try:
            torch.save(state, file)
        except RuntimeError as error:  # torch's own, of a file that the disk has cut short
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


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
    data: dict[str, Json] = {"metrics": asdict(metrics), "steps": steps, "seconds": seconds}
    write_json(out / RESULT, data, nulls=True)


def load_result(out: Path) -> tuple[Metrics, float] | None:
    """`(metrics, seconds)` of a finished run, or None."""
    if not (out / RESULT).exists():
        return None
    data = cast(dict[str, Json], read_json(out / RESULT))
    return from_plain(Metrics, data["metrics"]), float(cast(float, data["seconds"]))
