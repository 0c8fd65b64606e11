"""One dictionary as a folder: `config.json`, `weights.safetensors`, `README.md` and, last, `manifest.json`.

Where it is known on which text it was trained, `text.safetensors` holds a fingerprint of it.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch

from writesae.artifacts.card import model_card
from writesae.artifacts.fingerprints import TEXT, read_fingerprint, write_fingerprint
from writesae.artifacts.manifest import (
    FORMAT,
    MANIFEST,
    VERSION,
    Manifest,
    check_files,
    check_version,
    read_manifest,
    write_manifest,
)
from writesae.calls import worded
from writesae.config import Json, from_json, to_json
from writesae.disk import (
    PARTIAL,
    files_under,
    inside,
    map_tensors,
    new_folder,
    read_json,
    write_json,
    write_tensors,
    write_text,
)
from writesae.errors import DataError, OutputError, WritesaeError
from writesae.sae import SAE, BatchTopK, Bilinear, Factored, Record, SAEConfig, TopK

CONFIG, WEIGHTS, CARD = "config.json", "weights.safetensors", "README.md"
_CONFIG_LIMIT = 256 << 10


class Loaded(NamedTuple):
    """A dictionary and the manifest that it was loaded with."""

    sae: SAE
    """The dictionary, in evaluation mode, its weights mapped from the file."""
    manifest: Manifest
    """Its origin, and the hashes of its files."""


@worded
def save_sae(sae: SAE, folder: str | Path, record: Record | None = None, *, replace: bool = False) -> Manifest:
    """Write a dictionary folder; it appears complete or not at all. `record`: the dictionary's own where not given.

    `replace` allows an older dictionary in the same place to be replaced, and nothing else. Raises OutputError for a
    folder that belongs to something else, DataError where a weight or metric is not finite.
    """
    folder, known = Path(folder), sae.record or Record()
    record = record or known
    record = dataclasses.replace(record, text=record.text or known.text)  # a fact, whatever record is given
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in sae.state_dict().items()}
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise DataError(f"cannot save {folder}: {name} holds NaN or infinity")

    def replaceable(path: Path) -> bool:
        if not is_dictionary(path, only=True):
            return False
        if not replace:
            raise OutputError(f"{path} already holds a dictionary; choose another folder or ask to replace it")
        return True

    with new_folder(folder, replaceable) as partial:
        version = ".".join(map(str, VERSION))
        write_json(partial / CONFIG, {"format": FORMAT, "version": version, "sae": to_json(sae.config)})
        write_tensors(partial / WEIGHTS, tensors, {"format": "pt"})
        if record.text:
            write_fingerprint(partial / TEXT, record.text)
        write_text(partial / CARD, model_card(sae.config, record))
        return write_manifest(partial, record)


@worded
def add_metrics(folder: str | Path, metrics: Mapping[str, Json]) -> Manifest:
    """Add measured numbers (an evaluation's summary under its name) to a dictionary's record and card, in one step.

    Config and weights stay byte for byte. Raises DataError for a damaged folder, OutputError where it holds others.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    check_files(folder, manifest.files)
    record = dataclasses.replace(manifest.record, metrics={**manifest.record.metrics, **metrics})
    with new_folder(folder, lambda path: is_dictionary(path, only=True)) as partial:
        for name in manifest.files.keys() - {CARD}:
            (partial / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(inside(folder, name), partial / name)
        write_text(partial / CARD, model_card(read_config(folder), record))
        return write_manifest(partial, record)


def load_folder(folder: str | Path, *, hashes: bool = True) -> Loaded:
    """Load one dictionary folder without running code from it; the weights are memory-mapped, not copied.

    The sizes of its files are compared with the manifest, and their SHA-256 unless `hashes` is False. Raises
    DataError (damaged, incomplete or of a newer major version) or ConfigError (unknown keys or values in its config).
    """
    folder = Path(folder)
    if folder.name.endswith(PARTIAL):
        raise DataError(f"{folder} is an unfinished folder: writing it was interrupted")
    manifest = read_manifest(folder)
    check_files(folder, {name: manifest.files[name] for name in content(manifest)}, hashes)
    return read_listed(folder, manifest)


def read_listed(folder: Path, manifest: Manifest) -> Loaded:
    """What the files of a manifest, which were compared with it, hold. Raises as `load_folder`."""
    sae = build(read_config(folder), map_tensors(inside(folder, WEIGHTS)), str(folder / WEIGHTS))
    text = read_fingerprint(inside(folder, TEXT)) if TEXT in manifest.files else None
    sae.record = dataclasses.replace(manifest.record, text=text)
    return Loaded(sae, dataclasses.replace(manifest, record=sae.record))


def content(manifest: Manifest) -> tuple[str, ...]:
    """The files that a dictionary is loaded from: its config, its weights and, where there is one, its fingerprint.

    Raises DataError where the manifest does not list them.
    """
    if missing := {CONFIG, WEIGHTS} - manifest.files.keys():
        raise DataError(f"the manifest does not list {' and '.join(sorted(missing))}")
    return (CONFIG, WEIGHTS, TEXT) if TEXT in manifest.files else (CONFIG, WEIGHTS)


def build(config: SAEConfig, tensors: dict[str, torch.Tensor], name: str) -> SAE:
    """A dictionary around existing tensors, in evaluation mode; raises DataError where their shapes do not fit."""
    few = _few_features(config)
    held = sum(tensor.numel() for tensor in tensors.values())
    if (needed := config.numbers) > held:
        raise DataError(f"{name}: the tensors hold {held:,} numbers where the config asks for {needed:,} or more")
    # A dictionary of a few features is made and given the tensors: nothing large is drawn at random to be thrown away,
    # and the meta device, whose first use imports for a second, is not needed.
    sae = SAE(dataclasses.replace(config, features=few), torch.Generator())  # not the global one: loading draws nothing
    expected = {
        key: tuple(config.features if size == few else size for size in tensor.shape)
        for key, tensor in sae.state_dict().items()
    }
    given = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
    for key in sorted(expected.keys() | given.keys()):
        if expected.get(key) != given.get(key):
            wanted = expected.get(key, "no such tensor")
            raise DataError(f"{name}: {key} has shape {given.get(key, 'missing')} where the config asks for {wanted}")
    learnt = dict(sae.named_parameters())
    for key, tensor in tensors.items():
        setattr(sae, key, torch.nn.Parameter(tensor) if key in learnt else tensor)
    sae.config = config
    return sae.eval()


def _few_features(config: SAEConfig) -> int:
    """The smallest allowed number of features that is told apart from every other size of the config."""
    k = config.sparsity.k if isinstance(config.sparsity, TopK | BatchTopK) else 1
    ranks = {part.rank for part in (config.encoder, config.decoder) if isinstance(part, Bilinear | Factored)}
    sizes = {config.d_k, config.d_v, *ranks}
    least = max(2, k, *(prefix + 1 for prefix in config.prefixes))
    return next((n for n in range(least, config.features) if n not in sizes), config.features)


def read_config(folder: Path) -> SAEConfig:
    """Read `config.json` strictly: unknown keys inside `sae` are refused in every version (they change the meaning)."""
    path = inside(folder, CONFIG)
    data = read_json(path, _CONFIG_LIMIT)
    newer = check_version(data, path, FORMAT, VERSION)
    assert isinstance(data, dict)
    if not newer and (unknown := data.keys() - {"format", "version", "sae"}):
        raise DataError(f"{path} has unknown keys: {', '.join(sorted(unknown))}")
    return from_json(SAEConfig, data.get("sae"))


def dictionaries_in(root: Path) -> list[Path]:
    """The dictionaries at `root`: itself, or those of the runs that were trained there (`sae` or `RUN/sae`)."""
    for folders in ([root], [root / "sae"], sorted(root.glob("*/sae"))):
        found = [folder for folder in folders if (folder / MANIFEST).exists()]
        if found:
            return found
    return []


def is_dictionary(folder: Path, *, only: bool = False) -> bool:
    """Whether a folder has a readable manifest of a dictionary (`only`: and holds no file but those it lists)."""
    try:
        listed = {MANIFEST, *read_manifest(folder).files}
    except WritesaeError:
        return False
    return not only or {p.relative_to(folder).as_posix() for p in files_under(folder)} <= listed
