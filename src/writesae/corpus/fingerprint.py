"""Which stretches of text a capture held, in so few bytes that every dictionary carries it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from writesae.corpus.blocks import TokenBlocks
from writesae.errors import DataError

WINDOW = 32
"""Tokens a window: long enough that two texts share one by quotation only."""
LIMIT = 32_768
"""Most hashes that are kept, 256 KiB."""
AT_ONCE = 1 << 20
"""Tokens that are hashed at once: bounds memory, changes nothing."""


@dataclass(frozen=True, eq=False)
class Fingerprint:
    """The windows of 32 tokens that a text holds, at every offset, so wherever its blocks begin.

    Of a text of up to 32,768 different windows every hash is kept. Of a longer one it is the 32,768 smallest: a random
    sample of its windows, the same wherever a window stands. Only windows whose hash lies among those kept are
    comparable, a share of about 32,768 / (windows of the text); among `n` of them, an overlap `s` has the standard
    error `sqrt(s (1 - s) / n)`. Two different windows have one hash with a probability of 2^-63.
    """

    hashes: NDArray[np.int64]
    """Rising, each once, not negative."""

    def __post_init__(self) -> None:
        kept = self.hashes
        right = kept.ndim == 1 and kept.dtype == np.int64 and len(kept) <= LIMIT
        if not right or (len(kept) and (kept[0] < 0 or (np.diff(kept) <= 0).any())):
            raise DataError(f"a fingerprint of text is at most {LIMIT:,} rising hashes, not {kept.dtype} {kept.shape}")

    @classmethod
    def of(cls, tokens: NDArray[np.int64] | TokenBlocks) -> Fingerprint:
        """Of rows `[N, T]`, each a text of its own, or of blocks, which are joined where they were neighbours."""
        kept, last = np.empty(0, np.int64), np.iinfo(np.int64).max
        for found in _windows(tokens):
            every = np.sort(np.concatenate([kept, found[found <= last]]))  # np.unique takes twenty times as long
            kept = every[np.diff(every, prepend=-1) > 0][:LIMIT]
            last = kept[-1] if len(kept) == LIMIT else last
        return cls(kept)

    def overlap(self, tokens: NDArray[np.int64] | TokenBlocks) -> float:
        """The share of the comparable windows of some tokens that are in this text; nan where none is comparable."""
        if not len(self.hashes):
            return float("nan")
        last = self.hashes[-1] if len(self.hashes) == LIMIT else np.iinfo(np.int64).max
        comparable = found = 0
        for hashes in _windows(tokens):
            some = hashes[hashes <= last]
            comparable += len(some)
            found += int(np.isin(some, self.hashes).sum())
        return found / comparable if comparable else float("nan")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Fingerprint) and np.array_equal(self.hashes, other.hashes)

    def __hash__(self) -> int:
        return hash(self.hashes.tobytes())

    def __len__(self) -> int:
        return len(self.hashes)


def _windows(tokens: NDArray[np.int64] | TokenBlocks) -> Iterator[NDArray[np.int64]]:
    """Hashes of all windows, some rows at once; a window may come twice."""
    blocks = tokens if isinstance(tokens, TokenBlocks) else TokenBlocks.of(tokens)
    text = blocks.length - blocks.bos
    padding = np.zeros(len(blocks), np.int64) if blocks.padding is None else blocks.padding
    apart = np.ones(len(blocks), np.bool_)
    if blocks.place is not None:
        apart[1:] = np.diff(blocks.place) != text
    before = -(-WINDOW // text)  # rows that a window which ends in a row may begin in
    for start in range(0, len(blocks), rows := max(1, AT_ONCE // blocks.length)):
        some = slice(max(0, start - before), start + rows)
        held = np.arange(blocks.length) >= padding[some, None] + blocks.bos
        stretch = np.broadcast_to(np.cumsum(apart[some], dtype=np.int64)[:, None], held.shape)
        yield _hashed(blocks.tokens[some][held], stretch[held])


def _hashed(ids: NDArray[np.int64], stretch: NDArray[np.int64]) -> NDArray[np.int64]:
    """Hashes of the windows of `ids` that lie within one stretch."""
    if len(ids) < WINDOW:
        return np.empty(0, np.int64)
    hashed, width = _mixed(ids.astype(np.uint64)), 1
    while width < WINDOW:  # the hash of two neighbours follows from theirs
        hashed = hashed[:-width] * np.uint64(0x9E3779B97F4A7C15 + 2 * width) + hashed[width:]
        width *= 2
    within = stretch[: len(hashed)] == stretch[WINDOW - 1 :]
    return (_mixed(hashed[within]) >> np.uint64(1)).astype(np.int64)


def _mixed(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's finaliser (Steele et al. 2014): every bit of the result depends on every bit of `x`."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
