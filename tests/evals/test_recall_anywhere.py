"""`recall` on hosts that were not made for it: names and things are single tokens of their own tokenizer."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from random_hosts import tiny_host
from tiny_models import VOCABULARY, build_tiny
from writesae.corpus.facts import NAMES, THINGS, vocabulary
from writesae.errors import InputError
from writesae.evals import recall
from writesae.hosts import load

PATTERN = " {name} holds the {thing} ."
SMALL: dict[str, Any] = {
    "pattern": PATTERN, "facts": 3, "counts": (2, 5), "gap": 0, "found_on": 2, "tried": 3, "reach": 3,
}  # fmt: skip


def word_tokenizer() -> PreTrainedTokenizerFast:
    """A word is a token: 17 names and 23 things, and what stands between them. All others are one, the unknown."""
    known = ["[UNK]", "holds", "the", ".", *NAMES[:17], *THINGS[:23]]
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(known)}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]")  # type: ignore[no-untyped-call]


@pytest.mark.parametrize(("name", "left"), [("qwen3_next", "attention"), ("mamba2", "everything")])
def test_a_random_hybrid_and_a_random_recurrent_host(name: str, left: str) -> None:
    """Nothing is remembered, and everything is measured: with all writes gone a hybrid has its attention left."""
    host = load(build_tiny(name), tokenizer=word_tokenizer())
    words = vocabulary(host.tokenizer, PATTERN)
    assert (len(words.names), len(words.things), words.length) == (17, 23, 5)
    text = torch.arange(2 * 13).view(2, 13) % VOCABULARY
    result = recall(host, text, least=0.0, **SMALL)
    found = result.summary
    assert {one.facts for one in found.recalled} == {2, 3, 5}
    assert {cost.condition for cost in found.costs} == {"delete", left, "other", "random"}
    rest = found.cost(left)
    assert rest is not None
    assert rest.right.n == 2 * 3
    assert ("by attention alone" in result.finding) == (left == "attention")
    assert ("every head from the name on" in result.finding) == (left == "everything")
    with pytest.raises(InputError, match=r"answers 0\.0% of 3 facts right, told like ' \{name\} holds the"):
        recall(host, text, **SMALL)


@pytest.mark.parametrize(
    ("name", "attends"), [("qwen3_next", True), ("falcon_h1", True), ("bamba", True), ("mamba2", False)]
)
def test_hybrids_are_known(name: str, attends: bool) -> None:
    assert tiny_host(name).attends == attends
