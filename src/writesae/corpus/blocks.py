"""Documents cut into token blocks of one length, with document boundaries respected."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from writesae.corpus.characters import encoded
from writesae.corpus.documents import Document
from writesae.errors import DataError, InputError

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
    place: NDArray[np.int64] | None = None
    """`[N]`: where a block's text begins in all text, so that neighbours are known; None: each stands alone."""
    bos: bool = False
    """Whether every block begins with a token that is no text."""
    read: int = 0
    """How many documents were looked at; 0 where there are none."""
    source: str | None = None
    """Name of the corpus; None where unknown."""
    part: str | None = None
    """Which part of the corpus, as in `Text.described`."""
    twins: Mapping[str, str] = field(default_factory=dict)
    """Documents that were looked at and hold the words of another -> that other."""
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


class Piece(NamedTuple):
    """A block before it is put into a rectangle."""

    document: int
    """Number of the document in which it begins."""
    place: int
    """Where it begins in all text: the next piece of the same text begins one length further on, others do not."""
    ids: NDArray[np.int64]
    """At most as many token ids as a block holds of text."""


class Cutter:
    """Cuts documents into pieces for one tokenizer and block; knows the documents that it has seen."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        length: int,
        bos: int | None = None,
        boundaries: Boundaries = "separate",
    ) -> None:
        """`bos` is put at the start of every block of `length` tokens, as one of them."""
        self.tokenizer, self.length, self.boundaries = tokenizer, length, boundaries
        self.start = [] if bos is None else [bos]
        self.names: list[str] = []
        self.twins: dict[str, str] = {}  # as in `TokenBlocks`, filled by whoever reads the documents
        if length <= len(self.start):
            raise InputError(f"blocks of {length} tokens hold no text: give at least {len(self.start) + 1}")
        if boundaries == "packed" and tokenizer.eos_token_id is None:
            raise InputError("packed blocks need a tokenizer with an end-of-text token; use 'separate'")

    def cut(self, documents: Iterable[Document]) -> Iterator[list[Piece]]:
        """For each document as it is read, the pieces that it completes; none where it is too short for one."""
        body, place = self.length - len(self.start), 0
        rest, origin = np.empty(0, np.int64), np.empty(0, np.int64)
        for number, document in enumerate(documents):
            self.names.append(document.name)
            try:
                ids = np.asarray(encoded(self.tokenizer, document.text), np.int64)
            except InputError as error:
                raise DataError(f"the document {document.name}: {error}") from None
            if self.boundaries == "packed":
                ids = np.append(ids, self.tokenizer.eos_token_id)
            rest, origin = np.concatenate([rest, ids]), np.concatenate([origin, np.full(len(ids), number)])
            whole = len(rest) // body * body
            stop = len(rest) if self.boundaries == "padded" else whole
            yield [Piece(int(origin[i]), place + i, rest[i : i + body].copy()) for i in range(0, stop, body)]
            place += whole if self.boundaries == "packed" else len(rest) + body  # documents that are apart do not touch
            keep = whole if self.boundaries == "packed" else len(rest)
            rest, origin = rest[keep:], origin[keep:]

    def blocks(self, pieces: Sequence[Piece], source: str | None = None, part: str | None = None) -> TokenBlocks:
        """The rectangle of some pieces, in their order; there must be one or more."""
        tokens = np.zeros((len(pieces), self.length), np.int64)
        padding = np.zeros(len(pieces), np.int64)
        for row, piece in enumerate(pieces):
            padding[row] = self.length - len(self.start) - len(piece.ids)
            tokens[row, padding[row] :] = [*self.start, *piece.ids]
        used, document = np.unique([piece.document for piece in pieces], return_inverse=True)
        return TokenBlocks(
            tokens,
            tuple(self.names[n] for n in used),
            document.astype(np.int64),
            padding if padding.any() else None,
            np.array([piece.place for piece in pieces], np.int64),
            bool(self.start),
            len(self.names),
            source,
            part,
            self.twins,
        )


def tokenizer_hash(tokenizer: PreTrainedTokenizerBase) -> str:
    """SHA-256 over a tokenizer's vocabulary and its way of splitting text.

    Fast tokenizers are hashed by their whole serialised form, without the padding and truncation that earlier calls
    left in it; others by vocabulary and class.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        if backend.padding is not None or backend.truncation is not None:
            backend = copy.deepcopy(backend)
            backend.no_padding()
            backend.no_truncation()
        text = str(backend.to_str())
    else:
        text = type(tokenizer).__name__ + repr(sorted(tokenizer.get_vocab().items()))
    return hashlib.sha256(text.encode()).hexdigest()
