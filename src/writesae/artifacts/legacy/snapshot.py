"""A whole downloaded release of either layout as one collection.

Known layouts: `writesae_L9_H4/...pt` and `flat_L9_H4/...pt` (first release); `writesae/qwen0p8b/L9_H4/best.pt`,
`flat_baseline/qwen0p8b_L9_H4/...pt`, `results/*/*.json` (second release). Both have a `manifest.json` with SHA-256.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from writesae.artifacts.collection import RESULTS, Collection, cell_path, write_index
from writesae.artifacts.folder import save_sae
from writesae.artifacts.legacy.convert import convert_file
from writesae.artifacts.manifest import MANIFEST
from writesae.config import Json
from writesae.disk import FileEntry, files_under, inside, new_folder, read_json
from writesae.errors import DataError, InputError, WritesaeError
from writesae.sae import Record
from writesae.types import Site, Target

CHECKPOINTS = (".pt", ".pth")
_HOSTS = {
    "qwen0p8b": "Qwen/Qwen3.5-0.8B",
    "qwen4b": "Qwen/Qwen3.5-4B",
    "qwen27b": "Qwen/Qwen3.5-27B",
    "mamba2-370m": "state-spaces/mamba2-370m",
    "deltanet-1.3b": "fla-hub/delta_net-1.3B-100B",
    "gla-1.3b": "fla-hub/gla-1.3B-100B",
}
_CELL = re.compile(r"(?:(?P<prefix>.+)_)?L(?P<layer>\d+)_H(?P<head>\d+)")
_VARIANTS = {"flat_baseline": "flat"}


@dataclass(frozen=True)
class Snapshot:
    """What became of a release."""

    collection: Collection
    """The imported dictionaries."""
    verified: int
    """Files whose SHA-256 and size were compared with the release's manifest and agree."""
    unlisted: tuple[str, ...]
    """Imported files that its manifest does not list (all, where it has none)."""
    refused: dict[str, str]
    """Files that were not imported, with the reason."""


def convert_snapshot(
    tree: str | Path,
    out: str | Path,
    *,
    target: Target = "state",
    shape: tuple[int, int] | None = None,
    host: str | None = None,
    threshold: float | None = None,
) -> Snapshot:
    """Import every checkpoint under `tree` into a new collection at `out`, with the JSON files of `results/`.

    A file that differs from the release's manifest, or that is damaged or hostile, is refused with its reason and the
    others are imported. Raises DataError where nothing could be imported.
    """
    tree, out = Path(tree), Path(out)
    listed = _release_manifest(tree)
    names = [path.relative_to(tree).as_posix() for kind in CHECKPOINTS for path in files_under(tree, kind)]
    results = [path.relative_to(tree).as_posix() for path in files_under(tree / RESULTS, ".json")]
    if not names:
        raise InputError(f"{tree} holds no checkpoint ({' or '.join(CHECKPOINTS)})")
    refused: dict[str, str] = {}
    unlisted: list[str] = []
    verified = 0
    with new_folder(out) as partial:
        for name in [*names, *results]:
            try:
                path = inside(tree, name)
                if name in listed:
                    digest, size = listed[name]
                    entry = FileEntry(digest, path.stat().st_size if size is None else size)
                    if problem := entry.problem(path):
                        raise DataError(f"it {problem}, as the release's manifest says")
                if path.suffix in CHECKPOINTS:
                    converted = convert_file(path, target=target, shape=shape, host=host, threshold=threshold)
                    record = _located(converted.record, name, host)
                    save_sae(converted.sae, partial / _free(partial, record, path.stem), record)
                else:
                    read_json(path)
                    (partial / name).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(path, partial / name)
            except WritesaeError as error:
                refused[name] = str(error)
                continue
            verified += name in listed
            unlisted += [] if name in listed else [name]
        if set(names) <= refused.keys():
            raise DataError(f"nothing of {tree} could be imported; {names[0]}: {refused[names[0]]}")
        collection = write_index(partial)
    return Snapshot(collection, verified, tuple(unlisted), refused)


def _located(record: Record, name: str, host: str | None) -> Record:
    """The record with what the folder names say; raises DataError where they contradict the checkpoint."""
    parts = name.split("/")[:-1]
    site, prefix = None, ""
    for part in parts:
        if (match := _CELL.fullmatch(part)) is not None:
            site, prefix = Site(int(match["layer"]), int(match["head"])), match["prefix"] or ""
    if site is not None and record.site not in (None, site):
        raise DataError(f"its folder says {site}, the checkpoint says {record.site}")
    release = parts[0] if len(parts) > 1 else prefix
    said = (parts[1] if len(parts) > 2 else prefix) if site is not None and len(parts) > 1 else None
    found = host or record.host or (_HOSTS.get(said, said) if said else None)
    sparsity = "_batchtopk" if str(record.variant).endswith("_batchtopk") else ""
    variant = _VARIANTS.get(release, release) + sparsity if release else record.variant
    source: dict[str, Json] = {**record.source, "file": name}
    return replace(record, site=site or record.site, host=found, variant=variant, source=source)


def _free(root: Path, record: Record, stem: str) -> str:
    path = cell_path(record)
    return path if not (root / path).exists() else f"{path}-{stem}"


def _release_manifest(tree: Path) -> dict[str, tuple[str, int | None]]:
    """SHA-256 and size by file name; the two releases and their tools write it in several shapes."""
    if not (tree / MANIFEST).exists():
        return {}
    data = read_json(inside(tree, MANIFEST))
    listed = dict(_entries(data))
    if not listed:
        raise DataError(f"{tree / MANIFEST} lists no file with its SHA-256: it cannot be verified")
    return listed


def _entries(data: Json, name: str | None = None) -> Iterator[tuple[str, tuple[str, int | None]]]:
    if isinstance(data, str) and name is not None and re.fullmatch(r"(sha256:)?[0-9a-fA-F]{64}", data):
        yield name, (data.removeprefix("sha256:").lower(), None)
    elif isinstance(data, dict):
        digest = data.get("sha256", data.get("sha256sum", data.get("hash")))
        path = next((data[key] for key in ("path", "file", "filename", "name") if isinstance(data.get(key), str)), name)
        if isinstance(digest, str) and isinstance(path, str):
            size = next((data[key] for key in ("size", "bytes", "size_bytes", "n_bytes") if key in data), None)
            yield path, (digest.removeprefix("sha256:").lower(), size if isinstance(size, int) else None)
        else:
            for key, value in data.items():
                yield from _entries(value, key)
    elif isinstance(data, list):
        for value in data:
            yield from _entries(value)
