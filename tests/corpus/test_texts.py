"""One split of text, spread for captures and drawn for measurements."""

from __future__ import annotations

import copy
import json
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from writesae.corpus import Passages, Text, text
from writesae.corpus.split import SIDE, cut
from writesae.errors import InputError
from writesae.hosts import Host


def words(count: int, seed: int) -> str:
    return " ".join(f"w{n}" for n in np.random.default_rng(seed).integers(1, 97, count))


def written(folder: Path, documents: list[str]) -> Path:
    lines = [json.dumps({"name": str(n), "text": content}) for n, content in enumerate(documents)]
    (folder / "texts.jsonl").write_text("\n".join(lines))
    return folder / "texts.jsonl"


def held(side: Text) -> dict[str, str]:
    return dict(side.documents())


@pytest.mark.parametrize("length", [256, 64])
def test_short_documents_give_their_share_of_passages(
    length: int, tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    source = written(tmp_path, [words(333, n) for n in range(2000)])
    train, test = text(source, tokenizer, length).split(0.8)
    expected = 2000 * (333 // length) / 5
    assert len(test.blocks()) == pytest.approx(expected, rel=0.1)
    assert len(train.blocks()) == pytest.approx(4 * expected, rel=0.1)
    every = len(test.blocks())
    assert len({row.tobytes() for row in test.draw(every).tokens}) == every  # none of them is never drawn


def test_the_split_is_of_text_whatever_the_tokenizer_and_the_length(
    host: Host, tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    source = written(tmp_path, [words(n, n) for n in (67, 401, 1009, 6007, 12007)])
    one, other = text(source, tokenizer, 5).split(0.7), text(source, host, 101).split(0.7)
    assert [held(side) for side in one] == [held(side) for side in other]
    assert held(one[1].at(31)) == held(one[1])
    whole = held(text(source, tokenizer))
    assert {name: held(one[0]).get(name, "") + held(one[1]).get(name, "") for name in whole} == whole
    assert {"3", "4"} <= set(held(one[0])) & set(held(one[1]))  # long documents stand on both sides
    assert not {"0", "1", "2"} & set(held(one[0])) & set(held(one[1]))


def test_equal_documents_stand_on_one_side(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    once = [words(53, n) for n in range(101)]
    again = [content.replace(" ", "\n") + "\n" for content in once]
    train, test = text(written(tmp_path, [*again, *once]), tokenizer).split(0.5)
    one, other = ({tuple(content.split()) for content in held(side).values()} for side in (train, test))
    assert not one & other
    assert len(one | other) == 101
    assert all(len(held(side)) > 60 for side in (train, test))


def test_documents_with_the_same_words_are_told_and_never_on_both_sides(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    once = [words(5003, n) for n in range(7)]
    again = [content.replace(" ", "\n  ", 2003 * (n % 2)) for n, content in enumerate(once)]
    assert again[1][: cut(again[1], 0.8)].split() != once[1][: cut(once[1], 0.8)].split()  # one cut by itself
    sides = text(written(tmp_path, [*once, words(59, 99), *again]), tokenizer, 31).split(0.8)
    with pytest.warns(UserWarning, match=r"7 of 15 documents .* hold the words .*\(8 is 0; 9 is 1; 10 is 2"):
        train = sides[0].blocks()
    assert train.twins == {str(8 + n): str(n) for n in range(7)}
    one, other = (held(side) for side in sides)
    for n in range(7):
        assert one[str(n)].split() == one[str(8 + n)].split()
        assert other[str(n)].split() == other[str(8 + n)].split()


def test_a_long_document_is_cut_between_words() -> None:
    content = words(5003, 1)
    place = cut(content, 0.8)
    assert content[place] == " "
    assert place / len(content) == pytest.approx(0.8, abs=0.001)
    assert cut("\N{CJK UNIFIED IDEOGRAPH-6587}" * 5 * SIDE, 0.8) == 4 * SIDE
    short = "x" * (5 * SIDE - 7)
    assert cut(short, 0.8) in (0, len(short))


def test_training_and_held_out_text_of_the_sample_share_no_passage(host: Host) -> None:
    train, test = text("sample", host, 64).split()
    rows = [{row.tobytes() for row in side.blocks().tokens} for side in (train, test)]
    assert not rows[0] & rows[1]
    assert len(rows[1]) / sum(map(len, rows)) == pytest.approx(0.2, abs=0.02)


def test_a_capture_is_spread_over_all_documents(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    for n in range(12):
        (tmp_path / f"{n:02}.txt").write_text(words(2003 if n else 9001, n))
    whole = text(tmp_path, tokenizer, 53)
    some = whole.blocks(61)
    counts = np.bincount(some.document)
    assert (len(some), some.read, len(some.documents), int(counts.min())) == (61, 12, 12, 4)
    assert counts[0] == pytest.approx(61 * 9001 / (9001 + 11 * 2003), abs=2)  # in proportion
    assert some.place is not None
    within = (some.place[some.document == 0] - some.place[0]) / 9001
    assert np.diff([*within, 1]).max() < 0.15  # from its beginning to its end
    few = whole.blocks(5)
    assert few.document.tolist() == [0, 1, 2, 3, 4]
    assert np.diff([int(name.removesuffix(".txt")) for name in few.documents]).max() <= 4  # far apart
    assert len(whole.blocks()) == 9001 // 53 + 11 * (2003 // 53)
    assert len(whole.blocks(83, "packed").documents) == 12


def test_passages_are_drawn_at_random_from_everywhere(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    source = written(tmp_path, [words(29, 1), words(211, 2), words(97, 3)])
    whole = text(source, tokenizer, 7)
    every = [row.tobytes() for row in whole.blocks().tokens]
    drawn = whole.draw(11, seed=5)
    assert (drawn.corpus, drawn.part, drawn.length, drawn.seed, len(drawn)) == ("texts.jsonl", "all", 7, 5, 11)
    order = [every.index(row.tobytes()) for row in drawn.tokens]
    assert order == sorted(set(order))
    assert whole.draw(11, seed=5).hash == drawn.hash != whole.draw(11, seed=6).hash
    fewer = {row.tobytes() for row in whole.draw(4, seed=5).tokens}
    assert fewer < {row.tobytes() for row in drawn.tokens}
    often = Counter(row.tobytes() for seed in range(400) for row in whole.draw(11, seed).tokens)
    chance = 400 * 11 / len(every)
    assert set(often) == set(every)
    assert max(abs(n - chance) for n in often.values()) < 5 * chance**0.5


def test_a_passage_may_begin_with_the_beginning_of_text(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    marking = copy.deepcopy(tokenizer)
    marking.bos_token = "w96"
    source = written(tmp_path, [words(401, 1)])
    plain, marked = text(source, tokenizer, 31).draw(3), text(source, marking, 32, bos=True).draw(3)
    assert (marked.tokens[:, 0] == 96).all()
    assert (marked.tokens[:, 1:] == plain.tokens).all()


class Stream:
    """A data set on the Hub that never ends."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, sizes: Iterator[int]) -> None:
        self.read, self.sizes = 0, sizes
        module = ModuleType("datasets")
        module.__spec__ = ModuleSpec("datasets", None)
        module.load_dataset = lambda *_, **__: self  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "datasets", module)

    def __iter__(self) -> Iterator[dict[str, str]]:
        for number, size in enumerate(self.sizes, 1):
            self.read = number
            yield {"text": words(size, self.read)}


def forever(*sizes: int) -> Iterator[int]:
    yield from sizes
    while True:
        yield sizes[-1]


def test_a_stream_is_read_as_far_as_needed(monkeypatch: pytest.MonkeyPatch, tokenizer: PreTrainedTokenizerFast) -> None:
    stream = Stream(monkeypatch, forever(41))
    train, test = text("hf:user/name", tokenizer, 13).split(0.5)
    drawn = test.draw(7)
    assert 7 * 8 / 3 * 1.4 < stream.read < 7 * 8 / 3 * 3  # eight times as many, three a document, of every second one
    assert (drawn.corpus, drawn.part) == ("hf:user/name", "test of 0.5")
    stream.sizes = forever(41)
    assert test.draw(7).hash == drawn.hash
    stream.sizes = forever(1301, 41)
    some = train.blocks(23)
    assert (len(some.documents), some.read) == (23, 23)  # not all from one long document
    assert stream.read < 80
    with pytest.raises(InputError, match="not read to its end"):
        train.blocks()


def test_a_stream_without_passages_is_given_up(
    monkeypatch: pytest.MonkeyPatch, tokenizer: PreTrainedTokenizerFast
) -> None:
    monkeypatch.setattr("writesae.corpus.texts.PATIENCE", 20)
    stream = Stream(monkeypatch, forever(2))
    with pytest.raises(InputError, match=r"corpus hf:user/name is too short: its 61 documents give 0 passages of 13"):
        text("hf:user/name", tokenizer, 13).draw(3)
    assert stream.read == 61


def test_too_little_text_says_how_many_passages_there_are(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    source = written(tmp_path, [words(59, n) for n in range(11)])
    train, test = text(source, tokenizer, 13).split(0.6)
    there = len(test.blocks())
    assert there % 4 == 0
    with pytest.raises(
        InputError, match=rf"test of 0\.6\) is too short: its {there // 4} documents give {there} passages"
    ):
        test.draw(41)
    with pytest.raises(InputError, match=r"44 passages of 13 tokens .*, 60 were asked for"):
        text(source, tokenizer, 13).blocks(60)
    with pytest.raises(InputError, match="0 passages were asked for"):
        train.draw(0)


def test_what_cannot_be_is_refused_before_anything_is_read(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    for source in ("nowhere.txt", "hf:", tmp_path):
        with pytest.raises(InputError):
            text(source, tokenizer)
    whole = text("sample", tokenizer)
    with pytest.raises(InputError, match="between 0 and 1"):
        whole.split(1.0)
    with pytest.raises(InputError, match="already a part of sample"):
        whole.split()[0].split()
    with pytest.raises(InputError, match="hold no text"):
        whole.at(0)
    with pytest.raises(InputError, match="no beginning-of-text token"):
        replace(whole, bos=True)
    with pytest.raises(InputError, match="too short to evaluate"):
        whole.at(2).draw(1)


def test_bare_tokens_are_passages_of_unknown_origin() -> None:
    bare = Passages.of(np.arange(35, dtype=np.int32).reshape(5, 7))
    assert (bare.corpus, bare.part, bare.seed, bare.length, len(bare)) == ("tokens", "as given", None, 7, 5)
    assert bare.hash != Passages.of(np.arange(35).reshape(7, 5)).hash
    for wrong in (np.zeros((2, 3)), np.arange(7), np.zeros((0, 3), np.int64)):
        with pytest.raises(InputError, match="non-empty array of token ids"):
            Passages.of(wrong)  # type: ignore[arg-type]


def test_tokens_are_counted_without_padding(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    source = written(tmp_path, [words(n, n) for n in range(5, 41)])
    whole = text(source, tokenizer, 31)
    some = whole.blocks(boundaries="padded", tokens=401)
    assert some.padding is not None
    held = 31 - some.padding
    assert 401 <= held.sum() < 401 + held.max()
    assert len(whole.blocks(13, "padded")) == 13  # blocks are blocks
    assert len(whole.blocks(tokens=5 * 31 - 3)) == 5
    with pytest.raises(InputError, match=r"give 45 passages of 31 tokens \(810 tokens\), 811 tokens were asked for"):
        whole.blocks(boundaries="padded", tokens=811)
