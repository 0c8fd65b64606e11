"""What a host is: one hash over its configuration and tensors, whatever they are called, however they are split into
files, and in whatever precision or on whatever device they run."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import cast

import torch
from safetensors import safe_open
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel

from writesae.disk import make_folder, read_json, write_text
from writesae.errors import HostError, OutputError
from writesae.hosts.internals import changes
from writesae.hosts.sources import in_cache

WEIGHTS = ("model.safetensors", "pytorch_model.bin")
"""Files of weights, in the order in which they are looked for; each may be an index of several."""
WORTH_KEEPING = 2**26
"""Bytes of a file from which on the hashes of its tensors are kept between processes: 54 GB take minutes to read."""
_RUN = ("dtype", "torch_dtype", "transformers_version", "architectures", "_name_or_path", "_attn_implementation")
"""Entries of a configuration that say how and by what a model was made, saved or run."""


class Identity:
    """The identity of a model: that of the files it was loaded from, as long as nobody changes it in memory.

    It is found when it is first asked for, and again only after a change. A change through `Tensor.data` is not seen.
    """

    def __init__(self, model: PreTrainedModel, folder: Path | None = None) -> None:
        """With `folder`, the model has just been loaded from there, or from the Hub's cache."""
        self._model = model
        self._files = None if folder is None else files_revision(folder)
        self._loaded = changes(model)
        self._found: tuple[object, str] | None = None

    def __call__(self) -> str:
        """Raises HostError where files have changed since they were loaded, or values in memory cannot be read."""
        now = changes(self._model)
        if self._found is None or self._found[0] != now:
            untouched = self._files is not None and now == self._loaded
            self._found = now, self._files() if untouched and self._files else model_revision(self._model)
        return self._found[1]


def files_revision(folder: Path) -> Callable[[], str]:
    """What finds the SHA-256 over the configuration and the tensors of a folder, as they are at this moment.

    Raises HostError when it is called where the files have changed in between.
    """
    files = [folder / "config.json", *weight_files(folder)]
    before = [_stamp(path) for path in files]

    def revision() -> str:
        if before != [_stamp(path) for path in files if path.exists()]:
            raise HostError(f"the files in {folder} have changed since the model was loaded from it: load it again")
        return _revision(_canonical(read_json(files[0])), (line for path in files[1:] for line in _file_lines(path)))

    return revision


def model_revision(model: PreTrainedModel) -> str:
    """The identity of a model in memory: that of the files it came from, where its values are still theirs, rounded to
    its dtype; else the SHA-256 over its configuration and values. Raises HostError where weights are offloaded.
    """
    state = model.state_dict()
    for name, x in state.items():
        if not isinstance(x, Tensor) or x.is_meta:
            why = "offloaded" if isinstance(x, Tensor) else f"a {type(x).__name__}, no tensor"
            raise HostError(f"{name} is {why}, so its values cannot be identified: load the model by its name")
    folder = _origin(model)
    if folder is not None and _holds(folder, model):
        return files_revision(folder)()
    return _revision(_of_memory(model.config), (_line(name, _plain(value)) for name, value in state.items()))


def _revision(config: str, lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join([config, *sorted(lines)]).encode()).hexdigest()


def _line(name: str, value: Tensor) -> str:
    values = value.contiguous().reshape(-1).view(torch.uint8).numpy()
    return f"{name} {value.dtype} {list(value.shape)} {hashlib.sha256(values.data).hexdigest()}"


def _stamp(path: Path) -> tuple[int, int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns, found.st_ino


def _file_lines(path: Path) -> list[str]:
    """A line for each tensor of a file of weights; those of a large file are read once and then kept.

    The Hub's cache keeps a large file under its SHA-256; any other is known by its place, size, time and inode.
    """
    real = Path(os.path.realpath(path))
    hashed = real.parent.name == "blobs" and re.fullmatch("[0-9a-f]{64}", real.name)
    key = real.name if hashed else hashlib.sha256(repr((str(real), *_stamp(real))).encode()).hexdigest()
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    kept = caches / "writesae" / "tensors" / f"{key}.txt"
    with suppress(OSError, UnicodeDecodeError):
        head, *lines = kept.read_text("utf-8").splitlines()
        if head == f"{len(lines)} tensors":
            return lines
    with _tensors(path) as (names, get), ThreadPoolExecutor(os.cpu_count()) as pool:
        lines = list(pool.map(lambda name: _line(name, get(name)), names))
    if real.stat().st_size >= WORTH_KEEPING:
        with suppress(OutputError, OSError):  # a home that cannot be written to: the file is read again next time
            make_folder(kept.parent)
            write_text(kept, "\n".join([f"{len(lines)} tensors", *lines]))
    return lines


def weight_files(folder: Path) -> list[Path]:
    """The files from which transformers takes a folder's weights; none where there are none."""
    for name in WEIGHTS:
        if (folder / name).is_file():
            return [folder / name]
        index = folder / f"{name}.index.json"
        if index.is_file():
            parts = cast("dict[str, dict[str, str]]", read_json(index))["weight_map"]
            return [folder / part for part in sorted(set(parts.values()))]
    return []


def _plain(value: Tensor) -> Tensor:
    """Values in one precision: float32, unless that would lose some of a float64."""
    value = value.detach().cpu().contiguous()
    if not value.is_floating_point() or (value.dtype == torch.float64 and not torch.equal(value.float(), value)):
        return value
    return value.float()


def _canonical(config: object) -> str:
    """A configuration's JSON without what says how it is run."""

    def kept(data: object) -> object:
        return {k: kept(v) for k, v in data.items() if k not in _RUN} if isinstance(data, dict) else data

    return json.dumps(kept(config), sort_keys=True)


def _of_memory(config: PreTrainedConfig) -> str:
    return _canonical(json.loads(config.to_json_string()))


def _origin(model: PreTrainedModel) -> Path | None:
    """The folder that a model says it was loaded from, if it is still there."""
    name = model.config.name_or_path or ""
    folder = Path(name) if Path(name).is_dir() else in_cache(name)
    return folder if folder is not None and (folder / "config.json").is_file() else None


def _holds(folder: Path, model: PreTrainedModel) -> bool:
    """Whether every value of the model stands in the safetensors files of a folder, under its name."""
    files = weight_files(folder)
    if not files or any(path.suffix != ".safetensors" or not path.is_file() for path in files):
        return False
    if _of_memory(type(model.config).from_pretrained(folder)) != _of_memory(model.config):
        return False
    state, seen = model.state_dict(), set()
    for path in files:
        with _tensors(path) as (names, get):
            for name in names:
                own = state.get(name)
                if own is None or own.shape != (value := get(name)).shape:
                    return False
                if not torch.equal(value.to(own.dtype), own.cpu()):
                    return False
                seen.add(own.data_ptr())
    return all(value.data_ptr() in seen for value in state.values())  # tied ones are stored once


@contextmanager
def _tensors(path: Path) -> Iterator[tuple[list[str], Callable[[str], Tensor]]]:
    """The names of a file's tensors, and what reads one."""
    if path.suffix == ".safetensors":
        with safe_open(path, framework="pt") as held:
            yield list(held.keys()), held.get_tensor
    else:
        state = cast("dict[str, Tensor]", torch.load(path, map_location="cpu", weights_only=True))
        yield list(state), state.__getitem__
