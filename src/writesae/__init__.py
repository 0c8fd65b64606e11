"""Sparse dictionaries of what recurrent language models write into their matrix state.

    import writesae as ws
    model = ws.load("tiny-gdn")

Names are imported when first used: `import writesae` loads neither torch nor transformers.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from writesae import attribution, edits, evals
    from writesae.artifacts import add_metrics, load_sae, save_sae
    from writesae.artifacts.hub import push_sae
    from writesae.attribution import attribute, codes
    from writesae.corpus import Passages, Text, text
    from writesae.hosts import Host, load
    from writesae.page import plot, report
    from writesae.sae import SAE, Record, SAEConfig
    from writesae.store import StreamStore, capture, open_store
    from writesae.training import TrainConfig, TrainResult, train
    from writesae.types import Site

_HOME = {
    "Host": "hosts",
    "Passages": "corpus",
    "Record": "sae",
    "SAE": "sae",
    "SAEConfig": "sae",
    "Site": "types",
    "StreamStore": "store",
    "Text": "corpus",
    "TrainConfig": "training",
    "TrainResult": "training",
    "add_metrics": "artifacts",
    "attribute": "attribution",
    "capture": "store",
    "codes": "attribution",
    "load": "hosts",
    "load_sae": "artifacts",
    "open_store": "store",
    "plot": "page",
    "push_sae": "artifacts.hub",
    "report": "page",
    "save_sae": "artifacts",
    "text": "corpus",
    "train": "training",
}

_RENAMED = {"load_host": "load", "read_documents": "text", "token_blocks": "text"}
"""Old names -> their successors."""

_PARTS = ("attribution", "edits", "evals")

__all__ = [
    "SAE", "Host", "Passages", "Record", "SAEConfig", "Site", "StreamStore", "Text", "TrainConfig", "TrainResult",
    "add_metrics", "attribute", "attribution", "capture", "codes", "edits", "evals", "load", "load_sae", "open_store",
    "plot", "push_sae", "report", "save_sae", "text", "train",
]  # fmt: skip


def __getattr__(name: str) -> object:
    if name in _PARTS:
        return importlib.import_module(f"writesae.{name}")
    if name in _HOME:
        return getattr(importlib.import_module(f"writesae.{_HOME[name]}"), name)
    if name in _RENAMED:
        raise AttributeError(f"writesae.{name} is now writesae.{_RENAMED[name]}")
    raise AttributeError(f"module 'writesae' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
