"""`text.safetensors`: the fingerprint of the text that a dictionary was trained on. Format: docs/formats/sae.md."""

from __future__ import annotations

from pathlib import Path

import torch

from writesae.corpus import Fingerprint
from writesae.corpus.fingerprint import LIMIT, WINDOW
from writesae.disk import map_tensors, tensor_header, write_tensors
from writesae.errors import DataError

TEXT = "text.safetensors"
_TENSOR = "windows"
_MEANING = {"window": str(WINDOW), "limit": str(LIMIT)}


def write_fingerprint(path: Path, text: Fingerprint) -> None:
    """Write and sync the file."""
    write_tensors(path, {_TENSOR: torch.from_numpy(text.hashes)}, _MEANING)


def read_fingerprint(path: Path) -> Fingerprint:
    """Read the file; raises DataError where it is damaged, or was made of other windows than are compared here."""
    metadata, told = tensor_header(path)
    if (metadata, list(told)) != (_MEANING, [_TENSOR]):
        raise DataError(f"{path} is no fingerprint of windows of {WINDOW} tokens ({LIMIT:,} at most)")
    try:
        return Fingerprint(map_tensors(path, ("I64",))[_TENSOR].numpy())
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
