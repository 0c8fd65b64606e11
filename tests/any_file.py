"""Files of every kind that is read, changed in every way that Hypothesis finds, and what the readers say of them.

    python tests/any_file.py --cases 10000 [--kind store]       prints the table of docs/reliability.md, and what the
                                                                slowest refusal took and the most memory

Each case must end as refused (one line, an error of ours) or loaded and equal. It may also be another file that is
right, where nothing could tell: hashes were made to fit the change, or what was changed has none (text, a config,
where a dictionary comes from). What has a hash or checksum must be equal.
"""

# ruff: noqa: E402 (helpers of two folders)

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import gzip
import hashlib
import json
import lzma
import random
import resource
import shutil
import struct
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

sys.path[:0] = [str(Path(__file__).parent / name) for name in ("store", "artifacts")]

from dictionaries import K, N, V, random_sae
from legacy_files import random_config, random_state, write_payload
from store_fakes import FakeHost, capture, some_blocks

from small_results import small_result
from writesae.artifacts import add_to_collection, load_sae, save_sae
from writesae.artifacts.collection import read_collection
from writesae.artifacts.interchange import export_saelens, import_vectors
from writesae.artifacts.legacy import convert_file
from writesae.artifacts.verify import verify
from writesae.corpus import Fingerprint
from writesae.corpus.documents import read_documents
from writesae.disk import FileEntry, claim
from writesae.errors import WritesaeError
from writesae.evals.common.result import Result, plain
from writesae.hosts import load
from writesae.sae import SAE, Flat, Linear, Record, SAEConfig, TopK
from writesae.store import open_store
from writesae.training.config import TrainConfig
from writesae.training.log import JsonLines, StepRecord, read_history
from writesae.training.recipe import read_recipe
from writesae.types import Site

ODD: tuple[Any, ...] = (
    None, True, -1, 0, 1, 2**31, 2**63, 10**30, 10**300, -(10**12), 0.5, -0.0, 1e308, "", "x", "../../x", "/etc/passwd",
    "\ud800", "\x1b[31m\u202e", "a\0b", "ﬁ", "x" * 5000, [], {}, [[]], [-1], {"": {}}, "NaN", [None] * 300,
)  # fmt: skip
"""Values that do not belong."""
RECORD = Record("tiny-gdn", "r1", Site(5, 0), seed=3, text=Fingerprint.of(np.arange(300).reshape(3, 100)))


class Reader(NamedTuple):
    """One kind of file."""

    make: Callable[[Path], object]
    """Writes it into a folder."""
    read: Callable[[Path], object]
    """Reads all of it; what it gives is compared."""
    fits: Callable[[Path], bool] = lambda folder: False
    """Makes sizes and hashes fit what was changed, where there are some."""


def _sae() -> SAE:
    return random_sae(SAEConfig(K, V, N, sparsity=TopK(5)))


def _flat() -> SAE:
    return random_sae(SAEConfig(K, V, N, Linear(), TopK(5), Flat()))


class Held(NamedTuple):
    """What a file holds."""

    checked: object
    """That a hash or checksum is kept of."""
    told: object = None
    """The rest."""


def _held(sae: SAE) -> Held:
    tensors = {name: tensor.numpy().tobytes() for name, tensor in sae.state_dict().items()}
    return Held((sae.config, tensors), sae.record)


def _relist(folder: Path) -> bool:
    data = json.loads((folder / "manifest.json").read_text())
    data["files"] = {name: dataclasses.asdict(FileEntry.of(folder / name)) for name in data["files"]}
    if "hash" in data:  # of a store
        lines = "".join(f"{name}\0{data['files'][name]['sha256']}\n" for name in sorted(data["files"]))
        data |= {"hash": hashlib.sha256(lines.encode()).hexdigest()}
        data |= {"size": sum(file["size"] for file in data["files"].values())}
    (folder / "manifest.json").write_text(json.dumps(data))
    return True


def _collection(folder: Path) -> None:
    for variant in ("a", "b"):
        add_to_collection(_sae(), folder, dataclasses.replace(RECORD, variant=variant))


def _read_collection(folder: Path) -> object:
    verify(folder)
    held = _held(load_sae(folder, variant="a"))
    return held._replace(told=(held.told, read_collection(folder)))


def _relist_collection(folder: Path) -> bool:
    data = json.loads((folder / "collection.json").read_text())
    for cell in data["cells"]:
        _relist(folder / cell["path"])
        cell["manifest"] = dataclasses.asdict(FileEntry.of(folder / cell["path"] / "manifest.json"))
    (folder / "collection.json").write_text(json.dumps(data))
    return True


def _dictionary(folder: Path) -> object:
    found = verify(folder).findings
    held = _held(load_sae(folder))
    known = ("not listed", "README.md")  # not loaded
    assert all(any(word in str(one) for word in known) for one in found), f"loaded, and yet {found[0]}"
    return held


def _store(folder: Path) -> object:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        store = open_store(folder)
        parts = [store.read(Site(4, head), 0, store.sequences) for head in range(3)]
    numbers = [part.numpy().tobytes() for written in parts for part in written if part is not None]
    small = [store.tokens().tobytes(), store.document().tobytes(), store.padding().tobytes(), store.documents]
    repr(store)
    return dataclasses.replace(store.provenance, versions={}), store.layers, numbers, small, store.twins, store.text


def _result(folder: Path, anew: bool = False) -> object:
    result = Result.load(folder, anew)
    tables = [(folder / f"{name}.parquet").read_bytes() for name in result.tables]
    header = result.attempted, result.refused, result.shares, result.config, result.provenance
    return Held(tables, (plain(result.summary), header, result.finding if anew else ""))


def _computed(folder: Path) -> object:
    verify(folder)
    return _result(folder, anew=True)


def _relist_result(folder: Path) -> bool:
    data = json.loads((folder / "summary.json").read_text())
    data["files"] = {name: dataclasses.asdict(FileEntry.of(folder / name)) for name in data["files"]}
    (folder / "summary.json").write_text(json.dumps(data))
    return True


def _history(folder: Path) -> None:
    log = JsonLines(folder / "history.jsonl", 0)
    for step in range(1, 30):
        log.record(StepRecord(step, step * 7, 0.5, 0.25, 0.9 - 1 / step, 5, 1e-3, step / 3, held_out=0.5))
    log.close()


def _sparsify(folder: Path) -> None:
    config = {"activation": "topk", "k": 5, "num_latents": N, "d_in": K * V, "skip_connection": False}
    (folder / "cfg.json").write_text(json.dumps(config))
    random_numbers = torch.Generator().manual_seed(1)
    shapes = {"encoder.weight": (N, K * V), "encoder.bias": (N,), "W_dec": (N, K * V), "b_dec": (K * V,)}
    tensors = {name: torch.randn(shape, generator=random_numbers) for name, shape in shapes.items()}
    save_file(tensors, folder / "sae.safetensors")


def _texts(name: str, pack: Callable[[bytes], bytes]) -> Reader:
    lines = [
        json.dumps({"text": f"Document {n} of some \u2013 length. " * (n + 1), "name": f"d{n}"}) for n in range(20)
    ]
    data = pack("\n".join(lines).encode() if "jsonl" in name else "\n".join(lines * 9).encode())
    return Reader(
        lambda folder: (folder / name).write_bytes(data), lambda folder: list(read_documents(str(folder / name)))
    )


def _zstd(data: bytes) -> bytes:
    packed: bytes = pa.compress(data, "zstd", asbytes=True)
    return packed


def _recipe(folder: Path) -> None:
    from writesae.config import to_json

    data = to_json(TrainConfig(site=Site(5, 0)))
    (folder / "recipe.json").write_text(json.dumps(data))


READERS: dict[str, Reader] = {
    "dictionary": Reader(lambda f: save_sae(_sae(), f / "it", RECORD), lambda f: _dictionary(f / "it"),
                         lambda f: _relist(f / "it")),
    "collection": Reader(_collection, _read_collection, _relist_collection),
    "store": Reader(
        lambda f: capture(FakeHost(), some_blocks(), [4], f / "it", batch=4, progress=lambda *_: None),
        lambda f: _store(f / "it"), lambda f: _relist(f / "it"),
    ),
    "store, verified": Reader(
        lambda f: capture(FakeHost(), some_blocks(), [4], f / "it", batch=4, progress=lambda *_: None),
        lambda f: verify(f / "it").findings, lambda f: _relist(f / "it"),
    ),
    "result": Reader(
        lambda f: small_result("spectrum", load("tiny-gdn"), torch.arange(58).reshape(2, 29)).save(f / "it"),
        lambda f: _result(f / "it"), lambda f: _relist_result(f / "it"),
    ),
    "result, computed anew": Reader(
        lambda f: small_result("spectrum", load("tiny-gdn"), torch.arange(58).reshape(2, 29)).save(f / "it"),
        lambda f: _computed(f / "it"), lambda f: _relist_result(f / "it"),
    ),
    "checkpoint": Reader(
        lambda f: write_payload(f / "it.pt", random_state("bilinear"), random_config("bilinear")),
        lambda f: _held(convert_file(f / "it.pt").sae),
    ),
    "older checkpoint": Reader(
        lambda f: write_payload(f / "it.pt", random_state("bilinear"), random_config("bilinear"), zipped=False),
        lambda f: _held(convert_file(f / "it.pt").sae),
    ),
    "SAELens": Reader(lambda f: export_saelens(_flat(), f / "it"), lambda f: _vectors(f / "it")),
    "sparsify": Reader(_sparsify, lambda f: _vectors(f)),
    "text": _texts("it.txt", bytes),
    "JSON lines": _texts("it.jsonl", bytes),
    "JSON lines, gz": _texts("it.jsonl.gz", lambda data: gzip.compress(data, mtime=0)),
    "JSON lines, xz": _texts("it.jsonl.xz", lzma.compress),
    "JSON lines, zst": _texts("it.jsonl.zst", _zstd),
    "Parquet": Reader(
        lambda f: pd.DataFrame({"text": [f"Document {n} of some." for n in range(300)]}).to_parquet(f / "it.parquet"),
        lambda f: list(read_documents(str(f / "it.parquet"))),
    ),
    "history": Reader(_history, lambda f: read_history(f / "history.jsonl")),
    "recipe": Reader(_recipe, lambda f: read_recipe(f / "recipe.json")),
    "owner": Reader(
        lambda f: claim(f / "it", "training run", {"config": TrainConfig(site=Site(5, 0)), "store": "0" * 64}),
        lambda f: claim(f / "it", "training run", {"config": TrainConfig(site=Site(5, 0)), "store": "0" * 64}),
    ),
}  # fmt: skip
UNCHECKED = {
    "older checkpoint", "text", "JSON lines", "JSON lines, zst", "Parquet", "history", "SAELens", "sparsify", "recipe",
    "owner",
}  # fmt: skip
"""Kinds without a checksum of their own: another text or number is another file that is right."""


def _vectors(folder: Path) -> object:
    converted = import_vectors(folder, (K, V))
    tensors = {name: tensor.numpy().tobytes() for name, tensor in converted.sae.state_dict().items()}
    return converted.sae.config, tensors


class Change(NamedTuple):
    """One way to change a file: which, how, where, and with what."""

    file: int
    how: str
    where: float
    what: int
    fits: bool


HOW = ("flip", "cut", "insert", "remove", "overwrite", "value", "key", "twice", "gone", "header", "link", "swap")
CHANGES = st.lists(
    st.builds(
        Change, st.integers(0, 99), st.sampled_from(HOW), st.floats(0, 1), st.integers(0, 2**16), st.booleans()
    ),
    min_size=1, max_size=3,
)  # fmt: skip


def change(folder: Path, one: Change) -> None:
    """Carry it out."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    if not files:
        return
    path = files[one.file % len(files)]
    data = path.read_bytes()
    at = min(int(one.where * len(data)), max(0, len(data) - 1))
    if one.how in ("value", "key", "twice"):
        with contextlib.suppress(ValueError):
            data = _json(path, data, one)
    elif one.how == "header" and path.suffix == ".safetensors":
        with contextlib.suppress(ValueError, struct.error):
            length = struct.unpack("<Q", data[:8])[0]
            header = _json(path, data[8 : 8 + length], one._replace(how="value"))
            data = struct.pack("<Q", len(header)) + header + data[8 + length :]
    elif one.how == "gone":
        path.unlink()
        return
    elif one.how == "link":
        path.unlink()
        path.symlink_to(("/dev/zero", "/etc/hostname", "nowhere", str(files[0]))[one.what % 4])
        return
    elif one.how == "swap":
        data = files[one.what % len(files)].read_bytes()
    elif one.how == "cut":
        data = data[:at]
    elif one.how == "remove":
        data = data[:at] + data[at + 1 + one.what % 50 :]
    else:
        noise = random.Random(one.what).randbytes(1 + one.what % 20)
        if one.how == "flip":
            noise = bytes([data[at] ^ 1 << one.what % 8]) if data else b""
        data = data[:at] + noise + data[at + (len(noise) if one.how != "insert" else 0) :]
    path.write_bytes(data)


def _json(path: Path, data: bytes, one: Change) -> bytes:
    """JSON with one value replaced, one key renamed, or one value twice."""
    if path.suffix == ".jsonl":
        lines = data.splitlines(keepends=True) or [b""]
        at = min(int(one.where * len(lines)), len(lines) - 1)
        lines[at] = _json(Path("a.json"), lines[at], one) + b"\n"
        return b"".join(lines)
    tree = json.loads(data)
    places = list(_places(tree))
    if not places:
        return data
    holder, key = places[min(int(one.where * len(places)), len(places) - 1)]
    odd = ODD[one.what % len(ODD)]
    if one.how == "value":
        holder[key] = odd
    elif one.how == "key" and isinstance(holder, dict):
        holder[str(odd)] = holder.pop(key)
    elif one.how == "twice" and isinstance(holder, list):
        holder += [holder[key]] * (one.what % 3)
    return json.dumps(tree).encode()


def _places(tree: Any) -> Any:
    if isinstance(tree, dict | list):
        for key in list(tree) if isinstance(tree, dict) else range(len(tree)):
            yield tree, key
            yield from _places(tree[key])


def ends(name: str, made: Path, whole: object, changes: list[Change], scratch: Path) -> str:
    """How reading ends after some changes: `refused`, `equal` or `another`; raises AssertionError otherwise."""
    reader, fitted = READERS[name], False
    shutil.rmtree(scratch, ignore_errors=True)
    shutil.copytree(made, scratch)
    for one in changes:
        change(scratch, one)
    if changes[0].fits and all(one.how != "link" for one in changes):
        with contextlib.suppress(Exception):  # where what was changed cannot be made to fit
            fitted = reader.fits(scratch)
    try:
        found = reader.read(scratch)
    except WritesaeError as error:
        said = str(error)
        assert "\n" not in said, said
        assert len(said) < 2000, said
        assert said.isprintable(), said
        return "refused"
    if found == whole:
        return "equal"
    if name == "store, verified":
        return "refused"
    same = isinstance(found, Held) and isinstance(whole, Held) and found.checked == whole.checked
    assert same or fitted or name in UNCHECKED, "loaded, and not equal"
    return "another"


SLOWEST: dict[str, float] = {}
"""Kind -> the longest that a refusal took, seconds of this process."""


def counts(name: str, cases: int) -> Counter[str]:
    """How so many cases of one kind end."""
    told: Counter[str] = Counter()
    SLOWEST[name] = 0.0
    with tempfile.TemporaryDirectory() as folder:
        made, scratch = Path(folder) / "made", Path(folder) / "case"
        made.mkdir()
        READERS[name].make(made)
        whole = READERS[name].read(made)

        @settings(
            max_examples=cases,
            deadline=None,
            derandomize=True,
            database=None,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
        )
        @given(CHANGES)
        def case(changes: list[Change]) -> None:
            begun = time.process_time()
            end = ends(name, made, whole, changes, scratch)
            told[end] += 1
            if end == "refused":
                SLOWEST[name] = max(SLOWEST[name], time.process_time() - begun)

        case()
    return told


def table(cases: int, kinds: list[str]) -> Iterator[str]:
    """The table of docs/reliability.md, line by line."""
    yield "| what is read | cases | refused in one line | loaded and equal | another that is right | slowest refusal |"
    yield "|---|---|---|---|---|---|"
    for name in kinds:
        told = counts(name, cases)
        numbers = " | ".join(f"{told[end]:,}" for end in ("refused", "equal", "another"))
        yield f"| {name} | {sum(told.values()):,} | {numbers} | {SLOWEST[name]:.2f} s |"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    yield f"\nThe slowest refusal took {max(SLOWEST.values()):.2f} s, and the whole process at most {peak:,.0f} MiB."


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=200)
    parser.add_argument("--kind", choices=READERS, action="append")
    asked = parser.parse_args()
    for line in table(asked.cases, asked.kind or list(READERS)):
        print(line, flush=True)
