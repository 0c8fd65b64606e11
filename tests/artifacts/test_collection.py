"""Many dictionaries under one index."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from dictionaries import K, N, V, random_sae, same

from writesae.artifacts import add_to_collection, load_sae, read_collection, write_index
from writesae.artifacts.collection import cell_path
from writesae.errors import DataError, InputError, OutputError
from writesae.sae import Record, SAEConfig, TopK
from writesae.types import Site

CONFIG = SAEConfig(K, V, N, sparsity=TopK(5))
BASE = Record(host="some/model", site=Site(9, 4), variant="writesae", seed=1)
RECORDS = [
    BASE,
    replace(BASE, seed=2),
    replace(BASE, variant="flat"),
    replace(BASE, site=Site(9, 5)),
    replace(BASE, host="other/model", site=Site(1, 0)),
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for seed, record in enumerate(RECORDS):
        add_to_collection(random_sae(CONFIG, seed), tmp_path / "all", record)
    return tmp_path / "all"


def test_every_cell_is_found_by_what_it_is(root: Path) -> None:
    assert len(read_collection(root).cells) == len(RECORDS)
    for seed, record in enumerate(RECORDS):
        found = load_sae(root, host=record.host, site=record.site, variant=record.variant, seed=record.seed)
        assert same(found, random_sae(CONFIG, seed))
    assert same(load_sae(root, site="L1.H0"), random_sae(CONFIG, 4))


def test_an_ambiguous_or_empty_choice_lists_what_there_is(root: Path) -> None:
    with pytest.raises(
        InputError, match=r"site=L9\.H4 fits several .* some/model L9\.H4 writesae seed 1; some/model L9"
    ):
        load_sae(root, site="L9.H4")
    with pytest.raises(InputError, match=r"no choice fits several"):
        load_sae(root)
    with pytest.raises(InputError, match=r"fits no dictionary .* other/model L1\.H0"):
        load_sae(root, variant="matrix")
    with pytest.raises(InputError, match=r"not written like L9\.H4"):
        load_sae(root, site="9.4")


def test_the_index_can_be_made_again(root: Path) -> None:
    before = read_collection(root)
    (root / "collection.json").unlink()
    assert write_index(root) == before == read_collection(root)


def test_a_cell_is_replaced_only_when_asked(root: Path) -> None:
    with pytest.raises(OutputError, match="already holds"):
        add_to_collection(random_sae(CONFIG, 9), root, BASE)
    add_to_collection(random_sae(CONFIG, 9), root, BASE, replace=True)
    assert same(load_sae(root, variant="writesae", seed=1, site="L9.H4"), random_sae(CONFIG, 9))


@pytest.mark.parametrize("host", ["../../etc", "/abs/olute", "a/../b", "", "..", "C:\\x", "a\0b"])
def test_no_name_leads_out_of_the_collection(host: str) -> None:
    path = cell_path(Record(host=host, variant=host))
    assert ".." not in path.split("/")
    assert not path.startswith("/")
    assert len(path.split("/")) == 3


def test_the_card_has_a_row_for_each(root: Path) -> None:
    card = (root / "README.md").read_text()
    assert card.count("| state |") == len(RECORDS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": "2.0"}, "install a newer writesae"),
        ({"format": "x"}, "is not a writesae.collection"),
        ({"cells": 3}, r"expected tuple @ Collection\.cells$"),
        ({"cells": [3]}, r"expected Cell @ Collection\.cells\[0\]"),
        ({"cells": [{"path": "x"}]}, r"missing @ Collection\.cells\[0\]\.manifest"),
        ({"invented": 1}, "extra fields found .invented."),
    ],
)
def test_a_wrong_index_is_refused(change: dict[str, object], message: str, root: Path) -> None:
    data = json.loads((root / "collection.json").read_text())
    (root / "collection.json").write_text(json.dumps(data | change))
    with pytest.raises(DataError, match=message):
        read_collection(root)


def test_a_newer_minor_index_loads(root: Path) -> None:
    data = json.loads((root / "collection.json").read_text())
    (root / "collection.json").write_text(json.dumps(data | {"version": "1.7", "invented": 1}))
    assert len(read_collection(root).cells) == len(RECORDS)


def test_an_index_that_points_outside_is_refused(root: Path) -> None:
    (root / "some--model" / "L9.H4" / "writesae-s1").rename(root.parent / "outside")
    data = json.loads((root / "collection.json").read_text())
    for cell in data["cells"]:
        cell["path"] = "../outside"
    (root / "collection.json").write_text(json.dumps(data))
    with pytest.raises(DataError, match="not a plain name"):
        load_sae(root, site="L1.H0")


def test_a_cell_that_is_a_link_is_refused(root: Path) -> None:
    cell = root / "other--model" / "L1.H0" / "writesae-s1"
    cell.rename(root.parent / "outside")
    cell.symlink_to(root.parent / "outside")
    with pytest.raises(DataError, match="link that leads out"):
        load_sae(root, site="L1.H0")
