"""How well a host remembers, and where: recall by the number of facts and by distance, what it says where a fact was
told again, and the writes that hold a fact. The JSON that is printed is the `card.json` of a shipped host.

    python recipes/memory/measure.py --host run/host > card.json

Passages are drawn with seeds that training never used, and the sentences between are of the sample's held-out part.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd
import torch
import tyro
from numpy.typing import NDArray

from writesae.corpus import text
from writesae.corpus.facts import PATTERN, FactPassages, Vocabulary, draw_facts, sentences, vocabulary
from writesae.evals.recall.changed import answered
from writesae.evals.recall.located import ALL, binding, cells_of, deleted, groups_of, located
from writesae.hosts import Host, load

HELD_OUT = 1_000_003
"""Of the seeds here; training's are small."""
FACTS = (2, 4, 8, 12, 16, 24, 32)
FAR = 60
"""Sentences between facts and questions, at most, where recall is measured by distance."""
EDGES = (0, 32, 64, 128, 256, 512)
MAPPED = 6
"""Passages that the writes are looked for on."""


@dataclass(frozen=True)
class Options:
    """Measure recall."""

    host: str
    """An embedded host or a folder."""
    passages: int = 100
    """Passages a number."""
    pattern: str = PATTERN
    """How a fact is told."""
    threads: int = 1
    """CPU threads."""


def share(right: NDArray[np.bool_]) -> float:
    """Of right ones, to four digits."""
    return round(float(right.mean()), 4)


def recalled(host: Host, words: Vocabulary, count: int) -> dict[str, object]:
    """Shares of right answers, over passages half of which have sentences between."""
    between = sentences(text("sample", host.tokenizer).split()[1], words)

    def answers(facts: int, **how: int) -> tuple[FactPassages, NDArray[np.bool_]]:
        passages = draw_facts(words, count, facts, (HELD_OUT, facts), between=between, **how)
        return passages, answered(host, passages).said.numpy() == passages.thing

    recall = {str(facts): share(answers(facts)[1]) for facts in FACTS}
    far, right = answers(8, gap=FAR)
    bins = [(low, high, (far.distance >= low) & (far.distance < high)) for low, high in pairwise(EDGES)]
    twice, said = answers(8, overwritten=4)
    retold = (twice.name[:, :, None] == twice.name[:, None]).sum(-1) > 1
    return {
        "quality": f"recall {recall['8']:.1%} of 8 facts",
        "pattern": words.pattern,
        "recall": recall,
        "distance": {f"{low} to {high - 1}": share(right[inside]) for low, high, inside in bins if inside.any()},
        "told twice": {
            "newest": share(said[retold & twice.stands]),
            "oldest": share(said[~twice.stands]),
            "others": share(said[~retold]),
        },
    }


def kept(host: Host, words: Vocabulary, count: int) -> dict[str, object]:
    """The writes that hold a fact, found on a few passages, and what deleting them costs on others, of 8 facts."""
    some, others = (draw_facts(words, n, 8, (HELD_OUT, seed)) for n, seed in ((MAPPED, 100), (count, 101)))
    span = 2 * words.length
    table = located(host, some, [*groups_of(host, span), *([cell] for cell in cells_of(host, span))])
    cells = binding(host, some, table, span).cells
    steps = [(str(cells[i]), _costs(deleted(host, others, cells[: i + 1]))) for i in range(len(cells))]
    alone = table[table["head"] != ALL].groupby(["layer", "head", "offset"]).lost.median().sort_values(ascending=False)
    costly = [f"L{layer}.H{head}+{offset}: {lost:.2f}" for (layer, head, offset), lost in alone.items() if lost > 0.1]
    return {"alone": costly, "deleted together": dict(steps)}


def _costs(table: pd.DataFrame) -> dict[str, float]:
    quartiles = table.lost.quantile([0.25, 0.5, 0.75]).tolist()
    numbers = dict(zip(("lost q1", "lost", "lost q3"), quartiles, strict=True))
    numbers |= {
        "right": table.right.mean(),
        "others lost": table.others.mean(),
        "others right": table.others_right.mean(),
    }
    return {name: round(float(number), 4) for name, number in numbers.items()}


def main(options: Options) -> None:
    """Print one JSON object."""
    torch.set_num_threads(options.threads)
    host = load(options.host)
    words = vocabulary(host.tokenizer, options.pattern)
    print(json.dumps(recalled(host, words, options.passages) | kept(host, words, options.passages), indent=2))


if __name__ == "__main__":
    main(tyro.cli(Options))
