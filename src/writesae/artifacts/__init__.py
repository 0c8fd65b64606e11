"""Dictionaries on disk and on the Hub: safe folders, collections, imports of published layouts."""

from writesae.artifacts.folder import Loaded, load_folder, save_sae
from writesae.artifacts.load import load_sae
from writesae.artifacts.manifest import FileEntry, Manifest, Record, read_manifest

__all__ = ["FileEntry", "Loaded", "Manifest", "Record", "load_folder", "load_sae", "read_manifest", "save_sae"]
