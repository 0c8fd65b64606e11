"""Dictionaries on disk and on the Hub: safe folders, collections, imports of published layouts.

Importing this part gives every dictionary its `save` and `push_to_hub`.

`hub`, `verify`, `interchange` and `legacy` are modules of their own; they load what they need when imported.
"""

from writesae.artifacts import attached as _attached  # noqa: F401 (attaches the methods of SAE)
from writesae.artifacts.collection import Cell, Collection, add_to_collection, read_collection, write_index
from writesae.artifacts.folder import Loaded, add_metrics, load_folder, save_sae
from writesae.artifacts.load import load_sae
from writesae.artifacts.manifest import Manifest, read_manifest

__all__ = [
    "Cell", "Collection", "Loaded", "Manifest", "add_metrics", "add_to_collection", "load_folder", "load_sae",
    "read_collection", "read_manifest", "save_sae", "write_index",
]  # fmt: skip
