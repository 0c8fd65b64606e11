"""Stores that are damaged or made to harm are refused in one line, by opening, reading and verifying them."""

from __future__ import annotations

import json
import random
import shutil
import struct
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pytest
import zarr
from store_fakes import FakeHost, capture, relist, some_blocks

from writesae.disk import FileEntry
from writesae.errors import DataError, OutputError, WritesaeError
from writesae.store import StreamStore, open_store, verify
from writesae.types import Site

SHARD = "layers/4/update/c/1/0/0/0"
OLD = Path(__file__).parent / "version1.zarr"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("made") / "s"
    return capture(FakeHost(), some_blocks(), [4], out, batch=4, progress=lambda *_: None).path


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "s")
    return tmp_path / "s"


def read_all(root: Path) -> StreamStore:
    """Everything that training and evaluations read."""
    store = open_store(root)
    _ = store.tokens(), store.document(), store.padding(), store.documents, store.twins, store.text, repr(store)
    for head in range(3):
        store.read(Site(4, head), 0, store.sequences)
    return store


def change(path: Path, edit: Callable[[Any], object]) -> None:
    data = json.loads(path.read_text())
    edit(data)
    path.write_text(json.dumps(data))


def codecs(data: Any) -> Any:
    return data["codecs"][0]["configuration"]["codecs"]


METADATA: dict[str, Callable[[Any], object]] = {
    "an unknown codec": lambda d: codecs(d).__setitem__(1, {"name": "mine", "configuration": {}}),
    "another codec": lambda d: codecs(d).__setitem__(1, {"name": "gzip", "configuration": {"level": 1}}),
    "a filter": lambda d: codecs(d).insert(0, {"name": "numcodecs.delta", "configuration": {"dtype": "<f2"}}),
    "pickles": lambda d: codecs(d).__setitem__(1, {"name": "numcodecs.pickle", "configuration": {}}),
    "no checksum": lambda d: codecs(d).pop(),
    "the other byte order": lambda d: codecs(d)[0]["configuration"].update(endian="big"),
    "no shards": lambda d: d.update(codecs=codecs(d)),
    "shards in shards": lambda d: codecs(d).__setitem__(0, deepcopy(d["codecs"][0])),
    "codecs that are none": lambda d: d.update(codecs={"name": "bytes"}),
    "a chunk of 0": lambda d: d["codecs"][0]["configuration"].update(chunk_shape=[0, 11, 1, 7]),
    "a shard of 0": lambda d: d["chunk_grid"]["configuration"].update(chunk_shape=[0, 11, 3, 7]),
    "a negative shape": lambda d: d.update(shape=[-13, 11, 3, 7]),
    "another shape": lambda d: d.update(shape=[13, 11, 3, 5]),
    "a large shape": lambda d: d.update(shape=[13, 10**18, 3, 7]),
    "no shape": lambda d: d.pop("shape"),
    "objects": lambda d: d.update(data_type="object"),
    "a struct": lambda d: d.update(data_type={"name": "structured", "configuration": {"fields": [["a", "int8"]]}}),
    "texts": lambda d: d.update(data_type="string"),
    "another type": lambda d: d.update(data_type="float64"),
    "another grid": lambda d: d["chunk_grid"].update(name="rectilinear"),
    "other names of chunks": lambda d: d.update(chunk_key_encoding={"name": "v2", "configuration": {"separator": "."}}),
    "another fill value": lambda d: d.update(fill_value="NaN"),
    "a transformer": lambda d: d.update(storage_transformers=[{"name": "x"}]),
    "another key": lambda d: d.update(x={"must_understand": True}),
    "a group": lambda d: d.update(node_type="group"),
    "version 2 of Zarr": lambda d: d.update(zarr_format=2),
    "attributes that are none": lambda d: d.update(attributes=3),
}


@pytest.mark.parametrize("name", METADATA)
def test_only_arrays_as_we_write_them_are_opened(name: str, root: Path) -> None:
    change(root / "layers/4/update/zarr.json", METADATA[name])
    relist(root)
    with pytest.raises(DataError, match=r"the array layers/4/update of .* none that a capture writes") as stop:
        read_all(root)
    assert "\n" not in str(stop.value)
    assert len(str(stop.value)) < 700
    assert verify(root) == [str(stop.value)]


def header(**values: object) -> Callable[[Any], object]:
    return lambda d: d["attributes"]["writesae"].update(values)


HEADERS: dict[str, tuple[str, Callable[[Any], object]]] = {
    "10^300 sequences": ("zarr.json", header(sequences=10**300)),
    "10^30 sequences": ("zarr.json", header(sequences=10**30)),
    "10^12 sequences": ("zarr.json", header(sequences=10**12)),
    "more sequences": ("zarr.json", header(sequences=17)),
    "no sequences": ("zarr.json", header(sequences=0)),
    "length 0": ("zarr.json", header(length=0)),
    "length -1": ("zarr.json", header(length=-1)),
    "length 10^12": ("zarr.json", header(length=10**12)),
    "length 10^6": ("zarr.json", header(length=10**6)),
    "a length that is text": ("zarr.json", header(length="11")),
    "layers -1": ("zarr.json", header(layers=[-1])),
    "no layers": ("zarr.json", header(layers=[])),
    "another layer": ("zarr.json", header(layers=[5])),
    "a layer twice": ("zarr.json", header(layers=[4, 4])),
    "10^12 a batch": ("zarr.json", header(batch=10**12)),
    "no batch": ("zarr.json", header(batch=0)),
    "another type": ("zarr.json", header(dtype="object")),
    "another key": ("zarr.json", header(x=1)),
    "version 1": ("zarr.json", header(version=1)),
    "version true": ("zarr.json", header(version=True)),
    "a list as version": ("zarr.json", header(version=[1])),
    "consolidated metadata": ("zarr.json", lambda d: d.update(consolidated_metadata={"metadata": {}})),
    "attributes that are none": ("zarr.json", lambda d: d.update(attributes=[])),
    "another key size": ("layers/4/zarr.json", header(d_k=9)),
    "no heads": ("layers/4/zarr.json", header(heads=0)),
    "10^9 heads": ("layers/4/zarr.json", header(heads=10**9)),
    "65,536 heads": ("layers/4/zarr.json", header(heads=2**16)),
    "an array that is missing": ("layers/4/zarr.json", header(erase="own")),
    "an array too many": ("layers/4/zarr.json", header(erase="none")),
    "no layer": ("layers/4/zarr.json", lambda d: d.clear()),
    "no documents": ("document/zarr.json", lambda d: d.update(attributes={})),
    "documents that are numbers": ("document/zarr.json", lambda d: d["attributes"].update(names=[1, 2])),
    "too few documents": ("document/zarr.json", lambda d: d["attributes"].update(names=["first"])),
    "twins that are none": ("document/zarr.json", lambda d: d["attributes"].update(twins=[["a"]])),
}


@pytest.mark.filterwarnings("ignore:.*has no checksums")
@pytest.mark.parametrize("name", HEADERS)
def test_headers_that_disagree_are_refused(name: str, root: Path) -> None:
    file, edit = HEADERS[name]
    change(root / file, edit)
    relist(root)
    with pytest.raises(WritesaeError) as stop:
        read_all(root)
    assert "\n" not in str(stop.value)
    assert len(str(stop.value)) < 700
    assert verify(root)


def listed(edit: Callable[[dict[str, FileEntry]], object]) -> Callable[[Path], None]:
    def change_manifest(root: Path) -> None:
        relist(root, edit)

    return change_manifest


def shown_elsewhere(root: Path) -> None:
    outside = root.parent / "outside"
    shutil.move(root / SHARD, outside)
    (root / SHARD).symlink_to(outside)


def a_device(root: Path) -> None:
    (root / SHARD).unlink()
    (root / SHARD).symlink_to("/dev/zero")


def a_link(root: Path) -> None:
    (root / "layers").rename(root.parent / "layers")
    (root / "layers").symlink_to("../layers")


PLACES: dict[str, Callable[[Path], None]] = {
    "no files": listed(lambda files: files.clear()),
    "files elsewhere": listed(lambda files: files.update({"../outside": files.pop(SHARD)})),
    "an absolute name": listed(lambda files: files.update({"/etc/passwd": files[SHARD]})),
    "a name of 5,000 characters": listed(lambda files: files.update({"x" * 5000: files[SHARD]})),
    "half of a character": listed(lambda files: files.update({"\ud800": files[SHARD]})),
    "a name that looks like another": listed(lambda files: files.update({SHARD.replace("a", "\u0430"): files[SHARD]})),
    "a shard too few": listed(lambda files: files.pop(SHARD)),
    "one too many": listed(lambda files: files.update({"layers/4/update/c/9/0/0/0": files[SHARD]})),
    "a link": shown_elsewhere,
    "a device": a_device,
    "a link as a folder": a_link,
}


@pytest.mark.parametrize("name", PLACES)
def test_only_the_files_of_a_capture_are_read(name: str, root: Path) -> None:
    PLACES[name](root)
    with pytest.raises(DataError) as stop:
        read_all(root)
    assert "\n" not in str(stop.value)
    assert verify(root)


def test_a_flipped_bit_is_found_on_reading(root: Path) -> None:
    """200 in all files of chunks."""
    draw = random.Random(0)
    files = sorted(path for path in root.rglob("c/**/*") if path.is_file())
    before = {path: path.read_bytes() for path in files}
    for _ in range(200):
        path = draw.choice(files)
        data = bytearray(before[path])
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        path.write_bytes(data)
        with pytest.raises(DataError, match="cannot read"):
            read_all(root)
        path.write_bytes(before[path])


@pytest.mark.parametrize("size", [0, 1, 4 << 30, 2**31 - 17])
def test_a_chunk_that_claims_another_size_is_refused_before_it_is_unpacked(size: int, root: Path) -> None:
    data = bytearray((root / SHARD).read_bytes())
    start, length = struct.unpack("<QQ", data[-4 - 3 * 16 : -4 - 2 * 16])  # of the first of three chunks
    data[start + 4 : start + 8] = struct.pack("<I", size % 2**32)
    data[start + length - 4 : start + length] = struct.pack(
        "<I", google_crc32c.value(bytes(data[start : start + length - 4]))
    )
    (root / SHARD).write_bytes(data)
    with pytest.raises(DataError, match=rf"a chunk claims {size % 2**32} bytes where it has 616"):
        read_all(root)


@pytest.mark.parametrize("name", ["tokens/c/0/0", "document/c/0"])
def test_a_chunk_of_tokens_that_claims_more_is_refused(name: str, root: Path) -> None:
    frame = b"\x28\xb5\x2f\xfd" + bytes([0xC0 | 1 << 5]) + struct.pack("<Q", 1 << 40) + bytes(20)
    (root / name).write_bytes(frame + struct.pack("<I", google_crc32c.value(frame)))
    relist(root)
    with pytest.raises(DataError, match=f"a chunk claims {1 << 40} bytes"):
        read_all(root)


def test_everybody_elses_arrays_are_opened_by_zarr(tmp_path: Path) -> None:
    array = zarr.create_array(tmp_path / "a", data=np.arange(97), compressors=zarr.codecs.BloscCodec())
    assert type(array.metadata.codecs[1]) is zarr.codecs.BloscCodec  # type: ignore[union-attr]


def test_a_store_of_version_1_is_read_with_a_note(made: Path) -> None:
    with pytest.warns(UserWarning, match="has no checksums: only `writesae verify` finds flipped bits"):
        old = open_store(OLD)
    new = open_store(made)
    for head in range(3):
        one, other = (store.read(Site(4, head), 0, 13) for store in (old, new))
        assert all(bool((a == b).all()) for a, b in zip(one, other, strict=True) if a is not None and b is not None)
    assert (old.tokens() == new.tokens()).all()
    assert (old.documents, old.document().tolist()) == (new.documents, new.document().tolist())
    with pytest.warns(UserWarning, match="has no checksums"):
        assert verify(OLD) == []


@pytest.mark.filterwarnings("ignore:.*has no checksums")
def test_a_capture_finds_its_store_of_version_1(tmp_path: Path) -> None:
    shutil.copytree(OLD, tmp_path / "s")
    again = capture(FakeHost(), some_blocks(), [4], tmp_path / "s", batch=4, progress=lambda *_: None)
    assert again.provenance.version == 1
    (tmp_path / "s" / "manifest.json").unlink()
    with pytest.raises(OutputError, match="version is 1 there and 2 here"):
        capture(FakeHost(), some_blocks(), [4], tmp_path / "s", batch=4, progress=lambda *_: None)
