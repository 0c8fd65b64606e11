"""What a pickle is going to do, told before torch's restricted unpickler does it.

That unpickler runs nothing of a file, but lets a small file take any amount of time and memory: a call copies its
argument, and a key that is a tuple of tuples is hashed to its depth. So the operations are followed here with sizes in
place of values (what each takes and leaves is `pickletools`' own table), and the sum of what is copied is bounded.
"""

from __future__ import annotations

import pickletools
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import BinaryIO

from writesae.artifacts.legacy.inert import CLASS_REFERENCE, stand_in
from writesae.errors import DataError

PICKLE_LIMIT = 16 << 20
"""Largest pickle (bytes) that is read; the numbers of tensors are stored outside it."""
STEP_LIMIT = 500_000
"""Most operations of one pickle, and most items that its calls may copy: bounds the memory and time it can take."""
_MOST_NAMES = 200
_DEEPEST = 64
_LARGEST_KEY = 256
_TEXT_UNIT = 16  # characters that are counted as one item
_COPIES = {"REDUCE", "BUILD", "NEWOBJ"}
_CHANGES = {"APPEND", "APPENDS", "SETITEM", "SETITEMS", "BUILD"}
_KNOWN = {
    "PROTO", "STOP", "MARK", "GLOBAL", "BINPERSID", "NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2",
    "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINSTRING", "EMPTY_TUPLE", "EMPTY_LIST", "EMPTY_DICT", "EMPTY_SET",
    "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET", *_COPIES, *_CHANGES,
}  # fmt: skip


@dataclass
class Scan:
    """One pickle."""

    names: dict[str, Callable[..., object] | None] = field(default_factory=dict)
    """Full names of the functions and classes that it mentions, as torch understands them, and what each stands for."""
    edits: dict[int, bytes] = field(default_factory=dict)
    """Positions in the file where a class reference of the older container must become a call, with what goes there."""
    storages: set[str] = field(default_factory=set)
    """Keys of the storages that it refers to."""
    end: int = 0
    """Where it ends."""


@dataclass(eq=False, slots=True)
class _Held:
    size: int = 1
    depth: int = 0
    place: int = 0
    """Position of the mark that opened it."""
    made: int = -9
    """Step that closed it."""
    texts: tuple[str, ...] = ()
    """The text that it is, or those of a tuple's items, with an empty one for what is no text."""


_ATOM = _Held()
_CONTAINERS = {"EMPTY_LIST", "EMPTY_DICT", "EMPTY_SET"}


def scan(file: BinaryIO) -> Scan:
    """Follow the pickle at the file's place; raises DataError for one that is damaged or takes too much."""
    found = Scan()
    start = file.tell()
    stack: list[_Held | int] = []
    memo: dict[int, _Held] = {}
    spent = 0
    try:
        for step, (operation, argument, position) in enumerate(pickletools.genops(file)):
            name, position = operation.name, position or 0
            if name not in _KNOWN:
                told = f" {argument[:80]!r}" if isinstance(argument, str) else ""
                raise DataError(f"the pickle uses the operation {name}{told}, which torch.save does not write; refused")
            taken, place = _take(stack, operation.stack_before)
            if name in _COPIES:
                spent += taken[1].size
            elif name.startswith("SETITEM") and any(key.size > _LARGEST_KEY for key in taken[1::2]):
                raise DataError("the pickle uses a nested or large value as a key; refused")
            if step + spent > STEP_LIMIT or position - start > PICKLE_LIMIT:
                raise DataError(
                    f"the pickle needs more than {STEP_LIMIT:,} operations or {PICKLE_LIMIT:,} bytes; refused"
                )
            if name == "STOP":
                found.end = position + 1
                return found
            if name == "MARK":
                stack.append(position)
            elif "PUT" in name:
                if isinstance(top := stack[-1], int):
                    raise IndexError("it stores what is not there")
                memo[int(str(argument))] = top
            elif "GET" in name:
                stack.append(memo[int(str(argument))])
            elif name in _CHANGES:
                if taken[0] is _ATOM:
                    raise DataError(f"the pickle changes a value that holds nothing ({name}); refused")
                taken[0].size = min(taken[0].size + sum(item.size for item in taken[1:]), STEP_LIMIT)
                stack.append(taken[0])
            elif not taken and not isinstance(argument, str) and name not in _CONTAINERS:
                stack += [_ATOM] * len(operation.stack_after)  # nothing changes it, so one does for all
            elif operation.stack_after:
                held = _Held(1 + sum(item.size for item in taken), place=place, made=step)
                if name.startswith("TUPLE"):
                    held.depth = 1 + max((item.depth for item in taken), default=0)
                    held.texts = tuple(item.texts[0] if len(item.texts) == 1 else "" for item in taken)
                elif isinstance(argument, str):
                    held.size += len(argument) // _TEXT_UNIT
                    held.texts = (argument,) if name == "BINUNICODE" and len(argument) <= _LARGEST_KEY else ()
                if held.depth > _DEEPEST:
                    raise DataError(f"the pickle nests tuples deeper than {_DEEPEST}, as a key or elsewhere; refused")
                held.size = min(held.size, STEP_LIMIT)
                stack.append(held)
            if name == "GLOBAL":
                full_name = _full_name(str(argument))
                found.names.setdefault(full_name, stand_in(full_name))
                if len(found.names) > _MOST_NAMES:
                    raise DataError(f"the pickle names more than {_MOST_NAMES} functions and classes; refused")
            elif name == "BINPERSID" and taken[0].texts[:1] == ("module",) and step - taken[0].made <= 2:
                found.edits[taken[0].place] = b"c" + CLASS_REFERENCE.replace(".", "\n").encode() + b"\n("
                found.edits[position] = b"R"
                found.names[CLASS_REFERENCE] = stand_in(CLASS_REFERENCE)
            elif name == "BINPERSID":
                found.storages.add("".join(taken[0].texts[2:3]))
    except (ValueError, LookupError, OverflowError) as error:
        raise DataError(f"the pickle is damaged or cut short: {str(error)[:160]}") from None
    raise DataError("the pickle has no end")


def _take(stack: list[_Held | int], wanted: list[pickletools.StackObject]) -> tuple[list[_Held], int]:
    """The values that an operation takes, in order, and the position of the mark that opened them."""
    if not wanted:
        return [], 0
    above: list[_Held] = []
    place = 0
    if pickletools.markobject in wanted:
        while not isinstance(top := stack.pop(), int):
            above.append(top)
        place = top
        wanted = wanted[: wanted.index(pickletools.markobject)]
    for _ in wanted:
        top = stack.pop()
        if isinstance(top, int):
            raise IndexError("it takes more from its stack than it holds")
        above.append(top)
    return above[::-1], place


def _full_name(argument: str) -> str:
    module, _, name = argument.partition(" ")
    module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
    return f"{module}.{name}"
