"""Passages that hold facts, for hosts that remember: what is told, where, and where it is asked.

    ... Anna has the lamp. The sea was calm. Tom has the key. ... Tom has the key. Anna has the lamp.

A fact ties a name to a thing, both single tokens; who has what is drawn anew in every passage, so that at a question
(the statement told again) the thing can only come from the passage. Ordinary sentences stand between, and before the
first fact so that all passages are of one length.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from writesae.corpus.blocks import TokenBlocks
from writesae.corpus.texts import Text
from writesae.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

NAMES = (  # noqa: SIM905  read like a list
    "Alice Anna Arthur Ben Clara Dan David Edward Elizabeth Emma Fanny George Grace Hannah Harry Helen Henry Jack "
    "Jacob James Jane John Joseph Kate Laura Lucy Mark Martha Mary Moses Paul Peter Robert Rose Sam Sarah Saul Thomas "
    "Tom William"
).split()
THINGS = (  # noqa: SIM905
    "apple ball bell book bottle bowl box bread brush cap chair clock cloth coat coin corn crown cup drum egg file "
    "fish flag fork fruit glass gold hat horse iron key knife lamp letter lock map net pan pen pie plate pot ring "
    "rock rope sail seed sheep shield ship silver song stick stone string sword table tent tree vessel watch wheel "
    "wine wood"
).split()
PATTERN = " {name} has the {thing}."
"""How a fact is told; a question ends before the thing."""
SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")
LONGEST = 12
"""Tokens of an ordinary sentence, at most."""


@dataclass(frozen=True)
class Vocabulary:
    """What facts are made of, in one tokenizer's tokens."""

    pattern: str
    """How a fact is told."""
    names: tuple[int, ...]
    """Token of each name."""
    things: tuple[int, ...]
    """Token of each thing."""
    between: tuple[int, ...]
    """Tokens between name and thing."""
    after: tuple[int, ...]
    """Tokens behind the thing."""

    @property
    def length(self) -> int:
        """Tokens of a statement."""
        return len(self.between) + len(self.after) + 2

    def first(self, names: int, things: int) -> Vocabulary:
        """With its first names and things, for facts of fewer pairs. Raises InputError for more than there are."""
        if not 0 < names <= len(self.names) or not 0 < things <= len(self.things):
            most = f"1 to {len(self.names)} and 1 to {len(self.things)}"
            raise InputError(f"{names} names and {things} things were asked for: give {most}")
        return replace(self, names=self.names[:names], things=self.things[:things])


def vocabulary(tokenizer: PreTrainedTokenizerBase, pattern: str = PATTERN) -> Vocabulary:
    """The names and things that are single tokens where they stand in the pattern.

    Raises InputError for a pattern without `{name}` before `{thing}`, where fewer than two of either are left, and
    where they are no tokens of their own in a statement.
    """
    parts = re.fullmatch(r"(\s*)\{name\}(.*?)(\s*)\{thing\}(.*)", pattern, re.DOTALL)
    if parts is None:
        raise InputError(f'a fact is told like "{PATTERN}", {{name}} first and {{thing}} later, not {pattern!r}')
    lead, middle, space, end = parts.groups()

    def ids(text: str) -> tuple[int, ...]:
        return tuple(tokenizer.encode(text, add_special_tokens=False)) if text else ()

    between, after = ids(middle), ids(end)

    def single(words: Sequence[str], before: str) -> dict[str, int]:
        found = {word: ids(before + word) for word in words}
        return {word: own[0] for word, own in found.items() if len(own) == 1 and own[0] != tokenizer.unk_token_id}

    names, things = single(NAMES, lead), single(THINGS, space)
    if min(len(names), len(things)) < 2:
        raise InputError(
            f"this tokenizer has {len(names)} of {len(NAMES)} names and {len(things)} of {len(THINGS)} things as "
            f"single tokens in {pattern!r}: facts need two of each"
        )
    name, thing = next(iter(names)), next(iter(things))
    if ids(pattern.format(name=name, thing=thing)) != (names[name], *between, things[thing], *after):
        raise InputError(f"this tokenizer joins names and things of {pattern!r} to what stands beside them")
    return Vocabulary(pattern, tuple(names.values()), tuple(things.values()), between, after)


def sentences(text: Text, words: Vocabulary) -> list[tuple[int, ...]]:
    """The short sentences of a text that name no name and no thing, as tokens; each begins with a space."""
    return [found for document in text.documents() for found in sentences_in(document.text, text.tokenizer, words)]


def sentences_in(content: str, tokenizer: PreTrainedTokenizerBase, words: Vocabulary) -> list[tuple[int, ...]]:
    """Those of one piece of text."""
    taken, found = {*words.names, *words.things}, []
    for sentence in SENTENCE.split(" ".join(content.split())):
        if re.fullmatch(r"[A-Z][^\n]{10,60}[.!?]", sentence):
            ids = tuple(tokenizer.encode(" " + sentence, add_special_tokens=False))
            if len(ids) <= LONGEST and not taken.intersection(ids):
                found.append(ids)
    return found


@dataclass(frozen=True, eq=False)
class FactPassages:
    """Passages with what they tell. `F` statements a passage, in the order of their places.

    A name that is told twice has two statements and one question; its later statement stands.
    """

    tokens: NDArray[np.int64]
    """`[B, T]` token ids, without padding."""
    name: NDArray[np.int64]
    """`[B, F]`: the token of the name."""
    thing: NDArray[np.int64]
    """`[B, F]`: the token of the thing."""
    begin: NDArray[np.int64]
    """`[B, F]`: where the statement begins: the place of the name."""
    end: NDArray[np.int64]
    """`[B, F]`: the place of the thing."""
    asked: NDArray[np.int64]
    """`[B, F]`: the last place of the question; what comes next is the answer."""
    stands: NDArray[np.bool_]
    """`[B, F]`: whether the thing is the answer: it was not told otherwise later."""

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, rows: slice | NDArray[np.integer]) -> FactPassages:
        """Some of the passages."""
        return FactPassages(*(getattr(self, field.name)[rows] for field in fields(self)))

    @cached_property
    def distance(self) -> NDArray[np.int64]:
        """`[B, F]`: tokens from the thing to the end of its question."""
        return self.asked - self.end


def draw_facts(
    words: Vocabulary,
    count: int,
    facts: int,
    seed: int | Sequence[int] = 0,
    *,
    between: Sequence[tuple[int, ...]] = (),
    share: float = 0.5,
    gap: int = 4,
    overwritten: int = 0,
) -> FactPassages:
    """`count` passages of `facts` names each, told and then asked in random orders; the same for the same seed.

    In a `share` of the passages a sentence of `between` stands behind every second statement on average, and up to
    `gap` more before the first question. `overwritten` of the names are told again, of another thing, and
    asked once. Raises InputError where there are fewer names or things than that takes.
    """
    told = facts + overwritten
    if count < 1 or not 1 <= facts <= len(words.names) or not 0 <= overwritten <= facts or told > len(words.things):
        raise InputError(
            f"{count} passages of {facts} facts were asked for, {overwritten} of them told again: ask for one passage "
            f"or more, and for no more than this tokenizer's {len(words.names)} names and {len(words.things)} things"
        )
    drawn = []
    for row in range(count):
        random = np.random.default_rng((*np.atleast_1d(seed), row))
        used = between if random.random() < share else ()
        drawn.append(_Passage(words, used, random).tell(facts, overwritten).ask(gap))
    length = max(len(passage.tokens) for passage in drawn)
    for passage in drawn:
        passage.fill(length, between)
    columns = zip(*(passage.columns() for passage in drawn), strict=True)
    return FactPassages(*(np.stack(column) for column in columns))


def fact_blocks(
    words: Vocabulary, count: int, facts: int, seed: Sequence[int], part: str, between: Sequence[tuple[int, ...]] = ()
) -> TokenBlocks:
    """Passages of facts as blocks to capture, with what a record says of them: facts alone, or in half of the passages
    with sentences of `between`."""
    about = f"{facts} of {len(words.names)} names and {len(words.things)} things a passage"
    tokens = draw_facts(words, count, facts, seed, between=between, share=0.5 if between else 0).tokens
    blocks = TokenBlocks.of(tokens)
    return replace(blocks, source="facts", part=f"{about}, seed {' '.join(map(str, seed))}, {part}")


class _Passage:
    """One passage while it is written."""

    def __init__(self, words: Vocabulary, between: Sequence[tuple[int, ...]], random: np.random.Generator) -> None:
        self.words, self.between, self.random = words, between, random
        self.tokens: list[int] = []
        self.told: list[tuple[int, int, int]] = []
        """Name, thing and place of each statement."""
        self.asked: dict[int, int] = {}
        """Where the question of each name ends."""

    def tell(self, facts: int, overwritten: int) -> _Passage:
        """The statements, in random order."""
        names = self.random.permutation(self.words.names)[:facts].tolist()
        things = self.random.permutation(self.words.things)[: facts + overwritten].tolist()
        order = self.random.permutation([*names, *names[:overwritten]]).tolist()
        for name, thing in zip(order, things, strict=True):
            self.told.append((name, thing, len(self.tokens)))
            self._state(name, thing)
            if self.between and self.random.random() < 0.5:
                self._say()
        return self

    def ask(self, gap: int) -> _Passage:
        """The questions with their answers, in random order."""
        answers = {name: thing for name, thing, _ in self.told}
        if self.between:
            for _ in range(self.random.integers(gap + 1)):
                self._say()
        for name in self.random.permutation(list(answers)).tolist():
            self.asked[name] = len(self.tokens) + len(self.words.between)
            self._state(name, answers[name])
        return self

    def fill(self, length: int, between: Sequence[tuple[int, ...]]) -> None:
        """Ordinary sentences before the first statement, the first of them cut, so that there are `length` tokens."""
        missing, filler = length - len(self.tokens), list[int]()
        while len(filler) < missing:
            filler = [*between[int(self.random.integers(len(between)))], *filler]
        self.tokens = [*filler[len(filler) - missing :], *self.tokens]
        self.told = [(name, thing, place + missing) for name, thing, place in self.told]
        self.asked = {name: place + missing for name, place in self.asked.items()}

    def columns(self) -> tuple[NDArray[np.generic], ...]:
        """The fields of `FactPassages`, of this passage."""
        name, thing, begin = np.array(self.told, np.int64).T
        asked = np.array([self.asked[n] for n in name], np.int64)
        stands = np.array([n not in name[i + 1 :] for i, n in enumerate(name)])
        return np.array(self.tokens, np.int64), name, thing, begin, begin + 1 + len(self.words.between), asked, stands

    def _state(self, name: int, thing: int) -> None:
        self.tokens += [name, *self.words.between, thing, *self.words.after]

    def _say(self) -> None:
        self.tokens += self.between[int(self.random.integers(len(self.between)))]
