"""What a host is: one hash over its configuration and weights, whatever they are called and in whatever precision or
on whatever device they run."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import torch
from safetensors import safe_open
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel

from writesae.disk import read_json, sha256
from writesae.errors import HostError
from writesae.hosts.sources import in_cache

WEIGHTS = ("model.safetensors", "pytorch_model.bin")
"""Files of weights, in the order in which they are looked for; each may be an index of several."""
_RUN = ("dtype", "torch_dtype", "transformers_version", "architectures", "_name_or_path", "_attn_implementation")
"""Entries of a configuration that say how and by what a model was made, saved or run."""


def files_revision(folder: Path) -> Callable[[], str]:
    """The identity of a model that was just loaded from a folder, or from the Hub's cache, once it is asked for.

    It is the SHA-256 over the names and SHA-256 of the configuration and of the weights that are loaded. Raises
    HostError when it is asked for where the files have changed in between.
    """
    files = [folder / "config.json", *weight_files(folder)]
    before = [(path.stat().st_size, path.stat().st_mtime_ns) for path in files]

    def revision() -> str:
        if before != [(path.stat().st_size, path.stat().st_mtime_ns) for path in files if path.exists()]:
            raise HostError(f"the files in {folder} have changed since the model was loaded from it: load it again")
        lines = "".join(f"{path.name} {_file_hash(path)}\n" for path in files)
        return hashlib.sha256(lines.encode()).hexdigest()

    return revision


def model_revision(model: PreTrainedModel) -> str:
    """The identity of a model in memory: that of the files it came from, where its values are still theirs, rounded to
    its dtype; else the SHA-256 over its configuration and values. Raises HostError where weights are offloaded.
    """
    offloaded = next((name for name, x in model.state_dict().items() if x.is_meta), None)
    if offloaded is not None:
        raise HostError(f"{offloaded} is offloaded, so its values cannot be identified: load the model by its name")
    folder = _origin(model)
    if folder is not None and _holds(folder, model):
        return files_revision(folder)()
    digest = hashlib.sha256(_canonical(model.config).encode())
    for name, value in model.state_dict().items():
        digest.update(f"{name} {tuple(value.shape)}\n".encode())
        digest.update(_plain(value).view(torch.uint8).flatten().numpy().data)
    return digest.hexdigest()


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


def _file_hash(path: Path) -> str:
    """SHA-256 of a file; the Hub's cache keeps large files under theirs."""
    real = Path(os.path.realpath(path))
    return real.name if real.parent.name == "blobs" and re.fullmatch("[0-9a-f]{64}", real.name) else sha256(path)


def _plain(value: Tensor) -> Tensor:
    """Values in one precision: float32, unless that would lose some of a float64."""
    value = value.detach().cpu().contiguous()
    if not value.is_floating_point() or (value.dtype == torch.float64 and not torch.equal(value.float(), value)):
        return value
    return value.float()


def _canonical(config: PreTrainedConfig) -> str:
    """A configuration without what says how it is run."""

    def kept(data: object) -> object:
        return {k: kept(v) for k, v in data.items() if k not in _RUN} if isinstance(data, dict) else data

    return json.dumps(kept(json.loads(config.to_json_string())), sort_keys=True)


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
    if _canonical(type(model.config).from_pretrained(folder)) != _canonical(model.config):
        return False
    state, seen = model.state_dict(), set()
    for name, value in _tensors(files):
        own = state.get(name)
        if own is None or own.shape != value.shape or not torch.equal(value.to(own.dtype), own.cpu()):
            return False
        seen.add(own.data_ptr())
    return all(value.data_ptr() in seen for value in state.values())  # tied ones are stored once


def _tensors(files: list[Path]) -> Iterator[tuple[str, Tensor]]:
    for path in files:
        with safe_open(path, framework="pt") as held:
            for name in held.keys():  # noqa: SIM118  not a mapping
                yield name, held.get_tensor(name)
