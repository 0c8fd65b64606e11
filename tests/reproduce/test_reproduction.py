"""A small reproduction from nothing to its page, gone on with, and refused."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import constants
from rich.console import Console

from fake_hub import Hub, serve
from writesae.artifacts import load_sae, read_collection
from writesae.artifacts.collection import RELEASE
from writesae.artifacts.hub import pull, push
from writesae.artifacts.verify import verify
from writesae.cli import main
from writesae.disk import files_under
from writesae.errors import DataError, OutputError
from writesae.reproduce import ReproduceConfig
from writesae.reproduce.claims import claims
from writesae.reproduce.page import headline, page
from writesae.reproduce.registration import FILE, kept, register
from writesae.reproduce.release import GROUPS, release
from writesae.reproduce.run import TABLE, reproduce
from writesae.reproduce.sizes import SIZES
from writesae.sae import Flat

SMALL = replace(
    SIZES["quick"], tokens=3_000, length=48, features=24, k=3, train_tokens=4_096, passages=4,
    layers=1, options={"sign": {"passages": 12}, "substitution": {"firings": 20}},
)  # fmt: skip
CLAIMS = ("substitution.pooled", "edit.sign", "readers", "hosts.rwkv7", "flat_svd", "sparsity_family", "spectral_audit")

CONFIG = ReproduceConfig(("tiny-gdn",), CLAIMS, quick=True, workers=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SIZES, "quick", SMALL)
        out = tmp_path_factory.mktemp("reproduction") / "out"
        register(CONFIG, out)
        reproduce(CONFIG, out)
    return out


def test_every_claim_has_a_number_or_a_reason(folder: Path) -> None:
    rows = json.loads((folder / TABLE).read_text())["rows"]
    assert list(dict.fromkeys(row["claim"] for row in rows)) == [
        "substitution.pooled", "edit.sign", "hosts.rwkv7", "flat_svd", "sparsity_family", "readers",
        "spectral_audit",
    ]  # fmt: skip
    plan = json.loads((folder / TABLE).read_text())["plan"]
    assert plan == {"sha256": json.loads((folder / FILE).read_text())["sha256"], "kept": True}
    for row in rows:
        assert row["value"] is not None or (row["verdict"] == "not comparable" and row["differs"])
    pooled = [row["what"] for row in rows if row["claim"] == "substitution.pooled"]
    assert pooled[0] == "read by state, after token"  # the published reading comes first
    assert {"read by increment, after token", "dictionary of writes, at token"} <= set(pooled)
    (elsewhere,) = [row for row in rows if row["claim"] == "hosts.rwkv7"]
    assert elsewhere["differs"] == "is about hosts of the family rwkv7"
    sparsities = [
        (row["what"].partition(",")[0], row["published"]) for row in rows if row["claim"] == "sparsity_family"
    ]
    assert sparsities == [("BatchTopK", 0.262), ("JumpReLU", 0.189)]  # each beside its own
    assert {row["verdict"] for row in rows if row["claim"] == "spectral_audit"} == {"ours alone"}


def test_the_same_call_reads_what_is_there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SIZES, "quick", SMALL)
    before = (folder / TABLE).read_bytes()
    files = {path: path.stat().st_mtime_ns for path in folder.rglob("*.parquet")}
    assert files
    rows = reproduce(CONFIG, folder)
    assert (folder / TABLE).read_bytes() == before
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.parquet")} == files
    text = page(rows, "quick sizes")
    assert text == page(rows, "quick sizes")
    for row in headline(rows):
        assert f'id="{row.claim}"' in text


def damaged(path: Path) -> None:
    """Change one byte in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


def test_what_is_damaged_is_named_and_made_again(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SIZES, "quick", SMALL)
    out = tmp_path / "out"
    shutil.copytree(folder, out)
    place = out / "tiny-gdn"
    before = (out / TABLE).read_bytes()
    chunk = max((place / "streams.zarr").rglob("c/*"), key=lambda path: path.stat().st_size if path.is_file() else 0)
    for path in (place / "train/writes-0/sae/weights.safetensors", chunk, place / "results/sign/records.parquet"):
        damaged(path)
    with (tmp_path / "said").open("w") as said:
        reproduce(CONFIG, out, Console(file=said, width=10_000))
    told = (tmp_path / "said").read_text()
    named = re.findall(r"damaged and made again: (\S+):", told)
    assert [str(Path(name).relative_to(place)) for name in named] == ["train/writes-0", "streams.zarr", "results/sign"]
    assert (out / TABLE).read_bytes() == before


def test_a_folder_of_other_settings(folder: Path) -> None:
    with pytest.raises(OutputError, match="belongs to another reproduction"):
        reproduce(ReproduceConfig(("tiny-gdn",), CLAIMS), folder)


def test_a_plan_is_written_before_anything_runs(folder: Path, tmp_path: Path) -> None:
    out, config = tmp_path / "out", ReproduceConfig(("tiny-gdn",), ("edit.sign",), quick=True)
    said = register(config, out)
    assert kept(config, out) == {"sha256": said, "kept": True}
    assert kept(replace(config, claims=("edit.erase",)), out) == {"sha256": said, "kept": False}
    (hypothesis,) = json.loads((out / FILE).read_text())["plan"]["hypotheses"]
    assert (hypothesis["published"], hypothesis["no effect"], hypothesis["rising"]) == (0.846, 0.5, True)
    for place in (out, folder):
        with pytest.raises(OutputError, match="before anything runs"):
            register(config, place)
    (out / FILE).write_text((out / FILE).read_text().replace("0.846", "0.546"))
    with pytest.raises(DataError, match="its hash does not fit"):
        kept(config, out)


@pytest.fixture(scope="module")
def released(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SIZES, "quick", SMALL)
        return release(CONFIG, folder, tmp_path_factory.mktemp("released") / "tree", reproduce(CONFIG, folder))


def test_a_release_is_whole_and_every_cell_opens(released: Path) -> None:
    assert verify(released).findings == ()
    names = {path.relative_to(released).as_posix() for path in files_under(released)}
    assert {*RELEASE, "collection.json", "README.md"} <= names
    cells = read_collection(released).cells
    site = str(cells[0].site)
    assert [cell.path for cell in cells] == [
        f"flat_baseline/tiny-gdn_{site}", f"writesae/tiny-gdn/{site}", f"writesae/tiny-gdn/{site}-writes"
    ]  # fmt: skip
    assert load_sae(released, site=site, variant="flat").config.decoder == Flat()
    assert load_sae(released, site=site, variant="writesae").config.target == "state"
    assert load_sae(released, site=site, variant="writesae-writes").config.target == "write-delta"
    groups = {name.split("/")[1] for name in names if name.startswith("results/")}
    assert groups == {"92pct_substitution", "partition", "edits", "flat_svd", "cross_architecture", "uniqueness"}
    listed = json.loads((released / "manifest.json").read_text())["files"]
    assert {one["path"] for one in listed} <= names
    assert all(one["description"] and one["size"] == (released / one["path"]).stat().st_size for one in listed)
    assert "beats deleting the write" in (released / "MODEL_CARD.md").read_text()
    assert set(GROUPS) >= groups


def test_every_claim_has_its_results_somewhere() -> None:
    names = [name for several in GROUPS.values() for name in several]
    assert len(GROUPS) == 10
    for one in claims():
        assert sum(one.id == name or one.id.startswith(f"{name}.") for name in names) == 1, one.id


def test_its_example_runs(released: Path, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, released / "LOAD_EXAMPLE.py"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 3


def test_what_is_changed_in_it_is_found(released: Path, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    shutil.copytree(released, tree)
    damaged(tree / "LICENSE")
    assert ["LICENSE" in str(one) for one in verify(tree).findings] == [True, True]  # by the index and by the manifest


def test_it_comes_back_from_a_hub(released: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    with serve(Hub(), monkeypatch) as hub:
        push(released, "me/released")
        assert set(hub.commits["me/released"][-1]) == {
            path.relative_to(released).as_posix() for path in files_under(released)
        }
        pull("me/released", tmp_path / "back")
    assert verify(tmp_path / "back").findings == ()
    there, back = (
        {path.relative_to(root): path.read_bytes() for path in files_under(root)}
        for root in (released, tmp_path / "back")
    )
    cards = {path for path in there if path.name == "README.md" and path.parent != Path()}  # made anew, not fetched
    assert back == {path: data for path, data in there.items() if path not in cards}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--claims", "nothing"], "no published claim is called 'nothing'"),
        (["--hosts", "tiny-gnd"], "tiny-gnd"),
        (["--hosts", "tiny-gdn", "--site", "L9.H4"], "no recurrent layer 9"),
        (["--workers", "0"], "workers"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    with pytest.raises(SystemExit) as stop:
        main(["reproduce", "--out", str(out), *arguments])
    assert stop.value.code == 2
    message = capsys.readouterr().err.strip()
    assert re.search(says, message)
    assert "\n" not in message
    assert not out.exists()
