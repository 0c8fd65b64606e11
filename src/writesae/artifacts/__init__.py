"""Dictionaries on disk and on the Hub: safe folders, collections, imports of published layouts.

`hub`, `verify`, `interchange` and `legacy` are modules of their own; they load what they need when imported.
"""

from writesae.artifacts.collection import Cell, Collection, add_to_collection, read_collection, write_index
from writesae.artifacts.folder import Loaded, add_metrics, load_folder, save_sae
from writesae.artifacts.load import load_sae
from writesae.artifacts.manifest import FileEntry, Manifest, Record, read_manifest

__all__ = [
    "Cell",
    "Collection",
    "FileEntry",
    "Loaded",
    "Manifest",
    "Record",
    "add_metrics",
    "add_to_collection",
    "load_folder",
    "load_sae",
    "read_collection",
    "read_manifest",
    "save_sae",
    "write_index",
]
