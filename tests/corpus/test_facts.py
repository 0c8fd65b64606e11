"""Passages with facts: what is told stands where it is said to stand, and only the passage knows the answer."""

from __future__ import annotations

import numpy as np
import pytest
from transformers import PreTrainedTokenizerBase

from writesae.corpus import text
from writesae.corpus.facts import (
    LONGEST,
    NAMES,
    THINGS,
    FactPassages,
    Vocabulary,
    draw_facts,
    sentences,
    vocabulary,
)
from writesae.errors import InputError
from writesae.hosts import Host, load


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return load("memory-gdn").tokenizer


@pytest.fixture(scope="module")
def words(tokenizer: PreTrainedTokenizerBase) -> Vocabulary:
    return vocabulary(tokenizer)


def test_fewer_pairs(words: Vocabulary) -> None:
    few = words.first(5, 7)
    assert (few.names, few.things, few.between) == (words.names[:5], words.things[:7], words.between)
    drawn = draw_facts(few, 11, 5, 3)
    assert np.isin(drawn.name, few.names).all()
    assert np.isin(drawn.thing, few.things).all()
    for names, things in ((41, 7), (5, 65), (0, 7)):
        with pytest.raises(InputError, match="1 to 40 and 1 to 64"):
            words.first(names, things)


@pytest.fixture(scope="module")
def between(tokenizer: PreTrainedTokenizerBase, words: Vocabulary) -> list[tuple[int, ...]]:
    return sentences(text("sample", tokenizer), words)


def test_a_bare_passage_by_hand(tokenizer: PreTrainedTokenizerBase, words: Vocabulary) -> None:
    """Three facts: 3 x 5 tokens told, 3 x 5 asked, nothing else; every place is one that can be counted."""
    passages = draw_facts(words, 1, 3)
    said = str(tokenizer.decode(passages.tokens[0]))
    told, asked = said.split(".")[:3], said.split(".")[3:6]
    assert sorted(told) == sorted(asked)
    names, things = (str(tokenizer.decode(x[0])).split() for x in (passages.name, passages.thing))
    assert told == [f" {name} has the {thing}" for name, thing in zip(names, things, strict=True)]
    assert passages.begin.tolist() == [[0, 5, 10]]
    assert passages.end.tolist() == [[3, 8, 13]]
    assert passages.asked.tolist() == [[15 + 5 * asked.index(statement) + 2 for statement in told]]
    assert passages.distance.tolist() == (passages.asked - passages.end).tolist()
    assert passages.stands.all()


def check(passages: FactPassages, words: Vocabulary) -> None:
    """Every token that the fields speak of is there."""
    rows = np.arange(len(passages))[:, None]
    assert (passages.tokens[rows, passages.begin] == passages.name).all()
    assert (passages.tokens[rows, passages.end] == passages.thing).all()
    length = len(words.between) + 1
    assert (passages.end == passages.begin + length).all()
    assert (passages.tokens[rows, passages.asked - len(words.between)] == passages.name).all()
    answer = passages.tokens[rows, passages.asked + 1]
    assert ((answer == passages.thing) == passages.stands).all()
    assert (passages.asked > passages.end.max(1, keepdims=True)).all()


def test_passages_with_sentences_are_of_one_length(
    tokenizer: PreTrainedTokenizerBase, words: Vocabulary, between: list[tuple[int, ...]]
) -> None:
    passages = draw_facts(words, 37, 5, 3, between=between, gap=7)
    check(passages, words)
    for row in range(len(passages)):
        assert len(set(passages.name[row])) == len(set(passages.thing[row])) == 5
        inside = np.isin(passages.tokens[row], [*words.names, *words.things])
        assert inside.sum() == 20  # sentences name no name and no thing
    assert len({tuple(row) for row in passages.distance}) > 5
    bare = [row for row in range(37) if (np.diff(passages.begin[row]) == 5).all()]
    assert 8 <= len(bare) <= 29  # a half of them, and a few by chance


def test_a_name_told_twice_has_the_later_thing(words: Vocabulary) -> None:
    passages = draw_facts(words, 23, 4, overwritten=2)
    check(passages, words)
    for name, stands, asked, begin in zip(passages.name, passages.stands, passages.asked, passages.begin, strict=True):
        assert len(set(name)) == 4
        assert stands.sum() == 4
        for told in set(name):
            here = name == told
            assert begin[here].argmax() == stands[here].argmax()
            assert len(set(asked[here])) == 1
    assert (~passages.stands).sum() == 2 * 23


def test_passages_are_of_the_seed_and_the_first_of_many(words: Vocabulary) -> None:
    first, same, other = (draw_facts(words, 11, 3, seed) for seed in (5, 5, 6))
    assert np.array_equal(first.tokens, same.tokens)
    assert not np.array_equal(first.tokens, other.tokens)
    assert np.array_equal(draw_facts(words, 29, 3, 5)[:11].tokens, first.tokens)
    assert not np.array_equal(draw_facts(words, 11, 3, (5, 1)).tokens, first.tokens)


def test_who_has_what_is_at_random(words: Vocabulary) -> None:
    """Nothing but the passage tells: over many passages a name has every thing alike, wherever it stands."""
    passages = draw_facts(words, 600, 8)
    names, counts = np.unique(passages.name, return_counts=True)
    assert set(names) == set(words.names)
    assert counts.min() > 80  # 120 expected, 11 its standard deviation
    pairs = np.unique(passages.name.astype(np.int64) * 10_000 + passages.thing)
    assert len(pairs) == pytest.approx(2560 * (1 - np.exp(-4800 / 2560)), rel=0.03)
    order = (passages.asked - passages.asked.min(1, keepdims=True)) // words.length
    assert np.abs(order.mean(0) - 3.5).max() < 0.4


def test_the_adjacent_format_asks_with_the_name_alone(tokenizer: PreTrainedTokenizerBase) -> None:
    words = vocabulary(tokenizer, " {name} {thing}.")
    passages = draw_facts(words, 1, 2)
    check(passages, words)
    assert words.length == 3
    assert passages.begin.tolist() == [[0, 3]]
    assert passages.end.tolist() == [[1, 4]]
    assert sorted(passages.asked[0].tolist()) == [6, 9]


def test_names_and_things_are_single_tokens(host: Host, words: Vocabulary) -> None:
    assert len(words.names) == len(NAMES) == 40
    assert len(words.things) == len(THINGS) == 64
    few = vocabulary(host.tokenizer)  # tiny-gdn's own tokenizer
    assert (len(few.names), len(few.things)) == (13, 32)
    assert [host.text([token]) for token in few.names[:2]] == [" Dan", " David"]


def test_sentences_are_short_and_of_their_part(tokenizer: PreTrainedTokenizerBase, words: Vocabulary) -> None:
    train, test = (sentences(part, words) for part in text("sample", tokenizer).split())
    assert min(len(train), len(test)) > 200
    assert max(map(len, train)) <= LONGEST
    assert len(set(train) & set(test)) < 0.1 * len(set(test))  # headings and refrains stand in both


@pytest.mark.parametrize(
    ("pattern", "facts", "overwritten", "what"),
    [
        ("{thing} of {name}", 1, 0, "name} first"),
        (" {name} has the {thing}.", 41, 0, "40 names and 64 things"),
        (" {name} has the {thing}.", 40, 25, "64 things"),
        (" {name} has the {thing}.", 3, 4, "4 of them told again"),
        (" {name} has the {thing}.", 0, 0, "0 facts"),
    ],
)
def test_what_cannot_be_told_is_refused(
    tokenizer: PreTrainedTokenizerBase, pattern: str, facts: int, overwritten: int, what: str
) -> None:
    with pytest.raises(InputError, match=what):
        draw_facts(vocabulary(tokenizer, pattern), 1, facts, overwritten=overwritten)
