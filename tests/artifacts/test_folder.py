"""One dictionary as a folder: exact, complete or absent, and strict about everything in it."""

from __future__ import annotations

import json
import os
import re
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from dictionaries import ALL_CONFIGS, K, N, V, matrices, random_sae, same
from safetensors.torch import load_file, save_file

from writesae.artifacts import add_metrics, add_to_collection, load_folder, load_sae, read_manifest, save_sae
from writesae.artifacts.verify import verify
from writesae.corpus import Fingerprint
from writesae.errors import ConfigError, DataError, InputError, OutputError, WritesaeError
from writesae.sae import SAE, Record, SAEConfig, TopK
from writesae.types import Site

CONFIG = SAEConfig(K, V, N, sparsity=TopK(5))
RECORD = Record(
    host="some/model", host_revision="abc", site=Site(9, 4), variant="writesae", seed=42,
    corpus_hash="c", store_hash="s",
    training={"lr": [3e-4, 3e-5], "steps": 7}, metrics={"explained_variance": 0.5, "substitution": {"win_rate": 0.9}},
    source={"note": "a | b"},
)  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_sae(random_sae(CONFIG), tmp_path / "sae", RECORD)
    return tmp_path / "sae"


def edit(path: Path, change: Callable[[dict[str, object]], object]) -> None:
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def relist(folder: Path) -> None:
    """Make the manifest agree with the files again, as an attacker would."""
    from writesae.disk import sha256

    manifest = json.loads((folder / "manifest.json").read_text())
    for name in manifest["files"]:
        manifest["files"][name] = {"sha256": sha256(folder / name), "size": (folder / name).stat().st_size}
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("config", ALL_CONFIGS, ids=repr)
def test_round_trip_is_exact(config: SAEConfig, tmp_path: Path) -> None:
    sae = random_sae(config)
    manifest = save_sae(sae, tmp_path / "deep" / "sae", RECORD)
    loaded = load_folder(tmp_path / "deep" / "sae")
    assert same(sae, loaded.sae)
    assert loaded.manifest == manifest
    assert loaded.manifest.record == RECORD
    assert torch.equal(sae.encode(matrices()).value, loaded.sae.encode(matrices()).value)
    assert not loaded.sae.training


def test_loading_draws_no_random_numbers(folder: Path) -> None:
    torch.manual_seed(0)
    expected = torch.randn(5)
    torch.manual_seed(0)
    load_sae(folder)
    assert torch.equal(torch.randn(5), expected)


def test_a_dictionary_knows_where_it_comes_from(folder: Path, tmp_path: Path) -> None:
    loaded = load_sae(folder)
    assert (loaded.host, loaded.site, loaded.target) == ("some/model", Site(9, 4), "state")
    assert loaded.record == RECORD
    assert "of some/model L9.H4" in repr(loaded)
    assert "<td>L9.H4</td>" in loaded._repr_html_()
    loaded.save(tmp_path / "again")  # no record given: its own
    assert load_folder(tmp_path / "again").manifest == read_manifest(folder)
    made = random_sae(CONFIG)
    assert (made.record, made.host, made.site) == (None, None, None)
    with pytest.raises(OutputError, match="already holds a dictionary"):
        made.save(tmp_path / "again")
    made.save(tmp_path / "again", replace=True)
    assert load_sae(tmp_path / "again").record == Record()


PRINT = Fingerprint.of(np.random.default_rng(0).integers(0, 97, (7, 101)))


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """A dictionary that knows on which text it was trained."""
    save_sae(random_sae(CONFIG), tmp_path / "trained", replace(RECORD, text=PRINT))
    return tmp_path / "trained"


def test_the_fingerprint_of_its_text_is_in_the_folder(trained: Path, tmp_path: Path) -> None:
    sae = load_sae(trained)
    assert sae.record is not None
    assert sae.record.text == PRINT
    assert load_file(trained / "text.safetensors")["windows"].tolist() == PRINT.hashes.tolist()
    assert "text.safetensors" in read_manifest(trained).files
    assert len({path.stat().st_mode for path in trained.iterdir()}) == 1
    add_metrics(trained, {"more": 1})
    sae.save(tmp_path / "again", RECORD)  # a record that does not know it
    add_to_collection(sae, tmp_path / "many", RECORD)
    for folder in (trained, tmp_path / "again", tmp_path / "many"):
        record = load_sae(folder).record
        assert record is not None
        assert record.text == PRINT
        assert verify(folder).findings == ()
    sae.record = None
    sae.save(tmp_path / "unknown")
    assert load_folder(tmp_path / "unknown").manifest.record.text is None
    assert not (tmp_path / "unknown" / "text.safetensors").exists()


def test_a_dictionary_of_version_1_0_is_read(folder: Path) -> None:
    for name in ("config.json", "manifest.json"):
        edit(folder / name, lambda data: data.update(version="1.0"))
    relist(folder)
    assert load_sae(folder).record == RECORD


@pytest.mark.parametrize(
    ("tensors", "meaning", "message"),
    [
        ({"windows": torch.tensor([5, 3])}, {"window": "32", "limit": "32768"}, "rising hashes"),
        ({"windows": torch.tensor([3.0, 5.0])}, {"window": "32", "limit": "32768"}, "holds F32"),
        ({"windows": torch.tensor([3.0]).bfloat16()}, {"window": "32", "limit": "32768"}, "holds BF16"),
        ({"windows": torch.tensor([3, 5])}, {"window": "16", "limit": "32768"}, "no fingerprint of windows of 32"),
        ({"hashes": torch.tensor([3, 5])}, {"window": "32", "limit": "32768"}, "no fingerprint"),
        (None, None, "safetensors"),
    ],
)
def test_a_hostile_fingerprint_is_refused(
    tensors: dict[str, torch.Tensor] | None, meaning: dict[str, str] | None, message: str, trained: Path
) -> None:
    if tensors is None:
        (trained / "text.safetensors").write_bytes(b"\xff" * 64)
    else:
        save_file(tensors, trained / "text.safetensors", metadata=meaning)
    with pytest.raises(DataError, match=r"text\.safetensors has"):  # by size or hash
        load_sae(trained)
    relist(trained)
    with pytest.raises(DataError, match=message):
        load_sae(trained)
    assert [finding for finding in verify(trained).findings if message in finding.problem]


def test_a_listed_fingerprint_must_be_there(trained: Path) -> None:
    (trained / "text.safetensors").unlink()
    with pytest.raises(DataError, match=r"text\.safetensors is missing"):
        load_sae(trained)
    assert verify(trained).findings


def test_methods_come_from_above() -> None:
    """`writesae.sae` alone cannot write folders and says what gives it that; it imports nothing that could."""
    code = (
        "import sys; from writesae.sae import SAE, SAEConfig; sae = SAE(SAEConfig(2, 3, 40))\n"
        "try: sae.save('x')\n"
        "except Exception as error: print(error)\n"
        "print('writesae.artifacts' in sys.modules); import writesae.artifacts; print(SAE.save.__doc__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    error, loaded, documented = done.stdout.splitlines()
    assert "import it before" in error
    assert loaded == "False"
    assert "save_sae" in documented


def test_every_file_is_listed_with_its_hash_and_readable_by_all(folder: Path) -> None:
    manifest = read_manifest(folder)
    assert set(manifest.files) | {"manifest.json"} == {path.name for path in folder.iterdir()}
    assert len({path.stat().st_mode for path in folder.iterdir()}) == 1


def test_the_same_dictionary_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    save_sae(random_sae(CONFIG), tmp_path / "again", RECORD)
    assert read_manifest(folder) == read_manifest(tmp_path / "again")


def test_card_says_what_was_measured(folder: Path) -> None:
    card = (folder / "README.md").read_text()
    assert "| substitution.win_rate | 0.9 |" in card
    assert "L9.H4" in card
    assert "a \\| b" in card


def test_results_join_the_record_and_the_card(folder: Path) -> None:
    weights = (folder / "weights.safetensors").read_bytes()
    manifest = add_metrics(folder, {"population": {"win_rate": 0.125, "n": 87}})
    assert manifest.record == replace(RECORD, metrics={**RECORD.metrics, "population": {"win_rate": 0.125, "n": 87}})
    assert read_manifest(folder) == manifest
    assert "| population.win_rate | 0.125 |" in (folder / "README.md").read_text()
    assert (folder / "weights.safetensors").read_bytes() == weights
    assert same(load_sae(folder), random_sae(CONFIG))
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(OutputError):
        add_metrics(folder, {"more": 1})
    assert (folder / "notes.txt").read_text() == "mine"


def test_large_dictionary_is_mapped_within_100_ms(tmp_path: Path) -> None:
    sae = SAE(SAEConfig(128, 128, 16384))
    save_sae(sae, tmp_path / "sae")
    seconds = []
    for _ in range(4):
        start = time.process_time()  # other work on the machine does not count
        loaded = load_sae(tmp_path / "sae")
        seconds.append(time.process_time() - start)
    assert same(sae, loaded)
    assert min(seconds) < 0.1
    maps = [line.split() for line in Path("/proc/self/maps").read_text().splitlines() if "weights.safetensors" in line]
    spans = [tuple(int(part, 16) for part in line[0].split("-")) for line in maps]
    for name, tensor in loaded.state_dict().items():
        assert any(start <= tensor.data_ptr() < stop for start, stop in spans), f"{name} is a copy"


def test_changing_a_loaded_dictionary_leaves_the_file_alone(folder: Path) -> None:
    with torch.no_grad():
        load_sae(folder).v_dec.zero_()
    assert same(load_sae(folder), random_sae(CONFIG))


def test_a_newer_minor_version_loads_and_a_newer_major_says_so(folder: Path) -> None:
    for name in ("manifest.json", "config.json"):
        edit(folder / name, lambda data: data.update(version="1.9", invented=1))
    edit(folder / "manifest.json", lambda data: data["record"].update(invented={"a": 1}))  # type: ignore[attr-defined]
    relist(folder)
    assert same(load_sae(folder), random_sae(CONFIG))
    edit(folder / "manifest.json", lambda data: data.update(version="2.0"))
    with pytest.raises(DataError, match=r"format version 2\.0.*install a newer writesae"):
        load_sae(folder)


def test_unknown_keys_are_refused_in_a_known_version(folder: Path) -> None:
    edit(folder / "manifest.json", lambda data: data.update(invented=1))
    with pytest.raises(DataError, match=r"extra fields found \(invented\)"):
        load_sae(folder)


def test_unknown_config_keys_are_refused_in_every_version(folder: Path) -> None:
    edit(folder / "config.json", lambda data: data.update(version="1.9"))
    edit(folder / "config.json", lambda data: data["sae"].update(invented=1))  # type: ignore[attr-defined]
    relist(folder)
    with pytest.raises(ConfigError, match="invented"):
        load_sae(folder)


def test_selection_is_checked(folder: Path) -> None:
    assert same(load_sae(folder, site="L9.H4", variant="writesae"), random_sae(CONFIG))
    with pytest.raises(InputError, match=r"asked for site L3\.H1, but holds L9\.H4"):
        load_sae(folder, site="L3.H1")


@pytest.mark.parametrize("source", ["nowhere", "a/b/c", "../x"])
def test_nothing_there(source: str) -> None:
    with pytest.raises(InputError, match=r"there is no folder .*no Hub id"):
        load_sae(source)


def test_an_existing_dictionary_is_replaced_only_when_asked(folder: Path) -> None:
    other = random_sae(CONFIG, seed=5)
    with pytest.raises(OutputError, match="already holds a dictionary"):
        save_sae(other, folder)
    save_sae(other, folder, replace=True)
    assert same(load_sae(folder), other)
    assert os.listdir(folder.parent) == [folder.name]


def test_a_folder_of_something_else_is_never_touched(folder: Path, tmp_path: Path) -> None:
    (folder / "notes.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(folder)
    for place in (folder, tmp_path, tmp_path / "file", tmp_path / "link", tmp_path / "file" / "below"):
        with pytest.raises(OutputError):
            save_sae(random_sae(CONFIG, 5), place, replace=True)
    assert (folder / "notes.txt").read_text() == "mine"
    assert same(load_sae(folder), random_sae(CONFIG))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "link", "sae"]


def test_what_is_not_finite_is_not_saved(tmp_path: Path) -> None:
    sae = random_sae(CONFIG)
    with pytest.raises(DataError, match="not finite"):
        save_sae(sae, tmp_path / "sae", replace_metric(float("nan")))
    with torch.no_grad():
        sae.bias[0, 0] = float("inf")
    with pytest.raises(DataError, match="bias holds NaN or infinity"):
        save_sae(sae, tmp_path / "sae")
    assert list(tmp_path.iterdir()) == []


def replace_metric(value: float) -> Record:
    return replace(RECORD, metrics={"explained_variance": value})


def header(path: Path, change: Callable[[dict[str, dict[str, object]]], object]) -> None:
    """Rewrite the header of a safetensors file."""
    data = path.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    content = json.loads(data[8 : 8 + length])
    change(content)
    new = json.dumps(content).encode()
    path.write_bytes(struct.pack("<Q", len(new)) + new + data[8 + length :])


def damage(folder: Path) -> dict[str, tuple[Callable[[], object], str]]:
    """Name -> what a hostile or unlucky folder does, and what the error says."""
    weights, config, manifest = (folder / name for name in ("weights.safetensors", "config.json", "manifest.json"))
    outside = folder.parent / "outside.safetensors"

    def rewrite(path: Path, data: bytes) -> None:
        path.write_bytes(data)
        relist(folder)

    def with_header(change: Callable[[dict[str, dict[str, object]]], object]) -> None:
        header(weights, change)
        relist(folder)

    def link(path: Path, target: str | Path) -> None:
        outside.write_bytes(weights.read_bytes())
        path.unlink()
        path.symlink_to(target)

    def listed(name: str) -> None:
        edit(manifest, lambda data: data["files"].update({name: {"sha256": "0" * 64, "size": 1}}))  # type: ignore[attr-defined]
        edit(manifest, lambda data: data["files"].pop("weights.safetensors"))  # type: ignore[attr-defined]

    nested = b'{"format": "writesae.sae", "version": "1.0", "sae": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    return {
        "no manifest": (manifest.unlink, "writing it was interrupted"),
        "wrong hash": (lambda: weights.write_bytes(weights.read_bytes()[:-1] + b"x"), "has changed"),
        "truncated weights": (lambda: weights.write_bytes(weights.read_bytes()[:-1]), "bytes instead of"),
        "missing weights": (weights.unlink, "missing or is not a regular file"),
        "unlisted weights": (lambda: listed("x"), "does not list weights"),
        "link out of the folder": (lambda: link(weights, outside), "link that leads out of the folder"),
        "relative link out of the folder": (lambda: link(weights, f"../{outside.name}"), "link that leads out"),
        "link as manifest": (lambda: link(manifest, "/etc/passwd"), "link that leads out"),
        "not JSON": (lambda: manifest.write_text("{"), "not valid JSON"),
        "NaN in JSON": (lambda: manifest.write_text('{"format": NaN}'), "NaN is not JSON"),
        "a key twice": (lambda: manifest.write_text('{"format": 1, "format": 2}'), "twice"),
        "deep JSON": (lambda: rewrite(config, nested), "nested deeper than 64 levels"),
        "enormous manifest": (lambda: manifest.write_bytes(b" " * (5 << 20)), "larger than 4,194,304 bytes"),
        "enormous config": (lambda: rewrite(config, b" " * (1 << 20)), "larger than 262,144 bytes"),
        "enormous number": (lambda: manifest.write_text('{"format": ' + "1" * 9999 + "}"), "not valid JSON"),
        "text for a number": (
            lambda: edit(manifest, lambda data: data["record"].update(seed="42")),  # type: ignore[attr-defined]
            "is not of type int @ Manifest.record.seed",
        ),
        "a bad site": (
            lambda: edit(manifest, lambda data: data["record"].update(site="../L9")),  # type: ignore[attr-defined]
            "not written like L9.H4",
        ),
        "a negative size": (
            lambda: edit(manifest, lambda data: data["files"]["config.json"].update(size=-1)),  # type: ignore[index]
            "size",
        ),
        "another format": (
            lambda: edit(manifest, lambda data: data.update(format="zip")),
            "is not a writesae.sae file",
        ),
        "an odd version": (lambda: edit(manifest, lambda data: data.update(version="1e9")), "not written like 1.0"),
        "an empty weights file": (lambda: rewrite(weights, b""), "cut short"),
        "a header longer than the file": (lambda: rewrite(weights, struct.pack("<Q", 1 << 62) + b"{}"), "cut short"),
        "a header that is no JSON": (lambda: rewrite(weights, struct.pack("<Q", 2) + b"{["), "not valid JSON"),
        "a header that lies about a shape": (
            lambda: with_header(lambda data: data["v_dec"].update(shape=[10**6, 10**6])),
            "not a valid safetensors file",
        ),
        "a header with offsets beyond the file": (
            lambda: with_header(lambda data: data["v_dec"].update(data_offsets=[0, 1 << 40])),
            "not a valid safetensors file",
        ),
        "a tensor of another shape": (
            lambda: with_header(lambda data: data["v_dec"].update(shape=[N, K, 1])),
            "v_dec has shape .* where the config asks for",
        ),
        "a tensor of another type": (
            lambda: with_header(lambda data: data["v_dec"].update(dtype="I32")),
            "I32 .* is no tensor",
        ),
        "a tensor of another name": (
            lambda: with_header(lambda data: data.update(other=data.pop("v_dec"))),
            "no such tensor|missing",
        ),
        "a config of another size": (
            lambda: rewrite(config, config.read_bytes().replace(b'"features": 23', b'"features": 24')),
            "where the config asks for",
        ),
        "a config of huge size": (
            lambda: rewrite(
                config, re.sub(rb'"(features|d_k|d_v|k|rank)": \d+', rb'"\1": 1000000000', config.read_bytes())
            ),
            "numbers where the config asks for",
        ),
        "a config of fewer features": (
            lambda: rewrite(config, config.read_bytes().replace(b'"features": 23', b'"features": 22')),
            "where the config asks for",
        ),
        "a config of other sides": (
            lambda: rewrite(config, config.read_bytes().replace(b'"d_k": 11', b'"d_k": 6').replace(b": 7", b": 12")),
            "where the config asks for",
        ),
    }


@pytest.mark.parametrize("name", list(damage(Path("folder"))))
def test_damaged_and_hostile_folders_are_refused(name: str, folder: Path) -> None:
    act, message = damage(folder)[name]
    act()
    with pytest.raises(WritesaeError) as caught:
        load_sae(folder)
    assert re.search(message, str(caught.value)), caught.value
    assert "\n" not in str(caught.value)
    assert {path.name for path in folder.parent.iterdir()} <= {"sae", "outside.safetensors"}


@pytest.mark.parametrize(
    "name", ["../x", "/etc/passwd", "a/../../x", "a\\x", "C:x", "", ".", "./a", "a//b", "a/", "..", "a\0b"]
)
def test_names_that_leave_the_folder_are_refused(name: str, folder: Path) -> None:
    from writesae.disk import inside

    (folder.parent / "x").write_text("outside")
    with pytest.raises(DataError):
        inside(folder, name)


def test_unfinished_folders_are_refused_by_name(folder: Path) -> None:
    partial = folder.rename(folder.parent / ".sae.partial")
    with pytest.raises(DataError, match="unfinished"):
        load_folder(partial)
    with pytest.raises(InputError, match="kept for unfinished"):
        save_sae(random_sae(CONFIG), folder.parent / "x.partial")


def test_sizes_are_checked_without_hashes(folder: Path) -> None:
    weights = folder / "weights.safetensors"
    data = weights.read_bytes()
    weights.write_bytes(data[:-4] + bytes(4))
    load_sae(folder, hashes=False)
    weights.write_bytes(data[:-4])
    with pytest.raises(DataError, match="bytes instead of"):
        load_sae(folder, hashes=False)
