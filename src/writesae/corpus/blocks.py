"""Documents cut into token blocks of one length, with document boundaries respected."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from writesae.corpus.documents import Document
from writesae.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Boundaries = Literal["separate", "padded", "packed"]
"""`separate`: a block belongs to one document and a document's short tail is dropped.
`padded`: the same, but the tail is kept as a block with padding on its left.
`packed`: documents follow each other with an end-of-text token between; only the last tail is dropped."""


@dataclass(frozen=True, eq=False)
class TokenBlocks:
    """Text as a rectangle of tokens: what a capture or an evaluation runs a host on."""

    tokens: NDArray[np.int64]
    """`[N, T]` token ids."""
    documents: tuple[str, ...]
    """Names of the documents that the blocks come from."""
    document: NDArray[np.int64]
    """`[N]`: index into `documents` of the document in which a block begins."""
    padding: NDArray[np.int64] | None = None
    """`[N]`: how many tokens at a block's start are padding; None where none is padded."""
    hash: str = field(init=False)
    """SHA-256 over shape, tokens, names, assignment and padding: two equal corpora have equal hashes."""

    def __post_init__(self) -> None:
        if self.tokens.ndim != 2 or self.tokens.dtype != np.int64 or 0 in self.tokens.shape:
            raise InputError(
                f"token blocks must be a non-empty int64 array [sequences, length], "
                f"not {self.tokens.dtype} {list(self.tokens.shape)}"
            )
        numbers = [self.document] if self.padding is None else [self.document, self.padding]
        for part in numbers:
            if part.shape != self.tokens.shape[:1]:
                raise InputError(f"{len(self.tokens)} blocks need one number each, not {list(part.shape)}")
        digest = hashlib.sha256(repr(self.tokens.shape).encode())
        for part in (self.tokens, *numbers):
            digest.update(np.ascontiguousarray(part, dtype="<i8").tobytes())
        digest.update("\0".join(self.documents).encode())
        object.__setattr__(self, "hash", digest.hexdigest())

    @property
    def length(self) -> int:
        """Tokens a block, T."""
        return int(self.tokens.shape[1])

    def __len__(self) -> int:
        return len(self.tokens)

    def attention_mask(self, start: int, stop: int) -> NDArray[np.int64] | None:
        """`[B, T]` for the blocks `start <= n < stop`: 0 on padding, else 1; None where none of them is padded."""
        if self.padding is None or not self.padding[start:stop].any():
            return None
        mask: NDArray[np.bool_] = np.arange(self.length) >= self.padding[start:stop, None]
        return mask.astype(np.int64)

    @classmethod
    def of(cls, tokens: NDArray[np.int64]) -> TokenBlocks:
        """Blocks from bare tokens `[N, T]`, as one unnamed document."""
        array = np.asarray(tokens)
        if array.dtype.kind in "iu":
            array = array.astype(np.int64)
        return cls(array, ("tokens",), np.zeros(array.shape[:1], np.int64))


def token_blocks(
    documents: Iterable[Document],
    tokenizer: PreTrainedTokenizerBase,
    length: int,
    count: int | None = None,
    bos: int | None = None,
    boundaries: Boundaries = "separate",
) -> TokenBlocks:
    """Cut documents into `count` blocks of `length` tokens (all that there are for None), in their order.

    `bos` is a token to put at the start of every block (it counts as one of its tokens). Documents are read
    only as far as needed, so an endless stream will do. Raises InputError when the documents give fewer blocks
    than asked, saying how many they give.
    """
    body = length - (bos is not None)
    if body < 1 or (count is not None and count < 1):
        raise InputError(f"cannot cut blocks of {length} tokens, {count} of them: both must be at least 1")
    if boundaries == "packed" and tokenizer.eos_token_id is None:
        raise InputError("packed blocks need a tokenizer with an end-of-text token; use 'separate'")
    names: list[str] = []
    pieces = list(islice(_cut(documents, tokenizer, body, boundaries, names), count))
    if not pieces or (count is not None and len(pieces) < count):
        raise InputError(
            f"the corpus is too short: its {len(names)} documents give {len(pieces)} blocks of {length} "
            f"tokens ({len(pieces) * length:,} tokens), asked for {count or 'at least 1'}; "
            "ask for fewer or shorter blocks, or give more text"
        )
    start = [] if bos is None else [bos]
    tokens = np.zeros((len(pieces), length), np.int64)
    padding = np.zeros(len(pieces), np.int64)
    for row, (_, ids) in enumerate(pieces):
        padding[row] = body - len(ids)
        tokens[row, padding[row] :] = [*start, *ids]
    document = np.array([owner for owner, _ in pieces], np.int64)
    named = tuple(names[: int(document.max()) + 1])
    return TokenBlocks(tokens, named, document, padding if padding.any() else None)


def _cut(
    documents: Iterable[Document],
    tokenizer: PreTrainedTokenizerBase,
    body: int,
    boundaries: Boundaries,
    names: list[str],
) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """(document, at most `body` tokens) block by block; `names` grows by each document as it is read."""
    rest, origin = np.empty(0, np.int64), np.empty(0, np.int64)
    for index, document in enumerate(documents):
        names.append(document.name)
        ids = np.asarray(tokenizer.encode(document.text, add_special_tokens=False, verbose=False), np.int64)
        if boundaries == "packed":
            ids = np.append(ids, tokenizer.eos_token_id)
        rest, origin = np.concatenate([rest, ids]), np.concatenate([origin, np.full(len(ids), index)])
        whole = len(rest) // body * body
        for start in range(0, whole, body):
            yield int(origin[start]), rest[start : start + body]
        if boundaries == "padded" and whole < len(rest):
            yield index, rest[whole:]
        keep = whole if boundaries == "packed" else len(rest)
        rest, origin = rest[keep:], origin[keep:]


def tokenizer_hash(tokenizer: PreTrainedTokenizerBase) -> str:
    """SHA-256 over a tokenizer's vocabulary and its way of splitting text.

    Fast tokenizers are hashed by their whole serialised form, others by vocabulary and class.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        text = str(backend.to_str())
    else:
        text = type(tokenizer).__name__ + repr(sorted(tokenizer.get_vocab().items()))
    return hashlib.sha256(text.encode()).hexdigest()
