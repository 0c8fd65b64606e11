"""Passages drawn at random from a part of every document: held-out text without a second corpus."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from writesae.corpus.blocks import token_blocks
from writesae.corpus.documents import read_documents
from writesae.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Part = tuple[float, float]
"""A part of every document, from a share of its length to another."""


def check_passages(count: int, length: int, part: Part) -> None:
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
    part: Part = (0.0, 1.0),
    seed: int = 0,
) -> NDArray[np.int64]:
    """`[count, length]` token ids, in the order of the documents. Raises InputError where the part is too short."""
    check_passages(count, length, part)
    blocks = token_blocks(read_documents(source), tokenizer, length)
    place = np.concatenate([np.arange(n) / n for n in np.unique(blocks.document, return_counts=True)[1]])
    usable = np.flatnonzero((place >= part[0]) & (place < part[1]))
    if len(usable) < count:
        raise InputError(
            f"{part[0]:.0%} to {part[1]:.0%} of the documents hold {len(usable)} passages of {length} tokens, "
            f"{count} were asked for: ask for fewer or shorter ones, a larger part, or give more text"
        )
    chosen = np.random.default_rng(seed).permutation(usable)[:count]
    drawn: NDArray[np.int64] = blocks.tokens[np.sort(chosen)]
    return drawn
