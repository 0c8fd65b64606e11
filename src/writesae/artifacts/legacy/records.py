"""What an old checkpoint is rebuilt as: numbers, text, containers, tensors that are not read yet, and inert records."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from writesae.errors import DataError

STORAGES: dict[str, torch.dtype] = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


@dataclass(frozen=True)
class Global:
    """A name that the file mentions; nothing was imported for it."""

    module: str
    """Module part of the name."""
    name: str
    """Name inside the module."""

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False)
class Object:
    """An instance of a class that is not imported: its attributes, and no behaviour."""

    kind: Global
    """Name of the class."""
    state: dict[object, object] = field(default_factory=dict)
    """Its attributes."""


@dataclass(frozen=True, eq=False)
class Storage:
    """A block of numbers inside the file."""

    key: str
    """Its name in the file."""
    dtype: torch.dtype
    """Type of its numbers."""
    count: int
    """How many numbers."""
    read: Callable[[], bytes]
    """Reads its bytes from the file."""


@dataclass(frozen=True, eq=False)
class TensorRef:
    """A strided window on a storage; read from the file only when asked for."""

    storage: Storage
    """Where its numbers are."""
    offset: int
    """First number."""
    shape: tuple[int, ...]
    """Its shape."""
    stride: tuple[int, ...]
    """Step between neighbours along each axis, in numbers."""

    def __post_init__(self) -> None:
        numbers = (self.offset, *self.shape, *self.stride)
        if len(self.shape) != len(self.stride) or len(self.shape) > 8 or any(not 0 <= n < 1 << 48 for n in numbers):
            raise DataError(
                f"tensor with shape {str(self.shape)[:80]} and strides {str(self.stride)[:80]} is malformed"
            )
        size = math.prod(self.shape)
        last = self.offset + sum((length - 1) * step for length, step in zip(self.shape, self.stride, strict=True))
        if size > self.storage.count or (size and last >= self.storage.count):
            raise DataError(
                f"tensor of shape {self.shape} does not fit into its storage of {self.storage.count:,} numbers"
            )

    def load(self) -> torch.Tensor:
        """The tensor, contiguous, in memory of its own; raises DataError where the file is cut short."""
        data = self.storage.read()
        wanted = self.storage.count * self.storage.dtype.itemsize
        if len(data) < wanted:
            raise DataError(f"storage {self.storage.key} has {len(data):,} bytes where {wanted:,} are declared")
        if not self.storage.count:
            return torch.empty(self.shape, dtype=self.storage.dtype)
        numbers = torch.frombuffer(bytearray(data), dtype=self.storage.dtype, count=self.storage.count)
        return numbers.as_strided(self.shape, self.stride, self.offset).clone(memory_format=torch.contiguous_format)
