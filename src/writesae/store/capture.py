"""Run a host over token blocks and store what its layers write; killed at any point, it goes on where it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import torch
import zarr
from numpy.typing import NDArray
from torch import Tensor

from writesae.calls import worded
from writesae.config import Json, to_json
from writesae.corpus import Boundaries, Fingerprint, Text, TokenBlocks, tokenizer_hash
from writesae.corpus.fingerprint import LIMIT, WINDOW
from writesae.disk import PARTIAL, FileEntry, alone, check_place, difference, files_under, holds, sync_all, writing
from writesae.errors import InputError, OutputError
from writesae.recurrence import Stream
from writesae.store.arrays import create_array, open_array
from writesae.store.layout import (
    FORMAT,
    HEADER,
    SMALL,
    TEXT,
    VERSION,
    Grid,
    Precision,
    Provenance,
    grids,
    shard_path,
)
from writesae.store.pieces import check_padding, layer_of, stored_arrays
from writesae.store.progress import (
    LEDGER,
    MANIFEST,
    append_shard,
    finished_shards,
    rewrite_ledger,
    write_manifest,
)
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
) -> StreamStore:
    """Store the streams of `layers` over a text in the folder `out`, and open the store.

    `text` is a `writesae.text`, of which `tokens` tokens are taken (padding does not count; rounded up to whole
    sequences, spread over its documents; all that there are for None), or `TokenBlocks` or bare ids `[N, T]`, all of
    which are. `store_dtype` is the precision of stored keys and updates; decays and erase gates are always float32.
    `batch` sequences are one forward pass and one file of each array; memory is bounded by them. `progress` replaces
    the progress bar.

    A folder that holds the same capture is gone on with, or opened if it is complete. Raises InputError for an unknown
    layer or too little text, OutputError for a folder that holds anything else, DataError for a value that is not
    finite or that float16 cannot hold (with layer, sequence and position; what was finished before it stays and the
    capture can be resumed), HostError for a host that can be audited only.
    """
    root, host = Path(out), model
    check_request(root, tokens, batch)
    host.need_writes()
    wanted = _layers(host, layers)
    blocks = _blocks(text, tokens, boundaries)
    header = _provenance(host, blocks, wanted, store_dtype, batch)
    with alone(root):
        if not _begun(root, header):
            with writing(root):
                _run(host, blocks, root, header, progress)
    return open_store(root)


def _run(host: Host, blocks: TokenBlocks, root: Path, header: Provenance, progress: ProgressCallback | None) -> None:
    """Capture all shards that are not finished yet."""
    done = finished_shards(root)
    if done:
        rewrite_ledger(root, done)
    else:
        _begin(root, header, blocks)
    with _reporter(progress, f"capture {host.name}") as report:
        report(header.shard(len(done))[0], header.sequences)
        for index in range(len(done), header.shards):
            start, stop = header.shard(index)
            mask = blocks.attention_mask(start, stop)
            seen = None if mask is None else torch.from_numpy(mask)
            streams = host.record(torch.from_numpy(blocks.tokens[start:stop]), header.layers, seen, start)
            files: dict[str, FileEntry] = {}
            for layer in header.layers:
                stream = streams.pop(layer)
                if seen is not None:
                    check_padding(stream, seen, f"{host.name} layer {layer}", start)
                files |= _store_layer(root, header, host, layer, stream, index)
            sync_all(root, files)
            append_shard(root, index, files)
            done.append(files)
            report(stop, header.sequences)
    _finish(root, done)


def check_request(out: Path, tokens: int | None = None, batch: int = 1) -> None:
    """Raise what `capture` raises that is known before a model is loaded and text is read."""
    if batch < 1:
        raise InputError(f"a capture needs at least 1 sequence a batch, not {batch}")
    if tokens is not None and tokens < 1:
        raise InputError(f"cannot capture {tokens} tokens: give 1 or more, or leave the number out for all of the text")
    check_place(out)
    if holds(out) and read_header(out) is None:
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


def _begun(root: Path, header: Provenance) -> bool:
    """Whether the folder holds this capture complete. Raises OutputError unless it is empty or this capture's."""
    found = read_header(root) if holds(root) else None
    if found is None:
        return False
    complete = (root / MANIFEST).is_file()
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
        (root / LEDGER).unlink(missing_ok=True)  # left where a kill came after the manifest
    return complete


def _begin(root: Path, header: Provenance, blocks: TokenBlocks) -> None:
    """A store with header and tokens and no shard yet; what a killed start left behind is overwritten."""
    zarr.open_group(root, mode="a", zarr_format=3, attributes={HEADER: cast(Any, to_json(header))})
    small = grids(header, {})
    _small(root, "tokens", blocks.tokens, small["tokens"])
    about: dict[str, Json] = {"names": list(blocks.documents), "read": blocks.read, "twins": dict(blocks.twins)}
    _small(root, "document", blocks.document, small["document"], about)
    if blocks.padding is not None:
        _small(root, "padding", blocks.padding, small["padding"])
    if print_ := Fingerprint.of(blocks):
        hashes = print_.hashes
        _small(root, TEXT, hashes, Grid(hashes.shape, "int64", hashes.shape), {"window": WINDOW, "limit": LIMIT})


def _small(
    root: Path, name: str, values: NDArray[np.int64], grid: Grid, about: Mapping[str, Json] | None = None
) -> None:
    """An array that is written at once."""
    create_array(root, name, grid, about)
    open_array(root, name, grid, checksums=True, write=True)[:] = values.astype(grid.dtype)


def _store_layer(
    root: Path, header: Provenance, host: Host, layer: int, stream: Stream, shard: int
) -> dict[str, FileEntry]:
    start, stop = header.shard(shard)
    stored = layer_of(stream, host.layers[layer].family)
    arrays = stored_arrays(stream, stored, header.dtype, f"{host.name} layer {layer}", start)
    if shard == 0:
        zarr.open_group(root, mode="a", zarr_format=3).require_group(f"layers/{layer}").attrs.put(
            {HEADER: to_json(stored)}
        )
    files = {}
    for path, grid in grids(header, {layer: stored}).items():
        if (name := path.rpartition("/")[2]) not in arrays:
            continue
        if shard == 0:
            create_array(root, path, grid)
        file = shard_path(layer, name, shard)
        (root / file).unlink(missing_ok=True)  # Zarr would read what a kill left there
        open_array(root, path, grid, checksums=True, write=True)[start:stop] = arrays[name]
        files[file] = FileEntry.of(root / file)
    return files


def _finish(root: Path, done: list[dict[str, FileEntry]]) -> None:
    for partial in list(root.rglob(f"*{PARTIAL}")):
        partial.unlink()
    files = {name: entry for shard in done for name, entry in shard.items()}
    small = files_under(root, "zarr.json")
    small += [path for name in (*SMALL, TEXT) for path in files_under(root / name / "c")]
    files |= {path.relative_to(root).as_posix(): FileEntry.of(path) for path in small}
    sync_all(root, (path.relative_to(root).as_posix() for path in small))
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
