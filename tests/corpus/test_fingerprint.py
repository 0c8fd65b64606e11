"""Overlap of texts by their windows: exact where a text is short, an honest estimate where it is long."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from writesae.corpus import Fingerprint, TokenBlocks, text
from writesae.corpus.fingerprint import LIMIT, WINDOW
from writesae.errors import DataError
from writesae.hosts import Host


def drawn(rows: int, length: int, seed: int = 0) -> NDArray[np.int64]:
    return np.random.default_rng(seed).integers(0, 997, (rows, length))


def windows(tokens: NDArray[np.int64]) -> list[tuple[int, ...]]:
    """The obvious way."""
    return [tuple(row[i : i + WINDOW]) for row in tokens.tolist() for i in range(len(row) - WINDOW + 1)]


def test_a_short_text_is_compared_exactly() -> None:
    held, other = drawn(23, 101), drawn(7, 67, seed=1)
    other[0, 3:60], other[2, :40], other[5] = held[4, 44:101], held[9, 11:51], held[0, 5:72]
    kept = set(windows(held))
    share = sum(window in kept for window in windows(other)) / len(windows(other))
    assert 0.2 < share < 0.4
    print_ = Fingerprint.of(held)
    assert print_.overlap(other) == share
    assert len(print_) == len(kept)
    assert print_.overlap(held) == 1
    assert print_.overlap(drawn(7, 67, seed=1)) == 0


def test_a_long_text_is_kept_in_bounded_size_and_compared_within_the_stated_error() -> None:
    held, other = drawn(3001, 101), drawn(401, 101, seed=1)
    other[::3] = held[: len(other[::3])]
    exact = len(other[::3]) / len(other)
    print_ = Fingerprint.of(held)
    assert len(print_) == LIMIT
    comparable = len(windows(other)) * LIMIT / len(windows(held))
    assert print_.overlap(other) == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / comparable))
    assert print_.overlap(held) == 1
    assert print_.overlap(drawn(401, 101, seed=2)) == 0


def test_how_much_is_hashed_at_once_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = TokenBlocks(drawn(401, 23), ("a",), np.zeros(401, np.int64), place=np.arange(401) * 23)
    other = drawn(11, 47)
    whole = Fingerprint.of(blocks), Fingerprint.of(blocks).overlap(other)
    assert len(whole[0]) == 401 * 23 - WINDOW + 1
    monkeypatch.setattr("writesae.corpus.fingerprint.AT_ONCE", 101)
    assert (Fingerprint.of(blocks), Fingerprint.of(blocks).overlap(other)) == whole


def test_neighbours_are_joined_and_what_is_no_text_is_left_out() -> None:
    ids = drawn(1, 53 * 7)[0]
    rows = ids.reshape(53, 7)
    place = np.arange(53) * 7
    apart = np.where(np.arange(53) < 20, place, place + 7)
    document = np.zeros(53, np.int64)
    whole = Fingerprint.of(ids[None])
    assert Fingerprint.of(TokenBlocks(rows, ("a",), document, place=place)) == whole
    assert len(Fingerprint.of(TokenBlocks(rows, ("a",), document, place=apart))) == len(whole) - WINDOW + 1
    assert len(Fingerprint.of(rows)) == 0  # rows of unknown place stand alone
    marked = np.concatenate([np.full((53, 1), 996), rows], 1)
    assert Fingerprint.of(TokenBlocks(marked, ("a",), document, place=place, bos=True)) == whole
    padded = np.concatenate([np.zeros((53, 2), np.int64), rows], 1)
    padding = np.full(53, 2)
    first = TokenBlocks(padded[:1].repeat(40, 0)[:, 1:], ("a",), np.zeros(40, np.int64))
    assert len(Fingerprint.of(first)) == 0
    one = TokenBlocks(np.concatenate([padded[0], ids[7:50]])[None], ("a",), document[:1], padding[:1])
    assert Fingerprint.of(one) == Fingerprint.of(ids[None, :50])


def test_nothing_comparable_is_not_a_number() -> None:
    print_ = Fingerprint.of(drawn(5, 47))
    assert math.isnan(print_.overlap(drawn(5, WINDOW - 1)))
    assert math.isnan(Fingerprint.of(drawn(5, WINDOW - 1)).overlap(drawn(5, 47)))


def test_passages_of_the_training_text_are_found_at_any_offset_and_held_out_ones_are_not(host: Host) -> None:
    train, test = text("sample", host, 256).split()
    print_ = Fingerprint.of(train.blocks())
    for length in (256, 101):
        assert print_.overlap(train.at(length).draw(67).tokens) > 0.95
        assert print_.overlap(test.at(length).draw(67).tokens) < 0.01


@pytest.mark.parametrize(
    "hashes", [np.arange(3.0), np.array([3, 2]), np.array([2, 2]), np.array([-1, 2]), np.arange(LIMIT + 1)]
)
def test_what_is_no_fingerprint_is_refused(hashes: NDArray[np.int64]) -> None:
    with pytest.raises(DataError, match="rising hashes"):
        Fingerprint(hashes)
