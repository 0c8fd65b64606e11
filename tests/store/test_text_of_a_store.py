"""A store says which text it holds, in words and by a fingerprint; an old store that does not stays readable."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from store_fakes import FakeHost, capture, relist
from zarr.codecs import Crc32cCodec, ZstdCodec

from writesae.corpus import Fingerprint, TokenBlocks
from writesae.errors import DataError
from writesae.recurrence import Stream
from writesae.store import StreamStore, open_store, verify

quick = partial(capture, batch=4, progress=lambda *_: None)


def long_blocks() -> TokenBlocks:
    tokens = np.random.default_rng(0).integers(0, 97, (13, 41))
    document = np.repeat([0, 1], [5, 8])
    place = np.arange(13) * 41 + 41 * document  # five neighbours of one document, eight of another
    return TokenBlocks(tokens, ("a", "b"), document, place=place, source="books", part="train of 0.8")


@pytest.fixture
def store(tmp_path: Path) -> StreamStore:
    return quick(FakeHost(), long_blocks(), [1], tmp_path / "s")


def test_a_store_names_its_text_and_carries_its_fingerprint(store: StreamStore) -> None:
    assert (store.provenance.source, store.provenance.part) == ("books", "train of 0.8")
    assert store.text == Fingerprint.of(long_blocks())
    assert store.text is not None
    joined = np.concatenate([long_blocks().tokens[3], long_blocks().tokens[4]])
    assert store.text.overlap(joined[None]) == 1
    assert "books, train of 0.8" in repr(store)
    assert verify(store.path) == []


def test_a_capture_that_was_killed_ends_with_the_same_fingerprint(store: StreamStore, tmp_path: Path) -> None:
    def die(stream: Stream, batch: int) -> Stream:
        if batch == 2:
            raise KeyboardInterrupt
        return stream

    with pytest.raises(KeyboardInterrupt):
        quick(FakeHost(change=die), long_blocks(), [1], tmp_path / "cut")
    again = quick(FakeHost(), long_blocks(), [1], tmp_path / "cut")
    assert (again.hash, again.text) == (store.hash, store.text)


def test_the_same_tokens_by_another_name_are_the_same_capture(store: StreamStore) -> None:
    moved = replace(long_blocks(), source="moved", part="all")
    assert quick(FakeHost(), moved, [1], store.path).hash == store.hash


def test_an_old_store_is_read_and_its_text_is_unknown(store: StreamStore) -> None:
    shutil.rmtree(store.path / "text")
    header = json.loads((store.path / "zarr.json").read_text())
    del header["attributes"]["writesae"]["source"], header["attributes"]["writesae"]["part"]
    (store.path / "zarr.json").write_text(json.dumps(header))
    relist(store.path)
    old = open_store(store.path)
    assert (old.text, old.provenance.source, old.provenance.described) == (None, None, None)
    assert verify(old.path) == []
    assert quick(FakeHost(), long_blocks(), [1], old.path).hash == old.hash


@pytest.mark.parametrize(
    ("values", "attributes", "message"),
    [
        (np.array([5, 3]), {"window": 32, "limit": 32768}, "rising hashes"),
        (np.array([3, 5]), {"window": 16, "limit": 32768}, "other windows"),
        (np.array([3, 5], np.int32), {"window": 32, "limit": 32768}, 'data_type is "int32", not "int64"'),
    ],
)
def test_a_damaged_fingerprint_is_found(
    values: np.ndarray, attributes: dict[str, Any], message: str, store: StreamStore
) -> None:
    packed = (ZstdCodec(level=0), Crc32cCodec())
    text = store.path / "text"
    zarr.create_array(text, data=values, compressors=packed, attributes=attributes, overwrite=True)
    relist(store.path)
    with pytest.raises(DataError, match=message):
        _ = open_store(store.path).text
    assert message in verify(store.path)[0]


def test_sequences_shorter_than_a_window_leave_no_fingerprint(tmp_path: Path) -> None:
    store = quick(FakeHost(), long_blocks().tokens[:, :31], [1], tmp_path / "s")
    assert (store.text, store.provenance.source) == (None, None)
    assert not (store.path / "text").exists()
