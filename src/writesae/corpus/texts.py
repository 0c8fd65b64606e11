"""A corpus as everything in this library reads it: one split, cut for one tokenizer, spread or drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from heapq import nsmallest
from operator import attrgetter, itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from writesae.corpus.blocks import Boundaries, Cutter, Piece, TokenBlocks
from writesae.corpus.documents import HUB, Document, check_source, read_documents
from writesae.corpus.passages import Passages
from writesae.corpus.split import Part, part_of
from writesae.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

POOL = 8
"""Passages that a stream is read for, for each one that is drawn of them at random."""
DOCUMENTS = 64
"""Documents, at least, that so many or more blocks of a stream come from."""
PATIENCE = 1000
"""Documents of a stream that are read for each passage wanted before it is given up."""
GOLDEN = (5**0.5 - 1) / 2
"""Its multiples, modulo 1, cover the unit interval evenly, however many are taken."""


@runtime_checkable
class HasTokenizer(Protocol):
    """A model that knows how text becomes tokens."""

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Its tokenizer."""


@dataclass(frozen=True)
class Text:
    """A part of a corpus, cut into passages of one length for one tokenizer. Made by `text`; reads when asked to."""

    source: str
    """`sample`, a file or folder, or `hf:user/name`: what `read_documents` reads."""
    tokenizer: PreTrainedTokenizerBase = field(repr=False)
    """How text becomes tokens."""
    length: int = 256
    """Tokens a passage, T."""
    bos: bool = False
    """Whether each passage begins with the tokenizer's beginning-of-text token, as one of its tokens."""
    part: Part = "all"
    """Which side of the split."""
    share: float = 0.8
    """Share of text that is training text; without meaning for `all`."""

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise InputError(f"the training text is a share of the corpus between 0 and 1, not {self.share}")
        self._cutter("separate")

    @property
    def name(self) -> str:
        """The corpus without the place where it lies: `sample`, a file's or folder's name, or `hf:user/name`."""
        return self.source if self.source == "sample" or self.source.startswith(HUB) else Path(self.source).name

    @property
    def described(self) -> str:
        """The part in words: `all`, `train of 0.8`, `test of 0.8`."""
        return self.part if self.part == "all" else f"{self.part} of {self.share:g}"

    def split(self, share: float = 0.8) -> tuple[Text, Text]:
        """Training text and held-out text: documents or their ends, never both. Independent of `length`."""
        if self.part != "all":
            raise InputError(f"this text is already a part of {self.name} ({self.described}): split the whole")
        return replace(self, part="train", share=share), replace(self, part="test", share=share)

    def at(self, length: int) -> Text:
        """The same text in passages of another length."""
        return replace(self, length=length)

    def documents(self) -> Iterator[Document]:
        """What the part holds of each document that it holds something of, in a fixed order."""
        for name, content in read_documents(self.source):
            held = part_of(content, self.part, self.share)
            if held:
                yield Document(name, held)

    def blocks(self, count: int | None = None, boundaries: Boundaries = "separate") -> TokenBlocks:
        """`count` blocks for a capture, spread over documents and within each; all that there are for None.

        Where there are as many blocks as documents, each document gives one or more, longer ones more in proportion.
        A data set on the Hub is read as far as it takes to have so many, of 64 documents or more, never to its end.
        Raises InputError where there are fewer, saying how many.
        """
        return self._taken(count, boundaries, _spread, 1)

    def draw(self, count: int, seed: int = 0) -> Passages:
        """`count` passages without padding, at random, in the order of the documents.

        The same for the same seed, and fewer are some of more. Every passage of the part is as likely as any other,
        except in a data set on the Hub, which is not read to its end: there they are drawn from the first ones, eight
        times as many as are wanted. Raises InputError where there are fewer, saying how many.
        """

        def at_random(document: int, pieces: int) -> NDArray[np.float64]:
            return np.random.default_rng((seed, document)).random(pieces)

        if self.length < 3 + self.bos:
            raise InputError(
                f"passages of {self.length} tokens are too short to evaluate: give at least {3 + self.bos}"
            )
        tokens = self._taken(count, "separate", at_random, POOL).tokens
        return Passages(tokens, self.name, self.described, seed)

    def _cutter(self, boundaries: Boundaries) -> Cutter:
        bos = self.tokenizer.bos_token_id if self.bos else None
        if self.bos and bos is None:
            raise InputError("the tokenizer has no beginning-of-text token: leave bos out")
        return Cutter(self.tokenizer, self.length, bos, boundaries)

    def _taken(
        self, count: int | None, boundaries: Boundaries, rank: Callable[[int, int], NDArray[np.float64]], pool: int
    ) -> TokenBlocks:
        """The pieces of lowest rank, in order; `rank` is given a document's number and how many pieces it has."""
        if count is not None and count < 1:
            raise InputError(f"{count} passages were asked for: ask for 1 or more")
        if count is None and self.source.startswith(HUB):
            raise InputError(f"the data set {self.name} is not read to its end: say how much of it is wanted")
        cutter, found = self._cutter(boundaries), 0

        def ranked() -> Iterator[tuple[float, Piece]]:
            nonlocal found
            givers = 0
            for number, pieces in enumerate(cutter.cut(self.documents())):
                yield from zip(rank(number, len(pieces)).tolist(), pieces, strict=True)
                found, givers = found + len(pieces), givers + bool(pieces)
                if count is not None and self.source.startswith(HUB):
                    enough = found >= pool * count and givers >= min(count, DOCUMENTS)
                    if enough or number >= PATIENCE * count:
                        return

        kept = list(ranked()) if count is None else nsmallest(count, ranked(), key=itemgetter(0))
        if found < (count or 1):
            about = self.name if self.part == "all" else f"{self.name} ({self.described})"
            raise InputError(
                f"the corpus {about} is too short: its {len(cutter.names):,} documents give {found:,} passages of "
                f"{self.length} tokens ({found * self.length:,} tokens), {count or 'at least 1'} were asked for; "
                "ask for fewer or shorter ones, or give more text"
            )
        return cutter.blocks(sorted((piece for _, piece in kept), key=attrgetter("place")), self.name, self.described)


def _spread(document: int, pieces: int) -> NDArray[np.float64]:
    """First one piece of every document (of documents far apart, where there are too many), then evenly within each."""
    order: NDArray[np.float64] = np.modf(np.arange(pieces) * GOLDEN)[0]
    order[:1] = document * GOLDEN % 1 - 1
    return order


def text(
    source: str | Path, model: HasTokenizer | PreTrainedTokenizerBase, length: int = 256, bos: bool = False
) -> Text:
    """The text of a corpus in passages of `length` tokens of a model (or of a tokenizer).

    `source` is `"sample"`, the text that ships with writesae and that `tiny-gdn` never saw; a file or folder of text,
    JSONL or Parquet; or `hf:user/name?split=train` for a data set on the Hub. `bos` begins each passage with the
    tokenizer's beginning-of-text token. Nothing is read yet. Raises InputError where there is no such corpus.
    """
    check_source(source)
    tokenizer = model.tokenizer if isinstance(model, HasTokenizer) else model
    return Text(str(source), tokenizer, length, bos)
