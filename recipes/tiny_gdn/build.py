"""Clean the fetched texts and set held-out documents aside: one `SOURCE.jsonl.xz` a source.

    python recipes/tiny_gdn/build.py --packages packages --corpus corpus

Each line is `{"split": "train" | "heldout", "text": "..."}`. The split is fixed by the order of the documents: it
is the one that the shipped host was trained with.
"""

from __future__ import annotations

import json
import lzma
import random
from dataclasses import dataclass
from pathlib import Path

import tyro
from cleaning import normalise
from sources import SOURCES

SHORTEST = 200
"""Characters below which a document is dropped."""
HELD_OUT = 0.03
CAPS = {"spurgeon": 6_000_000}
"""Characters of training text after which a source takes no further document, so that it does not dominate."""


@dataclass(frozen=True)
class Options:
    """Build the corpus."""

    packages: Path = Path("packages")
    """Folder that fetch.py filled."""
    corpus: Path = Path("corpus")
    """Folder for the cleaned sources."""


def split(documents: list[str], seed: int = 0) -> tuple[list[str], list[str]]:
    """(train, held out): whole documents where there are at least 20, else the last part of each."""
    if len(documents) < 20:
        cuts = [int(len(text) * (1 - HELD_OUT)) for text in documents]
        pairs = list(zip(documents, cuts, strict=True))
        return [text[:cut] for text, cut in pairs], [text[cut:] for text, cut in pairs]
    shuffled = list(documents)
    random.Random(seed).shuffle(shuffled)
    count = max(1, int(len(shuffled) * HELD_OUT))
    return shuffled[count:], shuffled[:count]


def capped(documents: list[str], limit: int | None) -> list[str]:
    """Documents up to and including the one with which the limit is passed."""
    kept, total = [], 0
    for text in documents:
        if limit is not None and total > limit:
            break
        kept.append(text)
        total += len(text)
    return kept


def main(options: Options) -> None:
    """Build every source."""
    options.corpus.mkdir(parents=True, exist_ok=True)
    for name, documents in SOURCES.items():
        cleaned = [normalise(text) for text in documents(options.packages)]
        train, heldout = split([text for text in cleaned if len(text) > SHORTEST])
        train = capped(train, CAPS.get(name))
        if not train:
            raise SystemExit(f"source {name} gave no documents from {options.packages}: was fetch.py run?")
        rows = [{"split": "heldout", "text": text} for text in heldout]
        rows += [{"split": "train", "text": text} for text in train]
        partial = options.corpus / f"{name}.partial"
        with lzma.open(partial, "wt", encoding="utf-8") as file:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        partial.rename(options.corpus / f"{name}.jsonl.xz")
        size = sum(len(text.encode()) for text in train)
        print(f"{name:12} {size / 1e6:6.2f} MB in {len(train)} documents, {len(heldout)} held out", flush=True)


if __name__ == "__main__":
    main(tyro.cli(Options))
