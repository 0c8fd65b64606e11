"""One split of text into training text and held-out text: by documents and characters, before any tokenizer.

A long document is cut once, so that both sides hold something of it; a short one goes to one side whole, by a hash of
its content, so that equal documents never stand on both. Nothing of it depends on a tokenizer, on the length of
passages, on the order of documents or on what else is in the corpus.
"""

from __future__ import annotations

import hashlib
import re
from itertools import islice
from typing import Literal

Part = Literal["all", "train", "test"]
"""All text, what comes before the cut, or what comes behind it."""

SIDE = 2048
"""Characters that both sides of a document must have for it to be cut, at a share of 0.8 those of 10,240 and more.
They hold a passage of 256 tokens at up to 8 characters a token, where English has 3 to 5: a side that is too short for
one passage would be text that nobody uses."""
REACH = 256
"""Characters behind the share within which the cut moves to white space; text without any is cut at the share."""
_SPACE, _WORD = re.compile(r"\s"), re.compile(r"\S+")


def cut(text: str, share: float) -> int:
    """Where a document is split: training text before, held-out text behind. Its length, or 0, for a short one."""
    place = int(share * len(text))
    if min(place, len(text) - place) >= SIDE:
        space = _SPACE.search(text, place, place + REACH)
        return place if space is None else space.start()
    drawn = int.from_bytes(content_hash(text)[:8], "big") / 2**64
    return len(text) if drawn < share else 0


def content_hash(text: str) -> bytes:
    """SHA-256 of a text's words: the same however they are spaced and broken into lines."""
    return hashlib.sha256(" ".join(text.split()).encode("utf-8", "surrogatepass")).digest()


def after_words(text: str, count: int) -> int:
    """Where so many words of a text end."""
    word = next(islice(_WORD.finditer(text), count - 1, None)) if count else None
    return word.end() if word else 0
