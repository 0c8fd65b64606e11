"""Parts of a reproduction that the disk has damaged are named, removed, and made again."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

import torch

from writesae.artifacts import load_folder
from writesae.errors import DataError, WritesaeError
from writesae.store.progress import MANIFEST
from writesae.store.verify import verify
from writesae.training.folder import DICTIONARY, RESULT, load_checkpoint, load_result

T = TypeVar("T")
Say = Callable[[str], None]


def mended(folder: Path, make: Callable[[], T], say: Say) -> T:
    """What `make` makes or reads in a folder; where that is damaged, anew. Raises DataError where it still is."""
    try:
        return make()
    except DataError as error:
        if not folder.exists():
            raise
        gone(folder, str(error), say)
        return make()


def gone(folder: Path, why: str, say: Say) -> None:
    """Remove a damaged part and say so."""
    say(f"damaged and made again: {folder}: {why}")
    shutil.rmtree(folder)


def intact(runs: Iterable[Path], store: Path, say: Say) -> None:
    """Remove runs whose dictionary or checkpoint cannot be read, and, where a run is still to be made, a complete store
    that holds other bytes than were captured."""
    finished = True
    for run in runs:
        try:
            if load_result(run) is not None:
                load_folder(run / DICTIONARY)
            else:
                load_checkpoint(run, torch.device("cpu"))
        except WritesaeError as error:
            gone(run, str(error), say)
        finished &= (run / RESULT).exists()
    if not finished and (store / MANIFEST).exists() and (problems := verify(store)):
        gone(store, problems[0], say)
