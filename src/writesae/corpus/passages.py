"""Passages: the tokens that something is measured on, and where they come from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from writesae.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


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


Share = tuple[float, float]
"""A part of every document, from a share of its length to another."""


def check_passages(count: int, length: int, part: Share) -> None:
    """Raise InputError where no such passages can be."""
    if count < 1 or length < 3 or not 0 <= part[0] < part[1] <= 1:
        raise InputError(
            f"cannot draw {count} passages of {length} tokens from {part[0]:.0%} to {part[1]:.0%} of each document: "
            "give at least 1 passage of 3 tokens, and a part of some length"
        )


def draw_passages(
    source: str | Path,
    tokenizer: PreTrainedTokenizerBase,
    count: int,
    length: int,
    part: Share = (0.0, 1.0),
    seed: int = 0,
) -> NDArray[np.int64]:
    """`Text.draw` for callers that still name a part by its ends: from 0 to 1, from a share to 1, from 0 to a share."""
    from writesae.corpus.texts import text

    check_passages(count, length, part)
    whole, (first, last) = text(source, tokenizer, length), part
    if first > 0 and last < 1:
        raise InputError(f"text is split once, so a part begins at 0 or ends at 1, not {first} to {last}")
    side = whole if part == (0.0, 1.0) else whole.split(first)[1] if first > 0 else whole.split(last)[0]
    return side.draw(count, seed).tokens
