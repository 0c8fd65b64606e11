"""Whole releases in both published layouts become one collection, verified against their manifests."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from legacy_files import K, N, V, inputs, random_config, random_state, reference, write_module, write_payload

from writesae.artifacts import load_sae, read_collection
from writesae.artifacts.legacy import convert_snapshot
from writesae.artifacts.verify import verify
from writesae.errors import DataError, InputError

FIRST = {"writesae_L9_H4": "bilinear", "writesae_L1_H4": "bilinear", "flat_L9_H4": "flat", "matrix_L9_H4": "rank1"}
SECOND = {
    "writesae/qwen0p8b/L9_H4/best.pt": ("bilinear", "Qwen/Qwen3.5-0.8B", "writesae"),
    "writesae/rwkv7-1.5b/L12_H0/best.pt": ("bilinear", "rwkv7-1.5b", "writesae"),
    "writesae/gla-1.3b/L12_H0/best.pt": ("bilinear", "fla-hub/gla-1.3B-100B", "writesae"),
    "flat_baseline/qwen0p8b_L9_H4/best.pt": ("flat", "Qwen/Qwen3.5-0.8B", "flat"),
    "flat_baseline/mamba2-370m_L24_H0/best.pt": ("flat", "state-spaces/mamba2-370m", "flat"),
}


def manifest(tree: Path, style: str) -> None:
    """The release's list of files, in one of the shapes that such lists have."""
    files = {
        path.relative_to(tree).as_posix(): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_size)
        for path in tree.rglob("*")
        if path.is_file()
    }
    data: object = {
        "list": {"files": [{"path": n, "sha256": h, "size": s, "description": "x"} for n, (h, s) in files.items()]},
        "map": {"artifacts": {n: {"sha256": h, "bytes": s} for n, (h, s) in files.items()}},
        "hashes": {n: h for n, (h, _) in files.items()},
    }[style]
    (tree / "manifest.json").write_text(json.dumps(data))


def first(tree: Path) -> None:
    for number, (folder, kind) in enumerate(FIRST.items()):
        layer = int(folder.split("_L")[1].split("_")[0])
        write_payload(tree / folder / "best.pt", random_state(kind, 1, number), random_config(kind, layer=layer))
    (tree / "README.md").write_text("x")


def second(tree: Path) -> None:
    for number, (name, (kind, _, _)) in enumerate(SECOND.items()):
        config = {"n_features": N, "d_k": K, "d_v": V, "k": 5}
        write_module(tree / name, random_state(kind, 1, number), {"k": 5}, config)
    for folder in ("92pct_substitution", "89pct_population"):
        (tree / "results" / folder).mkdir(parents=True)
        (tree / "results" / folder / "summary.json").write_text('{"win_rate": 0.924}')
    (tree / "LOAD_EXAMPLE.py").write_text("raise SystemExit")


def agrees(root: Path, kind: str, seed: int, **choice: str) -> None:
    sae = load_sae(root, **choice)  # type: ignore[arg-type]
    expected = reference(kind, random_state(kind, 1, seed), inputs())
    codes = sae.encode(inputs())
    np.testing.assert_allclose(codes.dense(N).numpy(), expected.coefficients, rtol=1e-6, atol=1e-5)
    np.testing.assert_allclose(sae.decode(codes).detach().numpy(), expected.reconstruction, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("style", ["list", "map", "hashes"])
def test_first_layout(style: str, tmp_path: Path) -> None:
    first(tmp_path / "tree")
    manifest(tmp_path / "tree", style)
    done = convert_snapshot(tmp_path / "tree", tmp_path / "out", host="Qwen/Qwen3.5-0.8B")
    assert done.verified == len(FIRST)
    assert done.unlisted == ()
    assert done.refused == {}
    assert verify(tmp_path / "out").findings == ()
    for number, (folder, kind) in enumerate(FIRST.items()):
        variant, layer, head = folder.split("_")
        agrees(tmp_path / "out", kind, number, variant=variant, site=f"{layer}.{head}", host="Qwen/Qwen3.5-0.8B")


def test_second_layout_with_its_results(tmp_path: Path) -> None:
    second(tmp_path / "tree")
    manifest(tmp_path / "tree", "list")
    done = convert_snapshot(tmp_path / "tree", tmp_path / "out")
    assert (done.verified, done.unlisted, done.refused) == (len(SECOND) + 2, (), {})
    assert verify(tmp_path / "out").findings == ()
    assert set(read_collection(tmp_path / "out").files) == {
        "results/92pct_substitution/summary.json",
        "results/89pct_population/summary.json",
    }
    assert "| win_rate | 0.924 |" in (tmp_path / "out" / "README.md").read_text()
    for number, (name, (kind, host, variant)) in enumerate(SECOND.items()):
        site = next(part for part in name.split("/") if "_H" in part).split("_L")[-1].removeprefix("L")
        layer, head = site.split("_H")
        agrees(tmp_path / "out", kind, number, variant=variant, site=f"L{layer}.H{head}", host=host)
    assert not list((tmp_path / "out").rglob("*.p[ty]"))


def test_a_tree_without_a_manifest_is_imported_and_says_so(tmp_path: Path) -> None:
    first(tmp_path / "tree")
    done = convert_snapshot(tmp_path / "tree", tmp_path / "out")
    assert done.verified == 0
    assert len(done.unlisted) == len(FIRST)


def test_bad_files_are_refused_with_their_reason_and_the_rest_is_imported(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    first(tree)
    manifest(tree, "list")
    with (tree / "flat_L9_H4" / "best.pt").open("ab") as file:
        file.write(b"x")
    write_payload(tree / "writesae_L2_H4" / "best.pt", random_state("bilinear"), random_config("bilinear", layer=3))
    torch.save({"sae": print}, tree / "hostile.pt")
    (tree / "linked.pt").symlink_to("/etc/passwd")
    done = convert_snapshot(tree, tmp_path / "out")
    assert len(done.collection.cells) == len(FIRST) - 1
    reasons = {name: done.refused[name] for name in sorted(done.refused)}
    assert list(reasons) == ["flat_L9_H4/best.pt", "hostile.pt", "linked.pt", "writesae_L2_H4/best.pt"]
    assert "bytes instead of" in reasons["flat_L9_H4/best.pt"]
    assert "builtins.print" in reasons["hostile.pt"]
    assert "link that leads out" in reasons["linked.pt"]
    assert "folder says L2.H4, the checkpoint says L3.H4" in reasons["writesae_L2_H4/best.pt"]


def test_same_size_other_bytes(tmp_path: Path) -> None:
    first(tmp_path / "tree")
    manifest(tmp_path / "tree", "hashes")
    path = tmp_path / "tree" / "flat_L9_H4" / "best.pt"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    done = convert_snapshot(tmp_path / "tree", tmp_path / "out")
    assert "SHA-256" in done.refused["flat_L9_H4/best.pt"]


def test_a_manifest_that_lists_nothing_is_refused(tmp_path: Path) -> None:
    first(tmp_path / "tree")
    (tmp_path / "tree" / "manifest.json").write_text('{"files": []}')
    with pytest.raises(DataError, match="cannot be verified"):
        convert_snapshot(tmp_path / "tree", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_nothing_to_import(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    with pytest.raises(InputError, match="holds no checkpoint"):
        convert_snapshot(tmp_path / "tree", tmp_path / "out")
    torch.save([1], tmp_path / "tree" / "x.pt")
    with pytest.raises(DataError, match=r"nothing of .* could be imported"):
        convert_snapshot(tmp_path / "tree", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["tree"]


def test_several_checkpoints_of_one_cell_are_all_kept(tmp_path: Path) -> None:
    for number, stem in enumerate(("best", "last")):
        write_payload(tmp_path / "tree/writesae_L9_H4" / f"{stem}.pt", random_state("bilinear", 1, number), None)
    done = convert_snapshot(tmp_path / "tree", tmp_path / "out")
    assert [cell.path.rpartition("/")[2] for cell in done.collection.cells] == ["writesae", "writesae-last"]
