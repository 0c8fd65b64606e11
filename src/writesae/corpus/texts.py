"""A corpus as everything in this library reads it: one split, cut for one tokenizer, spread or drawn."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from writesae.calls import worded
from writesae.corpus.blocks import Boundaries, Cutter, Piece, TokenBlocks
from writesae.corpus.documents import HUB, Document, check_source, read_documents
from writesae.corpus.passages import Passages
from writesae.corpus.split import Part, after_words, content_hash, cut
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

    def documents(self, twins: dict[str, str] | None = None) -> Iterator[Document]:
        """What the part holds of each document that it holds something of, in a fixed order.

        Documents with the same words are all given, and stand on one side or are cut at the same word. `twins` is
        filled with the name of each but the first of them, and that of the first.
        """
        first: dict[bytes, tuple[str, int]] = {}
        for name, content in read_documents(self.source):
            place = cut(content, self.share)
            words = len(content[:place].split())
            twin, before = first.setdefault(content_hash(content), (name, words))
            if before != words:
                place = after_words(content, before)
            held = {"all": content, "train": content[:place], "test": content[place:]}[self.part]
            if held and twins is not None and twin != name:
                twins[name] = twin
            if held:
                yield Document(name, held)

    def blocks(
        self, count: int | None = None, boundaries: Boundaries = "separate", *, tokens: int | None = None
    ) -> TokenBlocks:
        """`count` blocks for a capture, or so many that they hold `tokens` tokens without padding, spread over
        documents and within each; all that there are for None.

        Where there are as many blocks as documents, each document gives one or more, longer ones more in proportion.
        A data set on the Hub is read as far as it takes to have so many, of 64 documents or more, never to its end.
        Documents that hold the words of others are warned of. Raises InputError where there is too little text, saying
        how much there is.
        """
        blocks = self._taken(count, boundaries, _spread, 1, tokens)
        if blocks.twins:
            some = "; ".join(f"{name} is {twin}" for name, twin in list(blocks.twins.items())[:3])
            told = f"{len(blocks.twins):,} of {blocks.read:,} documents of {self.name} hold the words of another"
            warnings.warn(f"{told} and count twice ({some}{' ..' * (len(blocks.twins) > 3)})", stacklevel=2)
        return blocks

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
        self,
        count: int | None,
        boundaries: Boundaries,
        rank: Callable[[int, int], NDArray[np.float64]],
        pool: int,
        tokens: int | None = None,
    ) -> TokenBlocks:
        """The pieces of lowest rank, in order; `rank` is given a document's number and how many pieces it has."""
        if count is not None and count < 1:
            raise InputError(f"{count} passages were asked for: ask for 1 or more")
        streamed, wanted = self.source.startswith(HUB), count if tokens is None else tokens
        if wanted is None and streamed:
            raise InputError(f"the data set {self.name} is not read to its end: say how much of it is wanted")
        cutter, least = self._cutter(boundaries), math.inf if wanted is None else wanted
        blocks = least if tokens is None else -(-tokens // self.length)
        kept: list[tuple[float, int, int, Piece]] = []  # the one of highest rank, of equal ones the latest, comes first
        passages = givers = found = held = 0
        for number, pieces in enumerate(cutter.cut(self.documents(cutter.twins))):
            for order, piece in zip(rank(number, len(pieces)).tolist(), pieces, strict=True):
                size = 1 if tokens is None else len(piece.ids) + self.bos
                heappush(kept, (-order, -passages, size, piece))
                held, found, passages = held + size, found + size, passages + 1
                while held - kept[0][2] >= least:
                    held -= heappop(kept)[2]
            givers += bool(pieces)
            enough = found >= pool * least and givers >= min(blocks, DOCUMENTS)
            if streamed and (enough or number >= PATIENCE * blocks):
                break
        if found < (wanted or 1):
            about = self.name if self.part == "all" else f"{self.name} ({self.described})"
            there = found if tokens is not None else passages * self.length
            asked = f"{tokens:,} tokens" if tokens is not None else count or "at least 1"
            raise InputError(
                f"the corpus {about} is too short: its {len(cutter.names):,} documents give {passages:,} passages of "
                f"{self.length} tokens ({there:,} tokens), {asked} were asked for; "
                "ask for fewer or shorter ones, or give more text"
            )
        return cutter.blocks(sorted((x[3] for x in kept), key=attrgetter("place")), self.name, self.described)


def _spread(document: int, pieces: int) -> NDArray[np.float64]:
    """First one piece of every document (of documents far apart, where there are too many), then evenly within each."""
    order: NDArray[np.float64] = np.modf(np.arange(pieces) * GOLDEN)[0]
    order[:1] = document * GOLDEN % 1 - 1
    return order


@worded
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
    if not hasattr(tokenizer, "eos_token_id"):
        raise InputError(f"text is cut for a model or a tokenizer, not for a {type(model).__name__}: give ws.load(..)")
    return Text(str(source), tokenizer, length, bos)
