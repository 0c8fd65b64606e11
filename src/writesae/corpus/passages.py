"""Passages: the tokens that something is measured on, and where they come from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from writesae.errors import InputError


@dataclass(frozen=True, eq=False)
class Passages:
    """Rows of tokens to evaluate on."""

    tokens: NDArray[np.int64]
    """`[B, T]` token ids, without padding."""
    corpus: str
    """Name of the corpus."""
    part: str
    """Which part of it: `all`, `train of 0.8`, `test of 0.8`."""
    seed: int | None
    """Of the draw; None where nothing was drawn."""

    def __post_init__(self) -> None:
        if self.tokens.ndim != 2 or self.tokens.dtype != np.int64 or 0 in self.tokens.shape:
            raise InputError(
                "passages must be a non-empty array of token ids [passages, length], not "
                f"{self.tokens.dtype} {list(self.tokens.shape)}"
            )

    @classmethod
    def of(cls, tokens: NDArray[np.integer]) -> Passages:
        """Bare token ids `[B, T]` of unknown origin."""
        ids = np.asarray(tokens)
        return cls(ids.astype(np.int64) if ids.dtype.kind in "iu" else ids, "tokens", "as given", None)

    @property
    def length(self) -> int:
        """Tokens a passage, T."""
        return int(self.tokens.shape[1])

    @cached_property
    def hash(self) -> str:
        """SHA-256 over the token ids and their shape."""
        shape = repr(tuple(self.tokens.shape)).encode()
        return hashlib.sha256(shape + np.ascontiguousarray(self.tokens, "<i8").tobytes()).hexdigest()

    def __len__(self) -> int:
        return len(self.tokens)
