"""Where things are and where they may be written: what is missing, and output folders that belong to one run."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import is_dataclass
from difflib import get_close_matches
from pathlib import Path

from writesae.config import Json, from_json, to_json
from writesae.disk.files import check_local, json_bytes, make_folder, reason, write_json, writing
from writesae.disk.folders import holds
from writesae.disk.lock import check_unlocked, locked, within
from writesae.disk.read import read_json
from writesae.errors import ConfigError, OutputError

MARK = "run.json"
"""The file that says whose an output folder is."""
LONGEST = 50
"""Characters of a value that are shown in an error."""


def check_place(path: Path, *, file: bool = False) -> None:
    """Raise OutputError where no folder (or, with `file`, no file) can be written at `path`; makes nothing.

    Also where another process is writing there. To be asked before anything long is begun.
    """
    check_local(path)
    try:
        there = next(place for place in (path, *path.absolute().parents) if place.exists())
        folder = there.parent if file and there == path and not there.is_dir() else there
        if file and path.is_dir():
            raise OutputError(f"{path} is a folder: give a file to write")
        if file and there.is_dir() and not path.parent.is_dir():
            raise OutputError(f"there is no folder {path.parent}: make it first, or give another place than {path}")
        if not folder.is_dir():
            raise OutputError(f"{folder} is a file: give another place than {path}")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise OutputError(f"{folder} cannot be written to: give another place than {path}")
        check_unlocked(path)
    except OSError as error:  # a name too long, a folder that may not be searched
        raise OutputError(f"cannot write {path}: {reason(error)}") from None


def missing(path: Path, kind: str = "file or folder", names: Iterable[str] = ()) -> str:
    """What is said of a path where nothing is, with what it may have meant: names beside it, or other `names`."""
    name, parent = path.name, path.parent
    while not parent.is_dir():
        name, parent = parent.name, parent.parent
    beside = [place.name for place in parent.iterdir()] if os.access(parent, os.R_OK) else []
    near = [str(parent / close) for close in get_close_matches(name, beside)]
    near += get_close_matches(str(path), names, n=1)
    return f"there is no {kind} {path}" + f" (near: {', '.join(near)})" * bool(near)


def check_owner(folder: Path, kind: str, *marks: str) -> bool:
    """Whether a folder already belongs to something of this kind, which one of the files `marks` tells.

    Raises OutputError where it holds other things only, or cannot be written to.
    """
    check_place(folder)
    with writing(folder):
        held = holds(folder)
    if held and not set(marks) & set(held):
        raise OutputError(f"{folder} holds {held[0]} and no {kind}: choose another folder, or empty it")
    return bool(held)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Make a folder, if it is not there, and keep other processes from writing in it until the block ends.

    Raises OutputError where one is writing in it, with its number and host, or where the folder cannot be made.
    """
    make_folder(folder)
    with ExitStack() as held:
        with writing(folder):
            held.enter_context(locked(within(folder), folder))
        yield


def claim(folder: Path, kind: str, asked: Mapping[str, object]) -> bool:
    """Make `folder` that of one run, or see that it is; returns whether the run was begun before.

    `kind` says in words what is run ("training run"), `asked` is everything that makes the run what it is, JSON or
    configs; it is kept in `run.json`. A config of an older version, which lacks fields that were added since, counts
    as having their defaults: a new field's default must be what was done before. Raises OutputError where the folder
    holds anything else, saying what differs.
    """
    mine = json.loads(json_bytes({name: to_json(value) for name, value in asked.items()}, MARK))
    if not check_owner(folder, kind, MARK):
        make_folder(folder)
        write_json(folder / MARK, mine)
        return False
    theirs = read_json(folder / MARK)
    for name, value in asked.items():
        if is_dataclass(value) and isinstance(theirs, dict):
            with suppress(ConfigError):  # of a newer version: what differs is told as it is written
                theirs[name] = to_json(from_json(type(value), theirs.get(name)))
    if theirs != mine:
        raise OutputError(f"{folder} belongs to another {kind} ({difference(theirs, mine)}): choose another folder")
    return True


def difference(theirs: Json, mine: Json) -> str:
    """The first of what two runs disagree on, in words."""
    there, here = _flat(theirs), _flat(mine)
    names = [name for name in {**here, **there} if there.get(name, _flat) != here.get(name, _flat)]
    told = [f"{name} is {_value(there, name)} there and {_value(here, name)} here" for name in names[:3]]
    return ", ".join(told) + (f", and {len(names) - 3} more" if len(names) > 3 else "")


def _flat(data: Json, name: str = "") -> dict[str, Json]:
    """Nested objects by dotted names."""
    if not isinstance(data, dict) or not data:
        return {name or "it": data}
    found: dict[str, Json] = {}
    for key, value in data.items():
        found |= _flat(value, f"{name}.{key}" if name else key)
    return found


def _value(flat: Mapping[str, Json], name: str) -> str:
    text = json.dumps(flat[name], ensure_ascii=False) if name in flat else "not set"
    return text if len(text) <= LONGEST else text[: LONGEST // 2] + ".."
