"""Checkpoints of the research code, read without running anything that is in them.

The only place in the package where a type is guessed from tensor names: the old files do not write it down.
"""

from writesae.artifacts.legacy.convert import Converted, convert_file
from writesae.artifacts.legacy.reader import read_archive
from writesae.artifacts.legacy.snapshot import Snapshot, convert_snapshot

__all__ = ["Converted", "Snapshot", "convert_file", "convert_snapshot", "read_archive"]
