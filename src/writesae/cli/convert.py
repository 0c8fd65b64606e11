"""`writesae convert`"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from writesae.types import Target


@dataclass(frozen=True)
class Command:
    """Import released checkpoints without running code from them: one .pt file (a dictionary), a folder with many (a
    collection, verified against its manifest.json), or a SAELens or sparsify folder. Or export one to SAELens."""

    path: Positional[Path]
    """A .pt file, a downloaded release, a SAELens or sparsify folder; for an export, a dictionary."""
    out: Positional[Path]
    """A folder to be made."""
    write_target: Target = "state"
    """The matrix that imported dictionaries model; the files do not say, the research code trained on states."""
    host: str | None = None
    """Id of the host model, where the files do not say it."""
    d_k: int | None = None
    """Key side of the head, where a flat dictionary does not say it."""
    d_v: int | None = None
    """Value side of the head, where a flat dictionary does not say it."""
    threshold: float | None = None
    """Threshold to use a BatchTopK checkpoint with (such files hold none)."""
    to: Literal["writesae", "saelens"] = "writesae"
    """Format that is written."""
    side: Literal["matrix", "key", "value"] = "matrix"
    """For SAELens: flattened matrices, or one side of rank-1 atoms."""


def run(command: Command) -> None:
    """Convert, then say what was made; exits with 2 where a file of a release was refused."""
    from writesae.artifacts.folder import load_folder, save_sae
    from writesae.artifacts.interchange import export_saelens, import_vectors
    from writesae.artifacts.legacy import convert_file, convert_snapshot
    from writesae.errors import DataError, InputError

    path, out = command.path, command.out
    if (command.d_k is None) != (command.d_v is None):
        raise InputError("give both --d-k and --d-v, or neither")
    shape = None if command.d_k is None or command.d_v is None else (command.d_k, command.d_v)
    if not path.exists():
        raise InputError(f"cannot convert {path}: it does not exist")
    if command.to == "saelens":
        loaded = load_folder(path)
        export_saelens(loaded.sae, out, loaded.manifest.record, side=command.side)
        print(f"{out}: SAELens {command.side} dictionary of {loaded.sae.config.features:,} features")
    elif (path / "cfg.json").exists():
        if shape is None:
            raise InputError(f"{path} holds an SAE of vectors: give --d-k and --d-v of the flattened matrices")
        imported = import_vectors(path, shape, target=command.write_target)
        save_sae(imported.sae, out, imported.record)
        print(f"{out}: {imported.sae.config.features:,} features from {imported.record.source['layout']}")
    elif path.is_dir():
        done = convert_snapshot(
            path, out, target=command.write_target, shape=shape, host=command.host, threshold=command.threshold
        )
        for cell in done.collection.cells:
            print(f"{cell.path}: {cell}")
        print(f"{len(done.collection.cells)} dictionaries; {done.verified} files agree with the release's manifest")
        if done.unlisted:
            print(f"not listed in a manifest: {', '.join(done.unlisted)}")
        if done.refused:
            told = "; ".join(f"{name}: {reason}" for name, reason in done.refused.items())
            raise DataError(f"{len(done.refused)} files were refused, the others are in {out}: {told}")
    else:
        converted = convert_file(
            path, target=command.write_target, shape=shape, host=command.host, threshold=command.threshold
        )
        save_sae(converted.sae, out, converted.record)
        config = converted.sae.config
        print(f"{out}: {converted.record.variant}, {config.features:,} features of {config.d_k} x {config.d_v}")
