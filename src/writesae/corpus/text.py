"""Bridge until the real one lands."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from writesae.corpus.passages import draw_passages


@dataclass(frozen=True, eq=False)
class Passages:
    tokens: NDArray[np.int64]
    corpus: str
    part: str
    length: int
    seed: int | None
    hash: str = field(init=False)

    def __post_init__(self) -> None:
        ids = np.ascontiguousarray(self.tokens, dtype="<i8")
        object.__setattr__(self, "hash", hashlib.sha256(repr(ids.shape).encode() + ids.tobytes()).hexdigest())

    @classmethod
    def of(cls, tokens: NDArray[np.int64]) -> Passages:
        return cls(tokens, "tokens", "as given", tokens.shape[1], None)


@dataclass(frozen=True, eq=False)
class Text:
    source: str
    tokenizer: object
    length: int
    part: str = "all"
    share: float = 0.8

    def split(self, share: float = 0.8) -> tuple[Text, Text]:
        return replace(self, part="train", share=share), replace(self, part="test", share=share)

    def at(self, length: int) -> Text:
        return replace(self, length=length)

    def draw(self, count: int, seed: int = 0) -> Passages:
        part = {"all": (0.0, 1.0), "train": (0.0, self.share), "test": (self.share, 1.0)}[self.part]
        tokens = draw_passages(self.source, self.tokenizer, count, self.length, part, seed)  # type: ignore[arg-type]
        return Passages(tokens, self.source, self.part, self.length, seed)


def text(source: str, model: object, length: int = 256, bos: bool = False) -> Text:
    return Text(source, getattr(model, "tokenizer", model), length)
