"""Checkpoints that want to run code, write files or take the memory are refused by name, and do none of it."""

from __future__ import annotations

import fractions
import io
import operator
import os
import pickle
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from legacy_files import random_config, random_state, write_payload

from writesae.artifacts.legacy import convert_file, read_archive
from writesae.artifacts.legacy.inert import Inert
from writesae.artifacts.legacy.scan import STEP_LIMIT
from writesae.errors import InputError, WritesaeError

MEMORY = 256 << 20
"""Most bytes that refusing any of these files may take."""
MARK, STOP = b"(", b"."


def text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def name(module: str, attribute: str) -> bytes:
    return f"c{module}\n{attribute}\n".encode()


def called(module: str, attribute: str, *arguments: bytes) -> bytes:
    """The opcodes of `module.attribute(*arguments)`."""
    return name(module, attribute) + MARK + b"".join(arguments) + b"tR"


def stack_called(module: str, attribute: str, *arguments: bytes) -> bytes:
    """The same with the names taken from the stack, as protocol 4 does."""
    return text(module) + text(attribute) + b"\x93" + MARK + b"".join(arguments) + b"tR"


def storage(key: str = "0", count: int = 3, kind: str = "FloatStorage", module: str = "torch") -> bytes:
    return MARK + text("storage") + name(module, kind) + text(key) + text("cpu") + number(count) + b"tQ"


def number(value: int) -> bytes:
    data = value.to_bytes((value.bit_length() + 8) // 8 or 1, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def numbers(*values: int) -> bytes:
    return MARK + b"".join(number(value) for value in values) + b"t"


def tensor(stored: bytes, shape: tuple[int, ...], stride: tuple[int, ...], offset: int = 0) -> bytes:
    arguments = stored + number(offset) + numbers(*shape) + numbers(*stride) + b"\x89" + b"}"
    return called("torch._utils", "_rebuild_tensor_v2", arguments)


def archive(path: Path, body: bytes, entries: dict[str, bytes] | None = None, compress: bool = False) -> None:
    """A file of `torch.save`'s shape around any opcodes."""
    kind = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", kind) as file:
        file.writestr("a/data.pkl", b"\x80\x02" + body + STOP)
        file.writestr("a/version", b"3\n")
        for entry, data in (entries or {"a/data/0": bytes(12)}).items():
            file.writestr(entry, data)


MARKER = "executed"
TOUCH = f"touch {MARKER}"
PYTHON = f"open({MARKER!r}, 'w')"

CODE: dict[str, tuple[bytes, str]] = {
    "os.system": (called("os", "system", text(TOUCH)), "os.system"),
    "posix.system": (called("posix", "system", text(TOUCH)), "posix.system"),
    "os.system from the stack": (stack_called("os", "system", text(TOUCH)), "STACK_GLOBAL"),
    "builtins.eval": (called("builtins", "eval", text(PYTHON)), "builtins.eval"),
    "python 2 eval": (called("__builtin__", "eval", text(PYTHON)), "builtins.eval"),
    "builtins.exec": (called("builtins", "exec", text(PYTHON)), "builtins.exec"),
    "builtins.__import__": (called("builtins", "__import__", text("os")), "builtins.__import__"),
    "builtins.getattr": (called("builtins", "getattr", name("os", "path"), text("join")), "builtins.getattr"),
    "subprocess.Popen": (called("subprocess", "Popen", text(TOUCH)), "subprocess.Popen"),
    "importlib": (called("importlib", "import_module", text("os")), "importlib.import_module"),
    "pickle in a pickle": (called("pickle", "loads", text("cos\nsystem\n")), "pickle.loads"),
    "runpy": (called("runpy", "run_path", text("x.py")), "runpy.run_path"),
    "operator": (called("operator", "attrgetter", text("__class__")), "operator.attrgetter"),
    "functools": (called("functools", "partial", name("os", "system"), text(TOUCH)), "functools.partial"),
    "numpy": (called("numpy", "load", text("x.npy")), "numpy.load"),
    "numpy distutils": (called("numpy.testing._private.utils", "runstring", text(PYTHON), b"}"), "runstring"),
    "torch.load": (called("torch", "load", text("x.pt")), "torch.load"),
    "torch.save": (called("torch", "save", text("x"), text(MARKER)), "torch.save"),
    "torch.hub.load": (called("torch.hub", "load", text("a/b"), text("c")), "torch.hub.load"),
    "torch.serialization": (called("torch.serialization", "load", text("x.pt")), "torch.serialization.load"),
    "torch cpp extension": (called("torch.utils.cpp_extension", "load", text("x")), "torch.utils.cpp_extension.load"),
    "torch.jit": (called("torch.jit", "load", text("x")), "torch.jit.load"),
    "torch.fx codegen": (called("torch.fx.graph_module", "_exec_with_source", text(PYTHON), b"}"), "_exec_with_source"),
    "torch storage file": (
        called("torch", "UntypedStorage.from_file", text(MARKER), b"\x88", number(1 << 20)),
        "UntypedStorage.from_file",
    ),
    "torch.nn.Module.__setstate__": (called("torch.nn.modules.module", "Module.__setstate__", b"}"), "Module"),
    "a foreign function": (called("some_package", "run", text(TOUCH)), "calls some_package.run"),
    "a foreign class with arguments": (name("some_package", "Run") + text(TOUCH) + b"\x85\x81", "with arguments"),
    "a foreign class with keywords": (
        name("some_package", "Run") + b")" + b"}" + text("a") + b"Ns" + b"\x92",
        "NEWOBJ_EX",
    ),
    "nested in an allowed call": (
        called("collections", "OrderedDict", b"]" + called("os", "system", text(TOUCH)) + b"a"),
        "os.system",
    ),
    "nested in a tensor": (
        called("torch._utils", "_rebuild_parameter", called("os", "system", text(TOUCH)), b"\x88", b"}"),
        "os.system",
    ),
    "nested in a state": (
        name("some_package", "Thing") + b")\x81" + called("builtins", "eval", text(PYTHON)) + b"b",
        "builtins.eval",
    ),
    "the result of a call": (called("collections", "OrderedDict") + MARK + b"tR", "unrecognized function OrderedDict"),
    "old instance": (MARK + text(TOUCH) + b"ios\nsystem\n", "INST 'os system'"),
    "old object": (MARK + name("os", "system") + text(TOUCH) + b"o", "os.system"),
    "extension code": (b"\x82\x01", "EXT1"),
    "new instance of os.system": (name("os", "system") + b")\x81", "os.system"),
    "new instance of an allowed function": (
        name("torch._utils", "_rebuild_tensor_v2") + b")\x81",
        "not a type object",
    ),
    "state of a function": (name("torch._utils", "_rebuild_tensor_v2") + b"}" + b"b", "Can only build"),
    "a reconstructor of something else": (
        called("copyreg", "_reconstructor", name("a", "B"), name("builtins", "dict"), b"}"),
        "copyreg._reconstructor",
    ),
    "a method in a container": (
        called("collections", "OrderedDict") + b"}" + text("items") + name("a", "B") + b"s" + b"b",
        "in place of a method",
    ),
    "a method in a tensor": (
        called(
            "torch._utils",
            "_rebuild_parameter_with_state",
            tensor(storage(), (3,), (1,)) + b"\x88" + called("collections", "OrderedDict"),
            b"}" + text("detach") + name("a", "B") + b"s",
        ),
        "in place of a method",
    ),
    "a change of nothing": (b"N" + b"}" + b"b", "changes a value that holds nothing"),
    "persistent name": (b"Pcommand\n", "PERSID"),
    "persistent object": (text("x") + b"Q", "persistent_load id must be tuple"),
    "a storage of objects": (storage(kind="UntypedStorage"), "UntypedStorage"),
    "a storage of another module": (storage(module="os", kind="FloatStorage"), "os.FloatStorage"),
    "a storage outside": (storage(key="../../x"), "torch refuses it"),
    "buffers": (b"\x97", "NEXT_BUFFER"),
    "a dotted name": (name("collections", "OrderedDict.__init__.__globals__"), "__globals__"),
    "a name with spaces": (name("some package", "x y"), "some.package x y"),
    "an unhashable key": (b"}" + b"]" + b"Ns", "unhashable"),
    "a deep key": (b"}" + b")" + b"\x85" * 100_000 + b"Ns", "as a key"),
    "a key of many parts": (b"}" + b")" + b"q\x00h\x00\x86" * 60 + b"Ns", "as a key"),
    "a deep member": (called("builtins", "set", b"]" + b")" + b"\x85" * 100_000 + b"a"), "as a key"),
    "an empty stack": (b"R", "damaged or cut short"),
    "a group taken apart": (b"N" + MARK + b"R", "takes more from its stack"),
    "an unopened group": (b"t", "damaged or cut short"),
    "an unknown memo": (b"h\x07", "damaged or cut short"),
}

SIZES: dict[str, tuple[bytes, str]] = {
    "huge storage": (tensor(storage(count=1 << 40), (1 << 40,), (1,)), "torch refuses it"),
    "huge tensor": (tensor(storage(), (1 << 20, 1 << 20), (1 << 20, 1)), "torch refuses it"),
    "huge expanded tensor": (tensor(storage(), (1 << 20, 1 << 20), (0, 0)), "does not fit into its storage"),
    "offset beyond": (tensor(storage(), (3,), (1,), 1), "torch refuses it"),
    "negative stride": (tensor(storage(), (3,), (-1,), 2), "torch refuses it"),
    "negative offset": (tensor(storage(), (3,), (1,), -1), "torch refuses it"),
    "many axes": (tensor(storage(), (1,) * 99, (1,) * 99), "does not fit into its storage"),
    "missing storage": (tensor(storage(key="7"), (3,), (1,)), "torch refuses it"),
    "another storage": (tensor(storage(count=2), (2,), (1,)), "declares 8 bytes, which the file does not hold"),
    "a large array": (called("builtins", "bytearray", number(1 << 40)), "builtins.bytearray"),
    "a large tensor": (called("torch", "FloatTensor", number(1 << 40)), "torch.FloatTensor"),
    "huge memo index": (b"Nr\xff\xff\xff\xff", ""),
    "huge text": (b"X\xff\xff\xff\x7f" + b"abc", "damaged or cut short"),
    "huge long": (b"\x8b\xff\xff\xff\x7f" + b"abc", "damaged or cut short"),
    "huge frame": (b"\x95" + struct.pack("<Q", 1 << 60) + b"N", ""),
    "many objects": (b"}" * (STEP_LIMIT + 10), "more than 500,000 operations"),
    "copies of a large set": (
        b"]" + MARK + b"".join(number(n) for n in range(1000)) + b"e" + b"q\x00"
        + b"".join(called("builtins", "set", b"h\x00") for _ in range(1000)),
        "more than 500,000 operations",
    ),
    "copies of a large state": (
        b"}" + MARK + b"".join(number(n) + b"N" for n in range(100_000)) + b"u" + b"q\x00"
        + b"".join(name("a", "B") + b")\x81h\x00b" for _ in range(1000)),
        "more than 500,000 operations",
    ),
    "copies of a long text": (
        text("a" * 1_000_000) + b"q\x00"
        + b"".join(called("_codecs", "encode", b"h\x00", text("latin1")) for _ in range(1000)),
        "more than 500,000 operations",
    ),
    "deep nesting": (b"]" * 50_000 + b"a" * 49_999, ""),
}  # fmt: skip


def refused(path: Path, read: Callable[[Path], object] = read_archive) -> str:
    """The one-line error of a file; fails where reading it succeeds, takes memory or writes anything."""
    before = sorted(path.parent.iterdir())
    tracemalloc.start()
    try:
        with pytest.raises(WritesaeError) as caught:
            read(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert sorted(path.parent.iterdir()) == before
    assert not Path(MARKER).exists()
    assert peak < MEMORY
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    assert len(message) < 600
    return message


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "x.pt"


@pytest.mark.parametrize("kind", list(CODE))
def test_code_is_refused_by_name(kind: str, path: Path) -> None:
    body, message = CODE[kind]
    archive(path, body)
    assert message in refused(path)


@pytest.mark.parametrize(
    "kind", ["os.system", "builtins.eval", "nested in an allowed call", "torch.load", "old object"]
)
def test_code_in_the_older_container_is_refused_by_name(kind: str, path: Path) -> None:
    body, message = CODE[kind]
    buffer = io.BytesIO()
    torch.save({}, buffer, _use_new_zipfile_serialization=False)
    head = buffer.getvalue()[: buffer.getvalue().index(pickle.dumps({}, 2))]
    path.write_bytes(head + b"\x80\x02" + body + STOP)
    assert message in refused(path)


def test_the_marker_would_be_seen(path: Path) -> None:
    archive(path, CODE["os.system"][0])
    with zipfile.ZipFile(path) as file:
        pickle.loads(file.read("a/data.pkl"))
    assert Path(MARKER).exists()


@pytest.mark.parametrize("kind", list(SIZES))
def test_sizes_are_bounded(kind: str, path: Path) -> None:
    body, message = SIZES[kind]
    archive(path, body)
    assert message in refused(path, convert_file)


def test_tensors_of_the_older_container_are_bounded(path: Path) -> None:
    torch.save({"V_enc": torch.zeros(3)}, path, _use_new_zipfile_serialization=False)
    whole = path.read_bytes()
    (place,) = (n for n in range(len(whole)) if whole.startswith(b"K\x00K\x03\x85", n))
    path.write_bytes(whole[:place] + b"K\x00" + number(1 << 30) + b"\x85" + whole[place + 5 :])
    refused(path)


def test_storages_that_the_older_container_does_not_list_are_not_left_as_memory_was(path: Path) -> None:
    torch.save({"V_enc": torch.zeros(3)}, path, _use_new_zipfile_serialization=False)
    whole = path.read_bytes()
    listed = whole.rindex(b"\x80\x02]")
    path.write_bytes(whole[:listed] + pickle.dumps([], 2))
    assert "does not fit its tensors" in refused(path)


def test_names_that_the_process_trusts_are_not_trusted_here(path: Path) -> None:
    archive(path, called("operator", "attrgetter", text("__class__")))
    with torch.serialization.safe_globals([operator.attrgetter]):
        assert "operator.attrgetter" in refused(path)
    archive(path, name("fractions_of_ours", "Thing") + b")\x81}b")
    with torch.serialization.safe_globals([(fractions.Fraction, "fractions_of_ours.Thing")]):
        trusted = set(torch.serialization.get_safe_globals())
        assert isinstance(read_archive(path), Inert)
        assert set(torch.serialization.get_safe_globals()) == trusted


def test_a_tensor_that_differs_from_its_check_sum_is_refused(path: Path) -> None:
    write_payload(path, random_state("bilinear"), random_config("bilinear"))
    with zipfile.ZipFile(path) as file:
        largest = max((entry for entry in file.infolist() if "/data/" in entry.filename), key=lambda e: e.file_size)
        data = file.read(largest)
    whole = bytearray(path.read_bytes())
    whole[whole.index(data, largest.header_offset)] ^= 1
    path.write_bytes(whole)
    assert "check sum" in refused(path)


def test_a_huge_pickle_is_not_read(path: Path) -> None:
    archive(path, b"N" * (17 << 20))
    assert "its pickle is larger than" in refused(path)


ZIPS: dict[str, tuple[dict[str, bytes], str]] = {
    "traversal": ({"a/../../evil": b"x"}, "outside of it"),
    "absolute": ({"/etc/evil": b"x"}, "outside of it"),
    "windows": ({"a\\..\\evil": b"x"}, "outside of it"),
    "drive": ({"C:/evil": b"x"}, "outside of it"),
    "two pickles": ({"b/data.pkl": b"N."}, "holds 2 data.pkl"),
    "big-endian": ({"a/byteorder": b"big"}, "not little-endian"),
}


@pytest.mark.parametrize("kind", list(ZIPS))
def test_archives_with_odd_names_are_refused(kind: str, path: Path) -> None:
    entries, message = ZIPS[kind]
    archive(path, b"N", entries)
    assert message in refused(path)


def test_a_compressed_archive_is_refused_before_it_is_unpacked(path: Path) -> None:
    archive(path, b"N" * 1000, {"a/data/0": bytes(200 << 20)}, compress=True)
    assert path.stat().st_size < 1 << 20
    assert "compressed or larger than the file" in refused(path)


def test_an_archive_with_a_link_is_refused(path: Path) -> None:
    archive(path, b"N")
    with zipfile.ZipFile(path, "a") as file:
        entry = zipfile.ZipInfo("a/link")
        entry.external_attr = 0o120777 << 16
        file.writestr(entry, "/etc/passwd")
    assert "has a link" in refused(path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_archive_with_a_name_twice_is_refused(path: Path) -> None:
    archive(path, b"N", {"a/data/0": b"x"})
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("a/data/0", b"y")
    assert "two entries" in refused(path)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "row"])
def test_files_cut_anywhere_are_refused(zipped: bool, path: Path) -> None:
    write_payload(path, random_state("bilinear"), random_config("bilinear"), zipped=zipped)
    whole = path.read_bytes()
    for length in [*range(0, len(whole), len(whole) // 40), len(whole) - 1]:
        path.write_bytes(whole[:length])
        refused(path, convert_file)


def test_flipped_bytes_never_escape_as_another_error(path: Path) -> None:
    write_payload(path, random_state("bilinear"), random_config("bilinear"))
    whole = path.read_bytes()
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        place = int(torch.randint(len(whole), (), generator=generator))
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :])
        try:
            convert_file(path)
        except WritesaeError:
            continue


def test_what_is_no_checkpoint_at_all(path: Path) -> None:
    path.write_bytes(b"hello")
    assert "not a checkpoint written by torch.save" in refused(path)
    path.write_bytes(pickle.dumps({"a": 1}))
    assert "bare pickle" in refused(path)
    path.unlink()
    path.mkdir()
    assert "not a regular file" in refused(path)
    path.rmdir()
    os.mkfifo(path)
    assert "not a regular file" in refused(path)
    path.unlink()
    with pytest.raises(InputError, match="cannot read"):
        read_archive(path)


def test_error_lines_do_not_repeat_what_the_file_says_at_length(path: Path) -> None:
    archive(path, name("m" * 10_000, "f" * 10_000))
    assert "neither a tensor nor a record" in refused(path)
