"""Files are there whole or not at all; a folder belongs to one run; every refusal is one line that names the path."""

from __future__ import annotations

import errno
import json
import math
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest

from writesae.config import Json
from writesae.disk import (
    MARK,
    check_place,
    check_there,
    claim,
    make_folder,
    missing,
    read_json,
    read_table,
    sha256,
    write_bytes,
    write_json,
    write_table,
    write_text,
)
from writesae.errors import DataError, InputError, OutputError

TABLE = pd.DataFrame({"a": [1.5, 2.5, 3.5], "b": ["x", "y", "z"]})
WRITERS: dict[str, Callable[[Path], None]] = {
    "bytes": lambda path: write_bytes(path, b"new" * 4099),
    "text": lambda path: write_text(path, "new" * 4099),
    "json": lambda path: write_json(path, ["new"] * 4099),
    "table": lambda path: write_table(path, pd.DataFrame({"a": range(4099)})),
}


@contextmanager
def no_room() -> Iterator[None]:
    """No file may grow beyond 100 bytes, as if the disk were full."""
    import signal

    before, limits = signal.signal(signal.SIGXFSZ, signal.SIG_IGN), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)


def refusal(work: Callable[[], object], kind: type[Exception] = OutputError) -> str:
    """What is said; one line."""
    with pytest.raises(kind) as stop:
        work()
    said = str(stop.value)
    assert "\n" not in said
    return said


@pytest.mark.parametrize("name", WRITERS)
def test_a_refused_write_leaves_what_was_there(name: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with no_room():
        said = refusal(lambda: WRITERS[name](path))
    assert said.startswith(f"cannot write {path}: ")
    assert os.strerror(errno.EFBIG) in said
    assert [(other.name, other.read_bytes()) for other in tmp_path.iterdir()] == [("file", b"old")]
    WRITERS[name](path)
    assert path.read_bytes() != b"old"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("name", WRITERS)
def test_below_a_file_and_in_a_folder_that_vanished(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    below = tmp_path / "file" / "below"
    assert refusal(lambda: WRITERS[name](below)) == f"cannot write {below}: Not a directory"
    shutil.rmtree(tmp_path)
    gone = tmp_path / "gone"
    assert refusal(lambda: WRITERS[name](gone)) == f"cannot write {gone}: No such file or directory"
    assert refusal(lambda: WRITERS[name](Path("/dev"))) == "cannot write /dev: Is a directory"
    assert refusal(lambda: make_folder(Path("/dev/null/x"))) == "cannot write /dev/null/x: Not a directory"


def test_a_refusal_of_the_system_names_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "x")

    monkeypatch.setattr(os, "replace", refuse)
    assert "Permission denied" in refusal(lambda: write_text(tmp_path / "file", "text"))
    assert not os.listdir(tmp_path)


def test_a_link_stays_and_a_pipe_is_written_to(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "file")
    write_text(tmp_path / "link", "text")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_text() == "text"
    code = "from pathlib import Path; from writesae.disk import write_json; write_json(Path('/dev/stdout'), [5])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert json.loads(done.stdout) == [5]


def test_tables_and_json_come_back(tmp_path: Path) -> None:
    write_table(tmp_path / "a.parquet", TABLE)
    pd.testing.assert_frame_equal(read_table(tmp_path / "a.parquet"), TABLE)
    data: Json = {"b": [1, 2.5, None, True], "a": {"é": "ü"}}
    write_json(tmp_path / "a.json", data)
    assert read_json(tmp_path / "a.json") == data
    assert (tmp_path / "a.json").read_text().startswith('{\n  "b": [')


def test_numbers_that_are_not_finite_are_refused_unless_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    assert "not finite" in refusal(lambda: write_json(path, [math.nan]), DataError)
    assert "not Unicode" in refusal(lambda: write_json(path, ["\ud800"]), DataError)
    assert not path.exists()
    write_json(path, {"a": [math.nan, -math.inf, 1.5]}, nulls=True)
    assert read_json(path) == {"a": [None, None, 1.5]}
    path.write_text("[NaN]")
    assert str(path) in refusal(lambda: read_json(path), DataError)


@pytest.mark.parametrize(
    "data", [b"{", b"\xff", b'{"a": 1, "a": 2}', b"[" * 99 + b"]" * 99, b"[" + b"5," * 999 + b"5]"]
)
def test_what_is_no_json_is_one_line(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(data)
    assert str(path) in refusal(lambda: read_json(path, 1000), DataError)


def test_what_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    for read in (read_json, read_table, sha256):
        assert str(tmp_path / "x") in refusal(lambda read=read: read(tmp_path / "x"), DataError)  # type: ignore[misc]
    (tmp_path / "a.parquet").write_bytes(b"PAR1 and no more\n of it")
    assert "as Parquet" in refusal(lambda: read_table(tmp_path / "a.parquet"), DataError)


def test_a_folder_is_new_or_the_same_run_s(tmp_path: Path) -> None:
    asked: dict[str, Json] = {"config": {"k": 3, "deep": {"x": [1, 2]}}, "store": "abc"}
    out = tmp_path / "a" / "b"
    assert not claim(out, "trial", asked)
    assert claim(out, "trial", asked)
    assert json.loads((out / MARK).read_text()) == asked
    said = refusal(lambda: claim(out, "trial", asked | {"config": {"k": 5, "deep": {"x": [1, 2]}}}))
    assert said == f"{out} belongs to another trial (config.k is 3 there and 5 here): choose another folder"
    said = refusal(lambda: claim(out, "trial", {"config": {"k": 3, "deep": {"x": [1]}}, "seed": 1}))
    assert "config.deep.x is [1, 2] there and [1] here" in said
    assert "seed is not set there and 1 here" in said
    assert 'store is "abc" there and not set here' in said
    said = refusal(lambda: claim(out, "trial", dict.fromkeys("abcde", 5)))
    assert said.count(" there and ") == 3
    assert "and 5 more" in said
    said = refusal(lambda: claim(out, "trial", asked | {"store": "0123456789" * 9}))
    assert 'store is "abc" there and "012345678901234567890123.. here' in said


def test_what_a_killed_start_left_does_not_count_and_anything_else_does(tmp_path: Path) -> None:
    (tmp_path / f".{MARK}.0123.partial").write_text("{")
    assert not claim(tmp_path, "trial", {"k": 3})
    (tmp_path / MARK).unlink()
    (tmp_path / "thesis.txt").write_text("mine")
    assert "holds thesis.txt and no trial" in refusal(lambda: claim(tmp_path, "trial", {"k": 3}))
    assert "is a file" in refusal(lambda: claim(tmp_path / "thesis.txt", "trial", {"k": 3}))
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / MARK).write_text("{")
    assert "damaged" in refusal(lambda: claim(tmp_path / "damaged", "trial", {"k": 3}), DataError)


def test_a_place_is_checked_without_making_anything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    for good in (tmp_path, tmp_path / "new" / "deep"):
        check_place(good)
    for good in (tmp_path / "file", tmp_path / "new.json", Path("/dev/stdout")):
        check_place(good, file=True)
    assert "is a file" in refusal(lambda: check_place(tmp_path / "file"))
    assert "is a file" in refusal(lambda: check_place(tmp_path / "file" / "below", file=True))
    assert "is a folder" in refusal(lambda: check_place(tmp_path, file=True))
    said = refusal(lambda: check_place(tmp_path / "new" / "deep.json", file=True))
    assert said.startswith(f"there is no folder {tmp_path / 'new'}: make it first")
    assert "File name too long" in refusal(lambda: check_place(tmp_path / ("x" * 999)))
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everywhere
    assert "cannot be written to" in refusal(lambda: check_place(tmp_path / "new"))
    assert os.listdir(tmp_path) == ["file"]


def test_what_is_not_there_is_said_with_what_is_near(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "runs" / "L5.H0").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    check_there(Path("runs"))
    check_there(Path("user/name.v2"), hub=True)
    assert "runs/L5.H1 (near: runs/L5.H0): " in refusal(lambda: check_there(Path("runs/L5.H1")), InputError)
    assert refusal(lambda: check_there(Path("rnus/L5.H0"), "make it"), InputError).endswith("(near: runs): make it")
    said = "there is no file or folder /qqq/www: check the path"
    assert refusal(lambda: check_there(Path("/qqq/www")), InputError) == said
    for wrong in ("rnus", "a/b/c", "../x", "./x", ".a/b"):
        assert "no Hub id" in refusal(lambda wrong=wrong: check_there(Path(wrong), hub=True), InputError)  # type: ignore[misc]
    assert missing(Path("tiny-gnd"), "host", ["tiny-gdn"]) == "there is no host tiny-gnd (near: tiny-gdn)"


def test_import_is_light() -> None:
    code = "import sys, writesae.disk; sys.exit(any(m in sys.modules for m in ('torch', 'numpy', 'pandas', 'pyarrow')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
