"""The parts of the corpus recipe that need no download: binary readers, cleaning, and the split."""

from __future__ import annotations

import importlib
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

RECIPE = Path(__file__).parents[2] / "recipes" / "tiny_gdn"
Load = Callable[[str], Any]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Load:
    """Import a module of the recipe, which is no package."""
    monkeypatch.syspath_prepend(str(RECIPE))
    return importlib.import_module


def test_sword_blocks_follow_the_index(load: Load, tmp_path: Path) -> None:
    books = ["In the beginning", "Grüße", "The end."]
    packed = [zlib.compress(book.encode()) for book in books]
    offset, index = 5, b""
    for data, book in zip(packed, books, strict=True):
        index += struct.pack("<III", offset, len(data), len(book.encode()))
        offset += len(data)
    (tmp_path / "ot.bzs").write_bytes(index)
    (tmp_path / "ot.bzz").write_bytes(b"\0" * 5 + b"".join(packed))
    assert list(load("formats").sword_blocks(tmp_path, "ot.bz")) == books


def test_r_character_vectors_come_in_file_order(load: Load, tmp_path: Path) -> None:
    def serialised(strings: list[str | None]) -> bytes:
        raw = b"X\n\0\0\0\x03" + b"\x00\x00\x00\x10" + struct.pack(">I", len(strings))
        for string in strings:
            data = b"" if string is None else string.encode()
            raw += struct.pack(">Ii", 0x00040009, -1 if string is None else len(data)) + data
        return struct.pack(">I", len(raw)) + zlib.compress(raw)

    path = tmp_path / "Rdata.rdb"
    path.write_bytes(serialised(["one", "", None, "Grüße"]) + serialised(["two"]))
    assert list(load("formats").r_character_vectors(path)) == [["one", "", "", "Grüße"], ["two"]]


def test_markup_becomes_prose(load: Load) -> None:
    cleaning = load("cleaning")
    osis = 'A <note>gone</note>word , here<title type="x">Head</title>next<l level="1" sID="a"/>line'
    assert cleaning.normalise(cleaning.strip_osis(osis)) == "A word, here\n\nHead\n\nnext\n\nline"
    page = "<head><title>t</title></head><p>One &amp; <b>two</b>.<script>x()</script><li>three"
    assert cleaning.normalise(cleaning.strip_html(page)) == "One & two.\n\nthree"
    assert cleaning.unwrap("a\nb\n\nc\nd") == "a b\n\nc d"
    assert cleaning.normalise("\u201cx\u201d \u2014\ty\r\n\n\n\n z ") == '"x" -- y\n\nz'
    assert cleaning.strip_gutenberg("licence\n*END* of it\nbody\nan Etext line\nmore") == "body\n\nmore"
    assert cleaning.prose_of_html(f"<p>{'w ' * 50}</p><h2>t</h2><p>short</p><div>") == ("w " * 50).strip()


def test_the_split_holds_out_whole_documents_or_ends(load: Load) -> None:
    split = load("build").split
    many = [f"document {n}" for n in range(67)]
    train, held = split(many)
    assert (len(train), len(held)) == (65, 2)
    assert sorted(train + held) == sorted(many)
    assert split(many) == (train, held)
    few = ["x" * 100, "abcdefghij" * 10]
    assert split(few) == ([text[:97] for text in few], [text[97:] for text in few])


def test_the_cap_keeps_the_document_that_passes_it(load: Load) -> None:
    capped = load("build").capped
    assert capped(["aaa", "bbb", "ccc", "ddd"], 5) == ["aaa", "bbb"]
    assert capped(["aaa", "bbb"], None) == ["aaa", "bbb"]
