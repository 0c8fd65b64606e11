"""Push, pull and load through huggingface_hub, against a Hub on the local machine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from dictionaries import K, N, V, random_sae, same
from huggingface_hub import HfFileMetadata, constants, get_hf_file_metadata

from fake_hub import Hub, point_at, serve
from writesae.artifacts import add_to_collection, load_sae, read_collection, save_sae
from writesae.artifacts.collection import cell_path
from writesae.artifacts.hub import list_cells, pull, push, push_sae
from writesae.artifacts.verify import verify
from writesae.corpus import Fingerprint
from writesae.errors import DataError, InputError, OutputError, WritesaeError
from writesae.sae import Record, SAEConfig, TopK
from writesae.types import Site

CONFIG = SAEConfig(K, V, N, sparsity=TopK(5))
RECORD = Record(host="some/model", site=Site(9, 4), variant="writesae", seed=1)
FLAT = replace(RECORD, variant="flat")
ONE, TWO = random_sae(CONFIG, 1), random_sae(CONFIG, 2)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serve(Hub(), monkeypatch) as running:
        yield running


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def single(hub: Hub, cache: Path, tmp_path: Path) -> str:
    save_sae(ONE, tmp_path / "one", RECORD)
    hub.add_folder("me/single", tmp_path / "one")
    return "me/single"


@pytest.fixture
def many(hub: Hub, cache: Path, tmp_path: Path) -> str:
    add_to_collection(ONE, tmp_path / "many", RECORD)
    add_to_collection(TWO, tmp_path / "many", FLAT)
    hub.add_folder("me/many", tmp_path / "many")
    hub.add("me/many", {"evil.pt": b"x", "code.py": b"x"})
    return "me/many"


def test_one_line_loads_a_repository_of_one(single: str, hub: Hub) -> None:
    assert same(load_sae(single), ONE)
    assert sorted(hub.fetched) == ["config.json", "manifest.json", "weights.safetensors"]


def test_only_what_was_chosen_is_fetched_and_only_json_and_safetensors(many: str, hub: Hub) -> None:
    assert same(load_sae(many, site="L9.H4", variant="flat"), TWO)
    assert len(hub.fetched) == 4
    assert all(name == "collection.json" or "/flat-s1/" in name for name in hub.fetched)
    assert all(name.endswith((".json", ".safetensors")) for name in hub.fetched)


def test_a_second_load_fetches_nothing_and_works_offline(many: str, hub: Hub, cache: Path) -> None:
    load_sae(many, variant="flat")
    hub.fetched.clear()
    load_sae(many, variant="flat")
    assert same(load_sae(many, variant="flat", offline=True), TWO)
    assert hub.fetched == []
    with pytest.raises(InputError, match="not in the cache"):
        load_sae(many, variant="writesae", offline=True)


def test_the_cache_serves_while_the_hub_is_out_of_reach(
    many: str, single: str, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_sae(many, variant="flat")
    load_sae(single)
    point_at(hub, "http://127.0.0.1:9", monkeypatch)
    assert same(load_sae(many, variant="flat"), TWO)
    assert same(load_sae(single), ONE)


def test_an_unreachable_hub_is_one_line_with_the_cache_and_the_option(
    cache: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    point_at(hub, "http://127.0.0.1:9", monkeypatch)
    asked: list[str] = []

    def watched(url: str, timeout: float) -> HfFileMetadata:
        asked.append(url)
        return get_hf_file_metadata(url, timeout=timeout)

    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", watched)
    monkeypatch.setattr("huggingface_hub.file_download.get_hf_file_metadata", watched)
    with pytest.raises(InputError) as caught:
        load_sae("me/single")
    assert len(asked) == 1  # no second file is asked for, and nothing a second time
    (cache.parent / "thesis.txt").write_text("mine")
    with pytest.raises(OutputError, match="is not empty"):
        pull("me/single", cache.parent)
    with pytest.raises(InputError, match="L9"):
        pull("me/single", cache.parent / "new", site="L9")
    assert len(asked) == 1  # what is wrong here is seen before the Hub is asked
    assert str(cache) in str(caught.value)
    assert "--offline (or HF_HUB_OFFLINE=1)" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_offline_variable_is_respected(single: str, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    load_sae(single)
    hub.fetched.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert same(load_sae(single), ONE)
    with pytest.raises(InputError, match="not in the cache"):
        load_sae("me/other")
    assert hub.fetched == []


def test_a_revision_pins_what_is_loaded(single: str, hub: Hub, tmp_path: Path) -> None:
    old = hub.commit_id(single, 1)
    save_sae(TWO, tmp_path / "two", RECORD)
    hub.add_folder(single, tmp_path / "two")
    assert same(load_sae(single), TWO)
    assert same(load_sae(single, revision=old), ONE)
    with pytest.raises(InputError, match="me/single has no revision other"):
        load_sae(single, revision="other")


def test_repositories_that_hold_something_else(hub: Hub, cache: Path) -> None:
    hub.add("me/release", {"writesae_L9_H4/best.pt": b"x", "README.md": b"x"})
    with pytest.raises(InputError, match=r"neither collection\.json nor manifest\.json.*writesae convert"):
        load_sae("me/release")
    with pytest.raises(InputError, match="no folder me/nothing, and as a Hub id: there is no me/nothing on the Hub"):
        load_sae("me/nothing")
    assert hub.fetched == []


def test_a_hostile_repository_is_refused(many: str, hub: Hub, cache: Path) -> None:
    found = hub.find(many, "main")
    assert found is not None
    files = found[1]
    name = next(name for name in files if name.endswith("flat-s1/weights.safetensors"))
    hub.add(many, {name: files[name][:-1] + b"x"})
    with pytest.raises(DataError, match="has changed"):
        load_sae(many, variant="flat")
    manifest = name.replace("weights.safetensors", "manifest.json")
    hub.add(many, {name: files[name], manifest: files[manifest] + b" "})
    with pytest.raises(DataError, match=r"manifest\.json has"):
        load_sae(many, variant="flat")
    index = json.loads(files["collection.json"])
    for cell in index["cells"]:
        cell["path"] = "../../../outside"
    hub.add(many, {"collection.json": json.dumps(index).encode()})
    with pytest.raises(DataError, match="not a plain name"):
        load_sae(many, variant="flat")
    assert not list(cache.parent.rglob("outside*"))


def test_pull_makes_a_verified_folder(many: str, single: str, hub: Hub, tmp_path: Path) -> None:
    hub.add(many, {"results/summary.json": b"{}"})
    assert len(pull(many, tmp_path / "all")) == 2
    assert verify(tmp_path / "all").findings == ()
    assert same(load_sae(tmp_path / "all", variant="flat"), TWO)
    assert [cell.variant for cell in pull(many, tmp_path / "part", variant="flat")] == ["flat"]
    assert len(read_collection(tmp_path / "part").cells) == 1
    pull(single, tmp_path / "single")
    assert verify(tmp_path / "single").findings == ()
    assert not list(tmp_path.rglob("*.py"))
    assert not any(path.is_symlink() for path in (tmp_path / "all").rglob("*"))
    with pytest.raises(InputError, match="fits no dictionary"):
        pull(many, tmp_path / "none", site="L1.H1")
    assert not (tmp_path / "none").exists()
    with pytest.raises(OutputError, match="belongs to something else"):
        pull(many, tmp_path / "all")


def test_push_a_collection_and_load_it(hub: Hub, cache: Path, tmp_path: Path) -> None:
    add_to_collection(ONE, tmp_path / "many", RECORD)
    (tmp_path / "many" / "notes.txt").write_text("mine")
    assert "/commit/" in push(tmp_path / "many", "me/new")
    assert same(load_sae("me/new", site="L9.H4"), ONE)
    found = hub.find("me/new", "main")
    assert found is not None
    assert "notes.txt" not in found[1]
    assert "README.md" in found[1]


def test_cells_join_a_collection_that_is_there(hub: Hub, cache: Path, tmp_path: Path) -> None:
    push_sae(ONE, "me/new", RECORD)
    save_sae(TWO, tmp_path / "two", FLAT)
    push(tmp_path / "two", "me/new")
    assert [cell.variant for cell in list_cells("me/new")] == ["flat", "writesae"]
    assert same(load_sae("me/new", variant="writesae"), ONE)
    assert same(load_sae("me/new", variant="flat"), TWO)
    pull("me/new", tmp_path / "back")
    assert verify(tmp_path / "back").findings == ()


def test_push_a_single_dictionary(hub: Hub, cache: Path, tmp_path: Path) -> None:
    save_sae(ONE, tmp_path / "one", RECORD)
    push(tmp_path / "one", "me/one", private=True)
    assert same(load_sae("me/one", site="L9.H4"), ONE)
    assert [cell.path for cell in list_cells("me/one")] == ["."]


def test_a_dictionary_at_the_root_moves_into_the_collection_that_grows_there(
    hub: Hub, cache: Path, tmp_path: Path
) -> None:
    save_sae(ONE, tmp_path / "one", RECORD)
    push(tmp_path / "one", "me/one")
    save_sae(TWO, tmp_path / "two", FLAT)
    push(tmp_path / "two", "me/one")  # another: neither hides the first nor takes its place
    assert [cell.variant for cell in list_cells("me/one")] == ["flat", "writesae"]
    assert same(load_sae("me/one", variant="writesae"), ONE)
    assert same(load_sae("me/one", variant="flat"), TWO)
    found = hub.find("me/one", "main")
    assert found is not None
    assert {name for name in found[1] if "/" not in name} == {"README.md", "collection.json"}
    pull("me/one", tmp_path / "back")
    assert verify(tmp_path / "back").findings == ()


def test_the_same_dictionary_is_replaced_where_it_stands_alone_or_becomes_a_cell(
    hub: Hub, cache: Path, tmp_path: Path
) -> None:
    save_sae(ONE, tmp_path / "one", RECORD)
    save_sae(TWO, tmp_path / "again", RECORD)
    push(tmp_path / "one", "me/one")
    push(tmp_path / "again", "me/one")
    assert [cell.path for cell in list_cells("me/one")] == ["."]
    assert same(load_sae("me/one"), TWO)
    push(tmp_path / "one", "me/one", as_cell=True)
    (cell,) = list_cells("me/one")
    assert cell.path == cell_path(RECORD)
    assert same(load_sae("me/one"), ONE)


def test_the_dictionarys_own_methods(hub: Hub, cache: Path, tmp_path: Path) -> None:
    ONE.save(tmp_path / "mine", RECORD)
    assert same(load_sae(tmp_path / "mine"), ONE)
    ONE.push_to_hub("me/methods", RECORD)
    fetched = load_sae("me/methods", site="L9.H4")
    assert same(fetched, ONE)
    fetched.push_to_hub("me/again")  # no record given: its own
    assert [str(cell) for cell in list_cells("me/again")] == ["some/model L9.H4 writesae seed 1"]


def test_the_fingerprint_of_its_text_travels_along(hub: Hub, cache: Path, tmp_path: Path) -> None:
    known = replace(RECORD, text=Fingerprint.of(np.random.default_rng(0).integers(0, 97, (7, 101))))
    save_sae(ONE, tmp_path / "one", known)
    push(tmp_path / "one", "me/one")
    push(tmp_path / "one", "me/all", as_cell=True)
    load_sae("me/one").push_to_hub("me/again")
    pull("me/all", tmp_path / "back")
    pull("me/one", tmp_path / "alone")
    for place in ("me/one", "me/all", "me/again", tmp_path / "back", tmp_path / "alone"):
        record = load_sae(place).record
        assert record is not None
        assert record.text == known.text
    assert verify(tmp_path / "back").findings == verify(tmp_path / "alone").findings == ()


def test_damaged_folders_are_not_uploaded(hub: Hub, cache: Path, tmp_path: Path) -> None:
    save_sae(ONE, tmp_path / "one", RECORD)
    (tmp_path / "one" / "config.json").write_text("{}")
    with pytest.raises(DataError, match="is not uploaded"):
        push(tmp_path / "one", "me/one")
    assert hub.commits == {}


def test_what_is_no_dictionary_makes_no_repository(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def create_repo(*_: object, **__: object) -> None:
        raise AssertionError("a repository was made first")

    monkeypatch.setattr("huggingface_hub.HfApi.create_repo", create_repo)
    monkeypatch.setattr("writesae.artifacts.hub.verify", lambda _: SimpleNamespace(findings=()))  # a whole store
    save_sae(ONE, tmp_path / "one", RECORD)
    manifest = tmp_path / "one" / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"format": "writesae.store"}))
    with pytest.raises(WritesaeError):
        push(tmp_path / "one", "me/one")


def test_a_hub_that_refuses_an_upload(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_sae(ONE, tmp_path / "one", RECORD)
    point_at(hub, "http://127.0.0.1:9", monkeypatch)
    with pytest.raises(OutputError, match="cannot upload to me/one"):
        push(tmp_path / "one", "me/one")


def test_list_reads_folders_too(tmp_path: Path) -> None:
    add_to_collection(ONE, tmp_path / "many", RECORD)
    assert [str(cell) for cell in list_cells(tmp_path / "many")] == ["some/model L9.H4 writesae seed 1"]
    with pytest.raises(InputError, match="holds neither"):
        list_cells(tmp_path)
