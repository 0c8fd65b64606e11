import json
from pathlib import Path

import numpy as np
import pytest
import zarr
from store_fakes import FakeHost, capture, relist, some_blocks

from writesae.errors import DataError, InputError
from writesae.store import open_store, verify
from writesae.types import Site

SHARD = "layers/4/update/c/1/0/0/0"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return capture(FakeHost(), some_blocks(), [4], tmp_path / "s", batch=4, progress=lambda *_: None).path


def test_a_whole_store_has_no_problem(root: Path) -> None:
    assert verify(root) == []


def test_a_missing_shard(root: Path) -> None:
    (root / SHARD).unlink()
    with pytest.raises(DataError, match=f"cut short: {SHARD} is missing"):
        open_store(root)
    assert verify(root) == [f"{SHARD} is missing"]


def test_a_shard_of_the_wrong_size(root: Path) -> None:
    data = (root / SHARD).read_bytes()
    (root / SHARD).write_bytes(data[:-5])
    with pytest.raises(DataError, match=f"{SHARD} has {len(data) - 5:,} bytes instead of {len(data):,}"):
        open_store(root)
    assert verify(root) == [f"{SHARD} has {len(data) - 5:,} bytes instead of {len(data):,}"]


def test_a_flipped_bit_is_found_by_verify_and_every_problem_is_listed(root: Path) -> None:
    data = bytearray((root / SHARD).read_bytes())
    data[100] ^= 1
    (root / SHARD).write_bytes(data)
    (root / "stray.txt").write_text("?")
    problems = verify(root)
    assert len(problems) == 2
    assert problems[0] == "stray.txt does not belong to the store"
    assert problems[1].startswith(f"{SHARD} has changed (SHA-256")


def test_garbage_in_a_shard_is_one_clear_error_on_reading(root: Path) -> None:
    size = (root / SHARD).stat().st_size
    (root / SHARD).write_bytes(b"\xff" * size)
    with pytest.raises(DataError, match=r"cannot read layers/4/update of the store"):
        open_store(root).read(Site(4, 0), 4, 8)


def test_a_missing_manifest_means_incomplete(root: Path) -> None:
    (root / "manifest.json").unlink()
    with pytest.raises(DataError, match="not complete: 0 of 4 shards"):
        open_store(root)
    assert verify(root) == ["manifest.json is missing: 0 of 4 shards are captured"]


def test_a_damaged_manifest(root: Path) -> None:
    text = (root / "manifest.json").read_text()
    (root / "manifest.json").write_text(text[: len(text) // 2])
    with pytest.raises(DataError, match="damaged manifest"):
        open_store(root)
    manifest = json.loads(text)
    manifest["files"][SHARD]["sha256"] = "0" * 64
    (root / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match="its hash or size does not fit"):
        open_store(root)
    assert len(verify(root)) == 1


def test_a_store_rewritten_with_wrong_arrays_is_found(root: Path) -> None:
    group = zarr.open_group(root, mode="a")
    array = group["layers/4/log_decay"]
    assert isinstance(array, zarr.Array)
    array[5, 7, 1, 0] = np.nan
    relist(root)
    assert verify(root) == ["layers/4/log_decay is not finite at sequence 5, position 7, head 1"]


def test_what_is_no_store_is_refused(root: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        open_store(tmp_path / "nowhere")
    with pytest.raises(InputError, match="is no stream store"):
        open_store(tmp_path)
    assert verify(tmp_path / "nowhere") == [f"{tmp_path / 'nowhere'} does not exist"]
    assert verify(tmp_path) == [f"{tmp_path} is no stream store"]
    metadata = json.loads((root / "zarr.json").read_text())
    metadata["attributes"]["writesae"]["version"] = 99
    (root / "zarr.json").write_text(json.dumps(metadata))
    with pytest.raises(DataError, match="not of the format writesae-streams version 1"):
        open_store(root)
