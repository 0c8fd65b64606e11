"""Reading and writing: files whole or not at all, folders that belong to one run, refusals in one line."""

from writesae.disk.files import (
    JSON_LIMIT,
    LARGE,
    PARTIAL,
    json_bytes,
    make_folder,
    parse_json,
    partial_beside,
    read_json,
    read_table,
    sha256,
    sync,
    whole,
    write_bytes,
    write_json,
    write_table,
    write_text,
    writing,
)
from writesae.disk.places import MARK, check_owner, check_place, check_there, claim, missing

__all__ = [
    "JSON_LIMIT", "LARGE", "MARK", "PARTIAL", "check_owner", "check_place", "check_there", "claim", "json_bytes",
    "make_folder", "missing", "parse_json", "partial_beside", "read_json", "read_table", "sha256", "sync", "whole",
    "write_bytes", "write_json", "write_table", "write_text", "writing",
]  # fmt: skip
