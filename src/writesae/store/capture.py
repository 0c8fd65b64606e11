"""Run a host over token blocks and store what its layers write; killed at any point, it goes on where it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from writesae.calls import worded
from writesae.cluster import Cluster
from writesae.config import Json, to_json
from writesae.corpus import Boundaries, Fingerprint, Text, TokenBlocks, tokenizer_hash
from writesae.corpus.fingerprint import LIMIT, WINDOW
from writesae.disk import FileEntry, Place, difference, place
from writesae.errors import InputError, OutputError, WritesaeError
from writesae.recurrence import Stream
from writesae.store.arrays import Pieces
from writesae.store.layout import (
    FORMAT,
    HEADER,
    SMALL,
    TEXT,
    VERSION,
    Grid,
    Precision,
    Provenance,
    array_path,
    grids,
)
from writesae.store.pieces import check_padding, layer_of, stored_arrays
from writesae.store.progress import MANIFEST, finish_shard, finished_shards, noted, write_manifest
from writesae.store.reader import StreamStore, open_store, read_header

if TYPE_CHECKING:
    from writesae.hosts import Host

ProgressCallback = Callable[[int, int], None]
"""Called with (sequences stored, sequences in all): once at the start and after every shard."""


_TELLING = ("host", "source", "part", "sequences", "length", "layers", "dtype", "batch", "host_dtype")
"""Of the provenance, what is told first where two captures differ: hashes say less."""


@worded
def capture(
    model: Host,
    text: Text | TokenBlocks | NDArray[np.int64] | Tensor,
    layers: Sequence[int] | Literal["all"],
    out: str | Path,
    *,
    tokens: int | None = None,
    boundaries: Boundaries = "separate",
    store_dtype: Precision = "float16",
    batch: int = 16,
    progress: ProgressCallback | None = None,
    cluster: Cluster | None = None,
) -> StreamStore:
    """Store the streams of `layers` over a text in the folder `out`, and open the store.

    `text` is a `writesae.text`, of which `tokens` tokens are taken (padding does not count; rounded up to whole
    sequences, spread over its documents; all that there are for None), or `TokenBlocks` or bare ids `[N, T]`, all of
    which are. `store_dtype` is the precision of stored keys and updates; decays and erase gates are always float32.
    `batch` sequences are one forward pass and one file of each array; memory is bounded by them. `progress` replaces
    the progress bar.

    On a `cluster` every worker loads the host by its name, on the same kind of device, and makes whole shards; the
    store has the same bytes as one process's on the same kernels. It must lie where all machines see it.

    A folder that holds the same capture is gone on with, or opened if it is complete. Raises InputError for an unknown
    layer or too little text, OutputError for a folder that holds anything else, DataError for a value that is not
    finite or that float16 cannot hold (with layer, sequence and position; what was finished before it stays and the
    capture can be resumed), HostError for a host that can be audited only.
    """
    root, host = place(out), model
    check_request(out, tokens, batch)
    host.need_writes()
    wanted = _layers(host, layers)
    blocks = _blocks(text, tokens, boundaries)
    header = _provenance(host, blocks, wanted, store_dtype, batch)
    with root.alone():
        if not _begun(root, header):
            _run(host, blocks, root, header, progress, cluster)
    return open_store(out)


def _run(
    host: Host, blocks: TokenBlocks, root: Place, header: Provenance, progress: ProgressCallback | None,
    cluster: Cluster | None,
) -> None:  # fmt: skip
    """Capture all shards that are not finished yet."""
    done = finished_shards(root, hashes=True)
    if not done:
        small = _beginning(header, blocks)
        root.put({"zarr.json": small.pop("zarr.json")})  # says whose the place is before anything else is there
        root.put(small)
    left = [index for index in range(header.shards) if index not in done]
    with _reporter(progress, f"capture {host.name}") as report:
        stored = sum(stop - start for start, stop in map(header.shard, done))
        report(stored, header.sequences)
        for index, files in _made(host, blocks, root, header, left, cluster):
            done[index] = files
            start, stop = header.shard(index)
            stored += stop - start
            report(stored, header.sequences)
    _finish(root, done)


def _made(
    host: Host, blocks: TokenBlocks, root: Place, header: Provenance, left: Sequence[int], cluster: Cluster | None
) -> Iterator[tuple[int, dict[str, FileEntry]]]:
    """The shards that are left, each when it is stored: here, or by the workers of a cluster."""
    pieces = Pieces()
    for index in left if cluster is None else left[:1]:  # a first one here: it writes what describes the arrays
        yield index, _shard(host, blocks, root, header, index, pieces)
    if cluster is None or not left[1:]:
        return
    about = host.name, str(host.dtype).removeprefix("torch."), host.device.type
    jobs = {index: (index,) for index in left[1:]}
    for index, files in cluster.each(_shard_there, jobs, about, blocks, root, header):
        if isinstance(files, WritesaeError):
            raise files
        yield index, files


def _shard(
    host: Host, blocks: TokenBlocks, root: Place, header: Provenance, index: int, pieces: Pieces | None = None
) -> dict[str, FileEntry]:
    """Run the host over a shard's sequences and store it whole; what describes the arrays only in their first `pieces`,
    and not where there are none."""
    start, stop = header.shard(index)
    mask, made = blocks.attention_mask(start, stop), Pieces() if pieces is None else pieces
    seen = None if mask is None else torch.from_numpy(mask)
    streams = host.record(torch.tensor(blocks.tokens[start:stop]), header.layers, seen, start)
    for layer in header.layers:
        stream = streams.pop(layer)
        if seen is not None:
            check_padding(stream, seen, f"{host.name} layer {layer}", start)
        _add_layer(made, header, host, layer, stream, start)
    files = made.take()
    if pieces is None:
        files = {name: data for name, data in files.items() if not name.endswith("zarr.json")}
    root.put(files)
    entries = {name: FileEntry.of_bytes(data) for name, data in files.items()}
    finish_shard(root, index, entries)
    return entries


def _shard_there(
    about: tuple[str, str, str], blocks: TokenBlocks, root: Place, header: Provenance, index: int
) -> dict[str, FileEntry]:
    """The same in a worker, which loads the host at its first shard."""
    from writesae.hosts.loading import load_once

    host = load_once(*about)
    if host.revision != header.revision:
        raise InputError(
            f"a worker finds other weights by the name {host.name!r} than are captured: give a host that every machine "
            "can load, an embedded one, a folder that all see, or a Hub id"
        )
    return _shard(host, blocks, root, header, index)


def check_request(out: str | Path, tokens: int | None = None, batch: int = 1) -> None:
    """Raise what `capture` raises that is known before a model is loaded and text is read."""
    if batch < 1:
        raise InputError(f"a capture needs at least 1 sequence a batch, not {batch}")
    if tokens is not None and tokens < 1:
        raise InputError(f"cannot capture {tokens} tokens: give 1 or more, or leave the number out for all of the text")
    root = place(out)
    root.check()
    if root.holds() and read_header(root) is None:
        raise OutputError(f"cannot capture into {out}: it exists and is no stream store; give a new folder")


def _blocks(
    text: Text | TokenBlocks | NDArray[np.int64] | Tensor, tokens: int | None, boundaries: Boundaries
) -> TokenBlocks:
    if isinstance(text, Text):
        return text.blocks(None, boundaries, tokens=tokens)
    if tokens is not None or boundaries != "separate":
        raise InputError(
            "tokens and boundaries say what is taken of a writesae.text: leave them out with tokens as given"
        )
    return text if isinstance(text, TokenBlocks) else TokenBlocks.of(np.asarray(text))


def _layers(host: Host, layers: Sequence[int] | Literal["all"]) -> tuple[int, ...]:
    known = sorted(host.layers)
    if layers == "all":
        return tuple(known)
    if isinstance(layers, str | int):
        raise InputError(f'layers={layers!r} was given: give a list, of {known}, or "all"')
    wanted = sorted({int(layer) for layer in layers})
    unknown = [layer for layer in wanted if layer not in known]
    if unknown or not wanted:
        given = f"no recurrent layer {unknown[0]}" if unknown else "nothing to capture from an empty list"
        raise InputError(f"{host.name} has {given}; its recurrent layers are {known}")
    return tuple(wanted)


def _provenance(host: Host, blocks: TokenBlocks, layers: tuple[int, ...], dtype: Precision, batch: int) -> Provenance:
    try:
        tokenizer = tokenizer_hash(host.tokenizer)
    except InputError:  # a host made from bare weights: tokens were given as numbers
        tokenizer = None
    return Provenance(
        format=FORMAT,
        version=VERSION,
        host=host.name,
        revision=host.revision,
        host_dtype=str(host.dtype).removeprefix("torch."),
        tokenizer=tokenizer,
        corpus=blocks.hash,
        sequences=len(blocks),
        length=blocks.length,
        layers=layers,
        dtype=dtype,
        batch=batch,
        versions={name: _version(name) for name in ("writesae", "torch", "transformers", "numpy", "zarr")},
        source=blocks.source,
        part=blocks.part,
    )


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _begun(root: Place, header: Provenance) -> bool:
    """Whether the place holds this capture complete. Raises OutputError unless it is empty or this capture's."""
    found = read_header(root) if root.holds() else None
    if found is None:
        return False
    complete = root.has(MANIFEST)
    before, now = asdict(found), asdict(header)
    # a finished store stays what it is, whatever libraries are installed now; the corpus is known by its hash
    free = {"source", "part", *(["version", "versions"] if complete else [])}
    if any(before[name] != now[name] for name in now.keys() - free):
        told = [name for name in (*_TELLING, *now) if name not in free or before["corpus"] != now["corpus"]]
        theirs, mine = ({name: held[name] for name in told} for held in (before, now))
        raise OutputError(
            f"cannot capture into {root}: it holds another capture ({difference(theirs, mine)}); give a new folder, "
            "or delete that one"
        )
    if complete:
        root.delete(noted(root.files()))  # left where a kill came after the manifest
    return complete


def _beginning(header: Provenance, blocks: TokenBlocks) -> dict[str, bytes]:
    """What a store without shards holds: its header, and the tokens."""
    pieces, small = Pieces(), grids(header, {})
    pieces.group("", {HEADER: to_json(header)})
    pieces.group("layers", {})
    pieces.write("tokens", small["tokens"], blocks.tokens)
    about: dict[str, Json] = {"names": list(blocks.documents), "read": blocks.read, "twins": dict(blocks.twins)}
    pieces.write("document", small["document"], blocks.document, attributes=about)
    if blocks.padding is not None:
        pieces.write("padding", small["padding"], blocks.padding)
    if print_ := Fingerprint.of(blocks):
        hashes, told = print_.hashes, {"window": WINDOW, "limit": LIMIT}
        pieces.write(TEXT, Grid(hashes.shape, "int64", hashes.shape), hashes, attributes=told)
    return pieces.take()


def _add_layer(pieces: Pieces, header: Provenance, host: Host, layer: int, stream: Stream, start: int) -> None:
    stored = layer_of(stream, host.layers[layer].family)
    arrays = stored_arrays(stream, stored, header.dtype, f"{host.name} layer {layer}", start)
    found = grids(header, {layer: stored})
    if start == 0:
        pieces.group(f"layers/{layer}", {HEADER: to_json(stored)})
    for name, values in arrays.items():
        pieces.write(path := array_path(layer, name), found[path], values, start)


def _finish(root: Place, done: dict[int, dict[str, FileEntry]]) -> None:
    present = root.files()
    files = {name: entry for shard in done.values() for name, entry in shard.items()}
    small = (name for name in present if name.endswith("zarr.json") or name.partition("/")[0] in (*SMALL, TEXT))
    files |= {name: FileEntry(root.sha256(name), present[name]) for name in small}
    write_manifest(root, files)


@contextmanager
def _reporter(progress: ProgressCallback | None, title: str) -> Iterator[ProgressCallback]:
    if progress is not None:
        yield progress
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(title), BarColumn(), MofNCompleteColumn(), TextColumn("sequences"), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title)
        yield lambda stored, total: bar.update(task, completed=stored, total=total)
