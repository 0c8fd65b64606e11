"""`writesae convert`"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from writesae.disk import check_place, check_there
from writesae.errors import DataError, InputError
from writesae.types import Target


@dataclass(frozen=True)
class Command:
    """Import released checkpoints without running code from them: one .pt file (a dictionary), a folder with many (a
    collection, verified against its manifest.json), or a SAELens or sparsify folder. Or export one to SAELens, or a
    result of `eval atoms` to Neuronpedia's format."""

    path: Positional[Path]
    """A .pt file, a downloaded release, a SAELens or sparsify folder; to export, a dictionary, a run or a result."""
    out: Positional[Path]
    """A folder to be made."""
    write_target: Target | None = None
    """The matrix that imported dictionaries model, which the files do not say; the state if not said, on which the
    research code trained."""
    host: str | None = None
    """Id of the host model, where the files do not say it."""
    d_k: int | None = None
    """Key side of the head, where a flat dictionary does not say it."""
    d_v: int | None = None
    """Value side of the head, where a flat dictionary does not say it."""
    threshold: float | None = None
    """Threshold to use a BatchTopK checkpoint with (such files hold none)."""
    to: Literal["writesae", "saelens", "neuronpedia"] = "writesae"
    """Format that is written: neuronpedia is SAEDashboard's feature JSON, of a result of `eval atoms`."""
    side: Literal["matrix", "key", "value"] | None = None
    """For an export: flattened matrices (if nothing is said), or one side of rank-1 atoms."""


def run(command: Command) -> None:
    """Convert, then say what was made; exits with 2 where a file of a release was refused."""
    check_there(command.path)
    check_place(command.out)
    shape = _shape(command)
    if command.to == "saelens":
        _only(command, "an export", "side")
        _export(command)
    elif command.to == "neuronpedia":
        _only(command, "an export of portraits")
        _portraits(command)
    elif (command.path / "cfg.json").exists():
        _only(command, "an SAE of vectors", "write_target", "d_k", "d_v")
        _vectors(command, shape)
    else:
        _only(command, "a release", "write_target", "d_k", "d_v", "host", "threshold")
        _release(command, shape)


def _export(command: Command) -> None:
    from writesae.artifacts import load_sae
    from writesae.artifacts.interchange import export_saelens

    sae, side = load_sae(command.path), command.side or "matrix"
    export_saelens(sae, command.out, side=side)
    print(f"{command.out}: SAELens {side} dictionary of {sae.config.features:,} features")


def _portraits(command: Command) -> None:
    from writesae.evals.atoms.export import write_neuronpedia
    from writesae.evals.common.result import Result

    result = Result.load(command.path)
    print(f"{write_neuronpedia(result, command.out)}: {result.n:,} features")


def _vectors(command: Command, shape: tuple[int, int] | None) -> None:
    from writesae.artifacts import save_sae
    from writesae.artifacts.interchange import import_vectors

    if shape is None:
        raise InputError(f"{command.path} holds an SAE of vectors: give --d-k and --d-v of the flattened matrices")
    imported = import_vectors(command.path, shape, target=command.write_target or "state")
    save_sae(imported.sae, command.out, imported.record)
    print(f"{command.out}: {imported.sae.config.features:,} features from {imported.record.source['layout']}")


def _release(command: Command, shape: tuple[int, int] | None) -> None:
    from writesae.artifacts import save_sae
    from writesae.artifacts.legacy import convert_file, convert_snapshot

    target, host, threshold = command.write_target or "state", command.host, command.threshold
    if not command.path.is_dir():
        converted = convert_file(command.path, target=target, shape=shape, host=host, threshold=threshold)
        save_sae(converted.sae, command.out, converted.record)
        config = converted.sae.config
        print(f"{command.out}: {converted.record.variant}, {config.features:,} features of {config.d_k} x {config.d_v}")
        return
    done = convert_snapshot(command.path, command.out, target=target, shape=shape, host=host, threshold=threshold)
    for cell in done.collection.cells:
        print(f"{cell.path}: {cell}")
    print(f"{len(done.collection.cells)} dictionaries; {done.verified} files agree with the release's manifest")
    if done.unlisted:
        print(f"not listed in a manifest: {', '.join(done.unlisted)}")
    if done.refused:
        told = "; ".join(f"{name}: {reason}" for name, reason in done.refused.items())
        raise DataError(f"{len(done.refused)} files were refused, the others are in {command.out}: {told}")


def _shape(command: Command) -> tuple[int, int] | None:
    """The head's sides; raises InputError for one without the other."""
    given = [side for side in (command.d_k, command.d_v) if side is not None]
    if len(given) == 1 or min(given, default=1) < 1:
        raise InputError("give both --d-k and --d-v, at least 1 each, or neither")
    return (given[0], given[1]) if given else None


def _only(command: Command, what: str, *takes: str) -> None:
    """Raise InputError where a flag was given that says nothing to `what`."""
    for name in ("write_target", "host", "d_k", "d_v", "threshold", "side"):
        if getattr(command, name) is not None and name not in takes:
            flags = ", ".join("--" + one.replace("_", "-") for one in takes) or "none of these flags"
            raise InputError(f"--{name.replace('_', '-')} says nothing to {what}, which takes {flags}: leave it out")
