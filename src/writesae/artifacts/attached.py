"""Gives `SAE` its `save` and `push_to_hub`: dictionaries stand below their folders, so the methods come from here."""

from __future__ import annotations

from pathlib import Path

from writesae.artifacts.folder import save_sae
from writesae.sae import SAE, Record


def save(self: SAE, folder: str | Path, record: Record | None = None, *, replace: bool = False) -> None:
    """Write a dictionary folder; the same as `writesae.save_sae(self, folder, record, replace=replace)`."""
    save_sae(self, folder, record, replace=replace)


def push_to_hub(self: SAE, repo: str, record: Record | None = None, *, private: bool = False) -> str:
    """Upload to the Hub as a cell of the repository's collection: `writesae.push_sae`. Returns the address."""
    from writesae.artifacts.hub import push_sae  # the Hub's client takes its time to import

    return push_sae(self, repo, record, private=private)


SAE.save = save  # type: ignore[method-assign]
SAE.push_to_hub = push_to_hub  # type: ignore[method-assign]
