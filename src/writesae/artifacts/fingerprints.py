"""`text.safetensors`: the fingerprint of the text that a dictionary was trained on. Format: docs/formats/sae.md."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from writesae.corpus import Fingerprint
from writesae.corpus.fingerprint import LIMIT, WINDOW
from writesae.disk import sync
from writesae.errors import DataError

TEXT = "text.safetensors"
_TENSOR = "windows"
_MEANING = {"window": str(WINDOW), "limit": str(LIMIT)}


def write_fingerprint(path: Path, text: Fingerprint) -> None:
    """Write and sync the file."""
    save_file({_TENSOR: text.hashes}, path, metadata=_MEANING)
    sync(path)


def read_fingerprint(path: Path) -> Fingerprint:
    """Read the file; raises DataError where it is damaged, or was made of other windows than are compared here."""
    try:
        with safe_open(path, "np") as file:
            meant = (file.metadata(), list(file.keys())) == (_MEANING, [_TENSOR])
            hashes = file.get_tensor(_TENSOR) if meant else None
    except (SafetensorError, TypeError) as error:  # TypeError: a number type that numpy does not have
        raise DataError(f"{path} is not a valid safetensors file: {error}") from None
    if hashes is None:
        raise DataError(f"{path} is no fingerprint of windows of {WINDOW} tokens ({LIMIT:,} at most)")
    try:
        return Fingerprint(hashes)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
