"""The door for tensors: what a safetensors file says that it holds is checked before any of it is touched."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import accumulate, pairwise
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
_NAMES = {"int64": "I64", "float64": "F64", "float32": "F32", "bfloat16": "BF16", "float16": "F16"}


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
    """Write and sync a safetensors file, with the same bytes every time, as the library does not where there is more
    than one line of metadata; raises OutputError where the disk refuses."""
    import torch

    data = {name: x.detach().cpu().contiguous() for name, x in tensors.items()}
    kinds = {name: str(x.dtype).removeprefix("torch.") for name, x in data.items()}
    names = sorted(data, key=lambda name: (list(_NAMES).index(kinds[name]), name))  # as the library sorts them
    header: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
    ends = [0, *accumulate(data[name].numel() * data[name].itemsize for name in names)]
    for name, place in zip(names, pairwise(ends), strict=True):
        header[name] = {"dtype": _NAMES[kinds[name]], "shape": list(data[name].shape), "data_offsets": list(place)}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with writing(path):
        with path.open("wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            for name in names:
                file.write(data[name].reshape(-1).view(torch.uint8).numpy().data)
        sync(path)


def map_tensors(path: Path, dtypes: Collection[str] = ("F32",)) -> dict[str, Tensor]:
    """The tensors of a safetensors file, memory-mapped.

    Raises DataError for a header that does not fit the file, a number type that is not expected, and for numbers that
    are not finite.
    """
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
    # a sum tells, and fast; only where it is not finite, or overflows, each number is looked at
    bad = [name for name, one in tensors.items() if not one.sum().isfinite() and not one.isfinite().all()]
    if bad:
        raise DataError(f"{path}: NaN or infinity in {', '.join(bad)[:200]!a}")
    return tensors
