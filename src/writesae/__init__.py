"""Sparse dictionaries of what recurrent language models write into their matrix state.

    import writesae as ws
    host = ws.load_host("tiny-gdn")

Names are imported when first used: `import writesae` loads neither torch nor transformers.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from writesae import evals
    from writesae.artifacts import load_sae, save_sae
    from writesae.corpus import read_documents, token_blocks
    from writesae.hosts import Host, load_host
    from writesae.sae import SAE, SAEConfig
    from writesae.store import StreamStore, capture, open_store
    from writesae.train import TrainConfig, TrainResult, train
    from writesae.types import Site

_HOME = {
    "Host": "hosts",
    "SAE": "sae",
    "SAEConfig": "sae",
    "Site": "types",
    "StreamStore": "store",
    "TrainConfig": "train",
    "TrainResult": "train",
    "capture": "store",
    "load_host": "hosts",
    "load_sae": "artifacts",
    "open_store": "store",
    "read_documents": "corpus",
    "save_sae": "artifacts",
    "token_blocks": "corpus",
    "train": "train",
}

__all__ = [
    "SAE", "Host", "SAEConfig", "Site", "StreamStore", "TrainConfig", "TrainResult", "capture", "evals", "load_host",
    "load_sae", "open_store", "read_documents", "save_sae", "token_blocks", "train",
]  # fmt: skip


def __getattr__(name: str) -> object:
    if name == "evals":
        return importlib.import_module("writesae.evals")
    if name in _HOME:
        return getattr(importlib.import_module(f"writesae.{_HOME[name]}"), name)
    raise AttributeError(f"module 'writesae' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
