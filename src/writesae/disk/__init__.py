"""Reading and writing: files whole or not at all, folders that belong to one run, refusals in one line."""

from writesae.disk.address import AT_ONCE, Folder, Place, check_there, is_address, place
from writesae.disk.files import (
    PARTIAL,
    FileEntry,
    json_bytes,
    make_folder,
    partial_beside,
    reason,
    sha256,
    sync,
    whole,
    write_bytes,
    write_json,
    write_table,
    write_text,
    writing,
)
from writesae.disk.folders import (
    check_name,
    files_under,
    holds,
    inside,
    is_system,
    new_folder,
    recover,
    regular_files,
)
from writesae.disk.places import MARK, alone, check_owner, check_place, claim, difference, missing
from writesae.disk.read import JSON_LIMIT, LARGE, parse_json, read_json, read_lines, read_table
from writesae.disk.tensors import map_tensors, tensor_header, write_tensors

__all__ = [
    "AT_ONCE", "JSON_LIMIT", "LARGE", "MARK", "PARTIAL", "FileEntry", "Folder", "Place", "alone", "check_name",
    "check_owner", "check_place", "check_there", "claim", "difference", "files_under", "holds", "inside", "is_address",
    "is_system", "json_bytes", "make_folder", "map_tensors", "missing", "new_folder", "parse_json", "partial_beside",
    "place", "read_json", "read_lines", "read_table", "reason", "recover", "regular_files", "sha256", "sync",
    "tensor_header", "whole", "write_bytes", "write_json", "write_table", "write_tensors", "write_text", "writing",
]  # fmt: skip
