"""`load_sae`: one line that loads a dictionary from wherever it is."""

from __future__ import annotations

from pathlib import Path

from writesae.artifacts.folder import load_folder
from writesae.errors import InputError
from writesae.sae import SAE


def load_sae(source: str | Path, *, hashes: bool = True) -> SAE:
    """Load a dictionary folder, in evaluation mode; raises InputError where there is none at `source`.

    `hashes=False` skips the SHA-256 of the files (their sizes are always compared with the manifest).
    """
    folder = Path(source)
    if not folder.is_dir():
        raise InputError(f"cannot load a dictionary from {source}: there is no such folder")
    return load_folder(folder, hashes=hashes).sae
