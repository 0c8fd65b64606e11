"""Learn the tokenizer from the training text and turn the corpus into token arrays.

    python recipes/tiny_gdn/prepare.py --corpus corpus --tokens tokens

Writes `tokenizer.json`, `train.npy` (all training documents in a fixed random order, end-of-text after each) and
`heldout_SOURCE.npy`, uint16. Held-out text is seen by neither the tokenizer nor the training array.
"""

from __future__ import annotations

import json
import lzma
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

END_OF_TEXT = "<|endoftext|>"
WORDS = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
"""Contractions, words with the space before them, single digits, punctuation, line ends, spaces."""
PIECE = 20_000
"""Characters handed to the tokenizer's training at once."""


@dataclass(frozen=True)
class Options:
    """Tokenise the corpus."""

    corpus: Path = Path("corpus")
    """Folder of `SOURCE.jsonl.xz` files made by build.py."""
    tokens: Path = Path("tokens")
    """Folder for the tokenizer and the arrays."""
    vocabulary: int = 4096
    """Entries of the byte-level BPE vocabulary, at most 65,536."""
    tokenizer: Path | None = None
    """A `tokenizer.json` to use in place of learning one, so that two hosts share their tokens."""


def read_split(corpus: Path, split: str) -> dict[str, list[str]]:
    """Source -> its documents of one split."""
    sources: dict[str, list[str]] = {}
    for path in sorted(corpus.glob("*.jsonl.xz")):
        with lzma.open(path, "rt", encoding="utf-8") as file:
            rows = [json.loads(line) for line in file]
        sources[path.name.removesuffix(".jsonl.xz")] = [row["text"] for row in rows if row["split"] == split]
    if not any(sources.values()):
        raise SystemExit(f"no {split} documents under {corpus}: run build.py first")
    return sources


def learn_tokenizer(sources: dict[str, list[str]], vocabulary: int) -> Tokenizer:
    """Byte-level BPE with end-of-text as token 0."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        min_frequency=2,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )

    def pieces() -> Iterator[str]:
        for documents in sources.values():
            for text in documents:
                yield from (text[start : start + PIECE] for start in range(0, len(text), PIECE))

    tokenizer.train_from_iterator(pieces(), trainer)
    return tokenizer


def encode(tokenizer: Tokenizer, documents: list[str]) -> list[np.ndarray]:
    """Token ids of each document, end-of-text behind it."""
    return [np.array([*tokenizer.encode(text).ids, 0], np.uint16) for text in documents]


def main(options: Options) -> None:
    """Tokenise everything."""
    options.tokens.mkdir(parents=True, exist_ok=True)
    train = read_split(options.corpus, "train")
    if options.tokenizer is None:
        tokenizer = learn_tokenizer(train, options.vocabulary)
    else:
        tokenizer = Tokenizer.from_file(str(options.tokenizer))
    tokenizer.save(str(options.tokens / "tokenizer.json"))
    for name, documents in read_split(options.corpus, "heldout").items():
        np.save(options.tokens / f"heldout_{name}.npy", np.concatenate(encode(tokenizer, documents)))
    arrays = [array for documents in train.values() for array in encode(tokenizer, documents)]
    random.Random(1).shuffle(arrays)
    tokens = np.concatenate(arrays)
    np.save(options.tokens / "train.npy", tokens)
    size = sum(len(text.encode()) for documents in train.values() for text in documents)
    print(f"{len(tokens):,} training tokens, {size / len(tokens):.2f} bytes a token")


if __name__ == "__main__":
    main(tyro.cli(Options))
