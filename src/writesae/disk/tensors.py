"""The door for tensors: what a safetensors file says that it holds is checked before any of it is touched."""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from writesae.config import from_json
from writesae.disk.files import reason, sync, writing
from writesae.disk.read import parse_json
from writesae.errors import DataError, InputError

if TYPE_CHECKING:
    from torch import Tensor

HEADER = 1 << 20
"""Largest header (bytes) that is read."""
SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8}
"""Bytes of a number by type: those that some reader here knows what to do with."""


@dataclass(frozen=True)
class _Told:
    """What a header says of one tensor."""

    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]

    def __post_init__(self) -> None:
        start, stop = self.data_offsets
        known = self.dtype in SIZES and len(self.shape) <= 8 and min(self.shape, default=0) >= 0
        if not known or stop - start != SIZES[self.dtype] * math.prod(self.shape):
            raise InputError(f"{self.dtype} {list(self.shape)} in the bytes {start:,} to {stop:,} is no tensor")


def tensor_header(path: Path) -> tuple[dict[str, str], dict[str, _Told]]:
    """The metadata of a safetensors file, and its tensors by name; raises DataError for a header that does not fit."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(8)
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else size
            if length > size - 8:
                raise DataError(f"{path} is cut short: its header does not fit into its {size:,} bytes")
            if length > HEADER:
                raise DataError(f"{path} has a header of {length:,} bytes, the most that is read is {HEADER:,}")
            header = parse_json(file.read(length), f"the header of {path}")
        told = dict(header) if isinstance(header, dict) else {}
        metadata = from_json(dict[str, str], told.pop("__metadata__", {}))
        tensors = {name: from_json(_Told, value) for name, value in told.items()}
    except OSError as error:
        raise DataError(f"cannot read {path}: {reason(error)}") from None
    except InputError as error:
        raise DataError(f"{path} is not a valid safetensors file: {error}") from None
    places = sorted(one.data_offsets for one in tensors.values())
    ends = [0, *(stop for _, stop in places)]
    if [start for start, _ in places] != ends[:-1] or 8 + length + ends[-1] != size:
        raise DataError(f"{path} is not a valid safetensors file: its tensors do not fill its {size:,} bytes")
    return metadata, tensors


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write and sync a safetensors file, readable as other files are; raises OutputError where the disk refuses."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    with writing(path):
        try:
            save_file(dict(tensors), path, metadata=dict(metadata or {}) or None)
        except SafetensorError as error:  # its own, for what the system says
            raise OSError(None, reason(error)) from None
        mask = os.umask(0)
        os.umask(mask)
        path.chmod(0o666 & ~mask)  # the library writes it readable by its owner only
        sync(path)


def map_tensors(path: Path, dtypes: Collection[str] = ("F32",)) -> dict[str, Tensor]:
    """The tensors of a safetensors file, memory-mapped.

    Raises DataError for a header that does not fit the file, a number type that is not expected, and for numbers that
    are not finite.
    """
    import torch
    from safetensors import SafetensorError, safe_open

    _, told = tensor_header(path)
    for name, one in told.items():
        if one.dtype not in dtypes:
            raise DataError(f"{path}: {name[:80]!a} holds {one.dtype}, where {' or '.join(dtypes)} is read")
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in told}
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path} is not a valid safetensors file: {reason(error)}") from None
    bad = [name for name, one in tensors.items() if one.numel() and not torch.stack(one.aminmax()).isfinite().all()]
    if bad:
        raise DataError(f"{path}: NaN or infinity in {', '.join(bad)[:200]!a}")
    return tensors
