"""`verify` finds everything that is wrong and names the file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from dictionaries import K, N, V, random_sae
from safetensors.torch import load_file, save_file
from test_folder import RECORD, damage, relist

from writesae.artifacts import add_to_collection, load_sae, save_sae
from writesae.artifacts.verify import verify
from writesae.corpus import TokenBlocks
from writesae.errors import DataError, InputError
from writesae.hosts import Host
from writesae.sae import SAEConfig, TopK
from writesae.store import capture

CONFIG = SAEConfig(K, V, N, sparsity=TopK(5))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_sae(random_sae(CONFIG), tmp_path / "sae", RECORD)
    return tmp_path / "sae"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for variant in ("writesae", "flat"):
        add_to_collection(random_sae(CONFIG), tmp_path / "all", replace(RECORD, variant=variant))
    (tmp_path / "all" / "results").mkdir()
    return tmp_path / "all"


def problems(path: Path) -> list[str]:
    return [str(finding) for finding in verify(path).findings]


def test_a_whole_dictionary_and_a_whole_collection(folder: Path, root: Path) -> None:
    assert verify(folder).kind == "dictionary"
    assert problems(folder) == []
    assert verify(root).kind == "collection"
    assert problems(root) == []
    assert len(verify(root).checked) == 3


@pytest.mark.parametrize("name", list(damage(Path("folder"))))
def test_everything_that_loading_refuses_is_found(name: str, folder: Path) -> None:
    damage(folder)[name][0]()
    found = problems(folder)
    assert found
    assert all(str(folder) in line for line in found)


def test_what_is_not_finite_is_found_and_not_loaded(folder: Path) -> None:
    weights = folder / "weights.safetensors"
    tensors = load_file(weights)
    tensors["bias"][2, 3] = float("nan")
    tensors["b_enc"][:2] = float("inf")
    save_file(tensors, weights)
    relist(folder)
    (folder / "extra.bin").write_bytes(b"x")
    found = problems(folder)
    assert len(found) == 2
    assert "extra.bin: is not listed" in found[0]
    assert "NaN or infinity in 'b_enc, bias'" in found[1]
    with pytest.raises(DataError, match="NaN or infinity in 'b_enc, bias'"):
        load_sae(folder)


def test_a_changed_card_is_found_and_a_missing_one_is_not(folder: Path) -> None:
    (folder / "README.md").write_text("x")
    assert "README.md" in problems(folder)[0]
    (folder / "README.md").unlink()
    assert problems(folder) == []


LISTED: Any = {"results/x.json": {"sha256": "0" * 64, "size": 1}}
COLLECTION: dict[str, tuple[Callable[[Path], object], str]] = {
    "a cell is gone": (lambda root: shutil.rmtree(cell(root)), "missing or is not a regular file"),
    "a cell is not listed": (lambda root: shutil.copytree(cell(root), root / "other"), "is not listed in the index"),
    "a cell has changed": (
        lambda root: (cell(root) / "manifest.json").write_text("{}"),
        "bytes instead of",
    ),
    "a weight has changed": (lambda root: flip(cell(root) / "weights.safetensors"), "has changed"),
    "the index tells another site": (
        lambda root: index(root, lambda data: data["cells"][0].update(site="L1.H1")),
        "otherwise than its own",
    ),
    "the index leads outside": (
        lambda root: index(root, lambda data: data["cells"][0].update(path="../x")),
        "not a plain name",
    ),
    "a result is gone": (
        lambda root: index(root, lambda data: data.update(files=LISTED)),
        "results/x.json is missing",
    ),
    "the index is damaged": (lambda root: (root / "collection.json").write_text("["), "not valid JSON"),
}


def cell(root: Path) -> Path:
    return next(path.parent for path in sorted(root.rglob("manifest.json")))


def flip(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1] + b"\x7f")


def index(root: Path, change: Callable[[dict[str, list[dict[str, object]]]], object]) -> None:
    data = json.loads((root / "collection.json").read_text())
    change(data)
    (root / "collection.json").write_text(json.dumps(data))


@pytest.mark.parametrize("name", list(COLLECTION))
def test_damaged_collections(name: str, root: Path) -> None:
    act, message = COLLECTION[name]
    act(root)
    found = problems(root)
    assert any(message in line for line in found), found
    assert all(str(root) in line for line in found)


def test_results(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "summary.json").write_text('{"n": 3}')
    (run / "history.jsonl").write_text('{"step": 1}\n{"step": 2}\n')
    table = pa.table({"feature": [0, 3], "kl": [0.5, None], "list": [[1.0, 2.0], []]})
    pq.write_table(table, run / "records.parquet")
    save_file({"a": torch.ones(2)}, run / "data.safetensors")
    assert verify(run).kind == "results"
    assert problems(run) == []
    assert len(verify(run).checked) == 4
    (run / "summary.json").write_text('{"n": NaN}')
    (run / "history.jsonl").write_text('{"step": 1}\n{"step"')
    table = pa.table({"feature": [0, -3], "kl": [0.5, float("nan")], "list": [[1.0, float("inf")], []]})
    pq.write_table(table, run / "records.parquet")
    save_file({"a": torch.full((2,), float("nan"))}, run / "data.safetensors")
    (run / "cut.parquet").write_bytes((run / "records.parquet").read_bytes()[:-9])
    (run / ".x.partial").mkdir()
    (run / "link.json").symlink_to("/etc/passwd")
    found = problems(run)
    messages = ["NaN is not JSON", "line 2 is not valid JSON", "negative index -3", "kl holds 1 numbers"]
    messages += ["list holds 1 numbers", "infinity in 'a'", "cut.parquet: is not a readable Parquet"]
    messages += [".x.partial: is unfinished", "link.json: is a link"]
    for message in messages:
        assert any(message in line for line in found), (message, found)
    assert len(found) == 9


@pytest.mark.parametrize(("name", "least"), [("head", -1), ("layer", 0), ("feature", 0), ("token", 0)])
def test_a_head_of_minus_one_is_all_of_its_layer_and_no_other_index_is_negative(
    name: str, least: int, tmp_path: Path
) -> None:
    pq.write_table(pa.table({name: [least, 3]}), tmp_path / "records.parquet")
    assert problems(tmp_path) == []
    pq.write_table(pa.table({name: [3, least - 1]}), tmp_path / "records.parquet")
    (found,) = problems(tmp_path)
    assert f"column {name} holds the negative index {least - 1}" in found


def test_dictionaries_inside_a_run_are_checked(folder: Path) -> None:
    flip(folder / "weights.safetensors")
    assert "has changed" in problems(folder.parent)[0]


def test_stores_are_checked_by_their_own_rules(host: Host, passages: torch.Tensor, tmp_path: Path) -> None:
    names = tuple(str(number) for number in range(len(passages)))
    blocks = TokenBlocks(passages.numpy(), names, np.arange(len(passages)))
    store = capture(host, blocks, [1], tmp_path / "run" / "streams.zarr").path
    assert verify(store).kind == "store"
    assert problems(store.parent) == []
    shard = max((path for path in store.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    flip(shard)
    assert f"{shard.relative_to(store)} has changed" in problems(store.parent)[0]


def test_nothing_to_verify(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        verify(tmp_path / "none")
    with pytest.raises(InputError, match="holds no dictionary"):
        verify(tmp_path)
    (tmp_path / "x.txt").write_text("x")
    with pytest.raises(InputError, match="holds no dictionary"):
        verify(tmp_path / "x.txt")
