"""What may be somebody else's is read within limits: JSON, names, tensors; every refusal is one line."""

from __future__ import annotations

import json
import os
import resource
import struct
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from writesae.config import from_json
from writesae.disk import (
    LARGE,
    FileEntry,
    check_name,
    inside,
    map_tensors,
    parse_json,
    read_json,
    read_lines,
    tensor_header,
    write_tensors,
)
from writesae.disk.folders import regular_files
from writesae.disk.read import DEPTH, VALUES
from writesae.errors import ConfigError, DataError

JSON: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "not valid JSON"),
    "cut": (b'{"a": 1', "do not match"),
    "deep": (b"[" * 10**5 + b"]" * 10**5, f"deeper than {DEPTH} levels"),
    "deep and open": (b"[" * 10**6, f"deeper than {DEPTH} levels"),
    "deep objects": (b'{"a":' * 10**5 + b"1" + b"}" * 10**5, f"deeper than {DEPTH} levels"),
    "many empty lists": (b"[" + b"[]," * (VALUES + 1) + b"1]", "more than 2,000,000 values"),
    "many numbers": (b"[" + b"1," * (VALUES + 1) + b"1]", "more than 2,000,000 values"),
    "an open string": (b'"' + b"\\" * (1 << 23), "not valid JSON"),
    "quotes": (b'"' * (1 << 22), "not valid JSON"),
    "many digits": (b"1" * 10**4, "an integer of 10,000 digits"),
    "41 digits": (b"-" + b"1" * 40, "an integer of 41 digits"),
    "a large float": (b"1e999", "1e999 is not JSON"),
    "NaN": (b'{"a": NaN}', "NaN is not JSON"),
    "infinity": (b"[-Infinity]", "-Infinity is not JSON"),
    "a key twice": (b'{"a": 1, "a": 2}', "a key occurs twice"),
    "half of a character": (rb'{"a": ["\ud83d"]}', "half of a character"),
    "half of a character as a key": (rb'{"\uDC00": 1}', "half of a character"),
    "other bytes": (b'"\xff"', "codec"),
    "UTF-16": ('{"a": 1}'.encode("utf-16"), "codec"),
}


@pytest.mark.parametrize("name", JSON)
def test_json_is_read_within_limits(name: str, tmp_path: Path) -> None:
    data, told = JSON[name]
    (tmp_path / "a.json").write_bytes(data)
    begin, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DataError, match=told) as stop:
        read_json(tmp_path / "a.json", LARGE)
    assert "\n" not in str(stop.value)
    assert len(str(stop.value)) < 400
    assert time.process_time() - begin < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 20  # KiB


def test_json_that_is_read() -> None:
    data = {"a": [1, -2.5, None, True, "ü\U0001f600\n", {}], "b" * 999: 10**39, "[{": "]}" * 200}
    assert parse_json(json.dumps(data), "it") == data  # with escapes
    assert parse_json(json.dumps(data, ensure_ascii=False).encode("utf-8-sig"), "it") == data
    nested = "[" * DEPTH + "]" * DEPTH
    assert json.dumps(parse_json(nested, "it")) == nested


def test_json_may_not_be_larger_than_its_kind(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b" " * (5 << 20))
    with pytest.raises(DataError, match="larger than 4,194,304 bytes"):
        read_json(tmp_path / "a.json")
    (tmp_path / "a.jsonl").write_bytes(b"1\n" + b" " * (5 << 20))
    with pytest.raises(DataError, match=r"line 2 is longer than 4,194,304 bytes"):
        list(read_lines(tmp_path / "a.jsonl"))
    with pytest.raises(DataError, match="cannot read"):
        read_json(tmp_path)
    with pytest.raises(DataError, match="cannot read"):
        read_json(tmp_path / "a\0b")


def test_a_line_that_was_cut_is_left_out_where_a_kill_may_have_cut_it(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": 1}\n[2]\n{"a"')
    assert list(read_lines(path, cut=True)) == [({"a": 1}, 9), ([2], 4)]
    with pytest.raises(DataError, match=r"a\.jsonl, line 3 is not valid JSON"):
        list(read_lines(path))


def test_an_error_in_each_of_many_entries_is_told_at_once() -> None:
    begin = time.process_time()
    with pytest.raises(ConfigError) as stop:
        from_json(dict[str, FileEntry], {str(n): [] for n in range(10**6)})
    with pytest.raises(ConfigError):
        from_json(dict[str, FileEntry], {**{str(n): {"sha256": "0" * 64, "size": 1} for n in range(300)}, "x": []})
    assert time.process_time() - begin < 5
    assert len(str(stop.value)) < 800


@pytest.mark.parametrize(
    "name",
    [
        "", ".", "..", "/", "/etc/passwd", "a/../b", "../a", "a/..", "./a", "a//b", "a/", "a\\b", "c:a", "a\0b", "a\nb",
        "\u202eabc", "a\u200bb", "\ud800", "x" * 256, "ü" * 128, "/".join(["x" * 99] * 50),
        "ﬁle", "e\u0301", "a\x1b[31m",
    ],
)  # fmt: skip
def test_names_that_are_not_written_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not a plain name inside the folder; refused") as stop:
        check_name(name, tmp_path)
    str(stop.value).removeprefix(str(tmp_path)).encode("ascii")  # as escapes, so that nothing odd is shown


def test_names_that_are_written(tmp_path: Path) -> None:
    for name in ("config.json", "a/b-c.d_e/1", "x" * 255, "Größe/日本.json", "a b"):
        check_name(name, tmp_path)


def test_links_and_devices_are_no_files(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "a/b").mkdir(parents=True)
    (folder / "a/b/c").write_bytes(b"123")
    (folder / ".hidden").symlink_to("/dev/zero")
    assert regular_files(folder) == {"a/b/c": 3}
    for target in ("/dev/zero", "/etc/passwd", str(tmp_path), "c", "nowhere"):
        (folder / "a/b/link").symlink_to(target)
        with pytest.raises(DataError, match=r"'a/b/link' is a link or no regular file"):
            regular_files(folder)
        (folder / "a/b/link").unlink()
    os.mkfifo(folder / "a/pipe")
    with pytest.raises(DataError, match=r"'a/pipe' is a link or no regular file"):
        regular_files(folder)
    with pytest.raises(DataError, match="is missing or is not a regular file"):
        inside(folder, "a/pipe")


def written(path: Path, header: object, data: bytes = bytes(12), spaces: int = 0) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode() + b" " * spaces
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def told(dtype: str = "F32", shape: object = (3,), offsets: object = (0, 12)) -> dict[str, object]:
    return {"a": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}


HEADERS: dict[str, tuple[object, str]] = {
    "halves": (told("F16", (6,)), "holds F16, where F32 is read"),
    "doubles": (
        told("F64", (1,), (0, 8)) | {"b": {"dtype": "F32", "shape": [1], "data_offsets": [8, 12]}},
        "holds F64",
    ),
    "8 bits": (told("F8_E4M3", (12,)), "is no tensor"),
    "no type": (told("X", (12,)), "is no tensor"),
    "a large shape": (told(shape=(10**9, 10**9)), "is no tensor"),
    "a negative shape": (told(shape=(-3,)), "is no tensor"),
    "many axes": (told(shape=(1,) * 9 + (3,)), "is no tensor"),
    "a shape that is none": (told(shape="3"), "not a valid safetensors file"),
    "beyond the end": (told(shape=(4,), offsets=(0, 16)), "do not fill"),
    "before the start": (told(offsets=(-12, 0)), "do not fill"),
    "a gap": (told(shape=(2,), offsets=(4, 12)), "do not fill"),
    "one twice": (told() | {"b": told()["a"]}, "do not fill"),
    "a rest": (told(shape=(2,), offsets=(0, 8)), "do not fill"),
    "no object": ([], "do not fill"),
    "no JSON": (b"{", "not valid JSON"),
    "metadata": ({"__metadata__": {"a": 1}} | told(), "not a valid safetensors file"),
    "more in it": ({"a": {**told()["a"], "x": 1}}, "not a valid safetensors file"),  # type: ignore[dict-item]
}


@pytest.mark.parametrize("name", HEADERS)
def test_tensors_are_checked_before_they_are_touched(name: str, tmp_path: Path) -> None:
    header, message = HEADERS[name]
    with pytest.raises(DataError, match=message) as stop:
        map_tensors(written(tmp_path / "a.safetensors", header))
    assert "\n" not in str(stop.value)


def test_long_headers_and_cut_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has a header of 99,"):
        map_tensors(written(tmp_path / "a", told(), spaces=99 * 10**6))
    for data in (b"", b"\0" * 7, b"\xff" * 8, struct.pack("<Q", 100) + b"{}"):
        (tmp_path / "b").write_bytes(data)
        with pytest.raises(DataError, match="is cut short"):
            map_tensors(tmp_path / "b")


def test_tensors_that_are_whole_come_back(tmp_path: Path) -> None:
    tensors = {"a": torch.arange(6.0).reshape(2, 3), "none": torch.zeros(0, 5), "one": torch.tensor(2.5)}
    save_file(tensors, tmp_path / "a", {"format": "pt"})
    found = map_tensors(tmp_path / "a")
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)
    for bad in (float("nan"), float("inf"), -np.inf):
        save_file(tensors | {"one": torch.tensor([0.0, bad])}, tmp_path / "b")
        with pytest.raises(DataError, match="NaN or infinity in 'one'"):
            map_tensors(tmp_path / "b")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64])
def test_tensors_are_written_as_the_library_writes_them(dtype: torch.dtype, tmp_path: Path) -> None:
    some = torch.arange(35).reshape(5, 7)
    tensors = {"b": some.to(dtype), "a": some.T.to(dtype), "none": torch.empty(0, 3), "one": torch.tensor(2.5),
               "\u00e9 \"": some.long() + 1}  # fmt: skip
    write_tensors(tmp_path / "ours", tensors, {"format": "pt"})
    save_file({name: x.contiguous() for name, x in tensors.items()}, tmp_path / "theirs", {"format": "pt"})
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()
    several = {"window": "32", "limit": "9", "a": "b"}  # which the library writes in any order
    write_tensors(tmp_path / "one", tensors, several)
    write_tensors(tmp_path / "other", dict(reversed(tensors.items())), dict(reversed(several.items())))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()
    assert tensor_header(tmp_path / "one")[0] == several
    with safe_open(tmp_path / "one", "pt") as file:
        assert all(torch.equal(file.get_tensor(name), x) for name, x in tensors.items())
