"""A pickle reader that can only build tensors and inert records.

Own code, because the kept readers run code by design: `pickle` calls what the file names, and `torch.load` with
`weights_only=True` cannot read whole-module files. It is a stack machine over `pickletools.genops`; every operation
that it does not know is refused, nothing is imported or called, and memory stays proportional to the input.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable

from writesae.artifacts.legacy.rebuild import call, check_global, check_key, describe, new_object
from writesae.artifacts.legacy.records import Object, TensorRef
from writesae.errors import DataError

PICKLE_LIMIT = 16 << 20
"""Largest pickle (bytes) that is read; the numbers of tensors are stored outside it."""
STEP_LIMIT = 500_000
"""Most operations of one pickle, and most attributes that it may copy into records: bounds the memory it can take."""
_MARK = object()
_CONSTANTS: dict[str, Callable[[], object]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
}
_NUMBERS = {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "FLOAT", "BINFLOAT"}
_TEXTS = {"UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"}
_OLD_TEXTS = {"STRING", "BINSTRING", "SHORT_BINSTRING"}
_IGNORED = {"PROTO", "FRAME"}


class _Machine:
    """Stack and memo of one run."""

    def __init__(self, persistent: Callable[[object], object]) -> None:
        self.persistent = persistent
        self.stack: list[object] = []
        self.memo: dict[int, object] = {}
        self.steps = 0

    def spend(self, steps: int) -> None:
        self.steps += steps
        if self.steps > STEP_LIMIT:
            raise DataError(f"the pickle needs more than {STEP_LIMIT:,} operations, which no checkpoint does; refused")

    def pop(self) -> object:
        if not self.stack or self.stack[-1] is _MARK:
            raise DataError("the pickle takes more from its stack than it holds")
        return self.stack.pop()

    def pop_mark(self) -> list[object]:
        for place in range(len(self.stack) - 1, -1, -1):
            if self.stack[place] is _MARK:
                items = self.stack[place + 1 :]
                del self.stack[place:]
                return items
        raise DataError("the pickle closes a group that it never opened")

    def drop(self, _: object) -> None:
        if not self.stack:
            raise DataError("the pickle takes more from its stack than it holds")
        self.stack.pop()

    def drop_group(self, _: object) -> None:
        self.pop_mark()

    def top(self) -> object:
        value = self.pop()
        self.stack.append(value)
        return value

    def step(self, name: str, argument: object) -> None:
        self.spend(1)
        if name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name]())
        elif name in _NUMBERS or name in _TEXTS or name in _OLD_TEXTS:
            self.stack.append(argument)
        elif (action := _ACTIONS.get(name)) is not None:
            action(self, argument)
        elif name not in _IGNORED:
            told = f" {argument[:80]!r}" if isinstance(argument, str) else ""
            raise DataError(f"the pickle uses the operation {name}{told}, which no checkpoint needs; refused")

    def make_tuple(self, count: int) -> None:
        items = [self.pop() for _ in range(count)]
        self.stack.append(tuple(reversed(items)))

    def put(self, index: object) -> None:
        self.memo[int(str(index))] = self.top()

    def get(self, index: object) -> None:
        key = int(str(index))
        if key not in self.memo:
            raise DataError("the pickle refers to an object that it never stored")
        self.stack.append(self.memo[key])

    def global_name(self, argument: object) -> None:
        module, _, name = str(argument).partition(" ")
        self.stack.append(check_global(module, name))

    def stack_global(self, _: object) -> None:
        name, module = self.pop(), self.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise DataError("the pickle names a global with something that is not text; refused")
        self.stack.append(check_global(module, name))

    def reduce(self, _: object) -> None:
        arguments, function = self.pop(), self.pop()
        self.stack.append(call(function, arguments))

    def new(self, _: object) -> None:
        arguments, kind = self.pop(), self.pop()
        if arguments != ():
            raise DataError(f"the pickle makes {describe(kind)} with arguments; refused, not run")
        self.stack.append(new_object(kind))

    def new_keywords(self, _: object) -> None:
        keywords = self.pop()
        if keywords != {}:
            raise DataError("the pickle makes an instance with keyword arguments; refused, not run")
        self.new(None)

    def build(self, _: object) -> None:
        state, value = self.pop(), self.top()
        if isinstance(value, Object):
            parts = state if isinstance(state, tuple) and len(state) == 2 else (state,)
            for part in parts:
                if isinstance(part, dict):
                    self.spend(len(part))
                    value.state.update(part)
                elif isinstance(part, tuple):
                    value.state["state"] = part
                elif part is not None:
                    raise DataError(f"the pickle gives {describe(value)} the state {describe(part)}; refused")
        elif not isinstance(value, TensorRef | dict) or not isinstance(state, dict):
            raise DataError(f"the pickle changes the state of {describe(value)}; refused")

    def append(self, items: list[object]) -> None:
        target = self.top()
        if not isinstance(target, list):
            raise DataError(f"the pickle appends to {describe(target)}; refused")
        target.extend(items)

    def set_items(self, items: list[object]) -> None:
        target = self.top()
        if not isinstance(target, dict) or len(items) % 2:
            raise DataError(f"the pickle sets items of {describe(target)}; refused")
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[check_key(key)] = value

    def add_items(self, _: object) -> None:
        items = self.pop_mark()
        target = self.top()
        if not isinstance(target, set):
            raise DataError(f"the pickle adds members to {describe(target)}; refused")
        target.update(check_key(item) for item in items)

    def new_dict(self, _: object) -> None:
        items = self.pop_mark()
        self.stack.append({})
        self.set_items(items)


def _appends(machine: _Machine, _: object) -> None:
    items = machine.pop_mark()
    machine.append(items)


def _set_items(machine: _Machine, _: object) -> None:
    items = machine.pop_mark()
    machine.set_items(items)


def _set_item(machine: _Machine, _: object) -> None:
    value, key = machine.pop(), machine.pop()
    machine.set_items([key, value])


_ACTIONS: dict[str, Callable[[_Machine, object], None]] = {
    "MARK": lambda machine, _: machine.stack.append(_MARK),
    "POP": _Machine.drop,
    "POP_MARK": _Machine.drop_group,
    "DUP": lambda machine, _: machine.stack.append(machine.top()),
    "TUPLE": lambda machine, _: machine.stack.append(tuple(machine.pop_mark())),
    "TUPLE1": lambda machine, _: machine.make_tuple(1),
    "TUPLE2": lambda machine, _: machine.make_tuple(2),
    "TUPLE3": lambda machine, _: machine.make_tuple(3),
    "LIST": lambda machine, _: machine.stack.append(machine.pop_mark()),
    "DICT": _Machine.new_dict,
    "APPEND": lambda machine, _: machine.append([machine.pop()]),
    "APPENDS": _appends,
    "SETITEM": _set_item,
    "SETITEMS": _set_items,
    "ADDITEMS": _Machine.add_items,
    "FROZENSET": lambda machine, _: machine.stack.append({check_key(item) for item in machine.pop_mark()}),
    "PUT": _Machine.put,
    "BINPUT": _Machine.put,
    "LONG_BINPUT": _Machine.put,
    "MEMOIZE": lambda machine, _: machine.put(len(machine.memo)),
    "GET": _Machine.get,
    "BINGET": _Machine.get,
    "LONG_BINGET": _Machine.get,
    "GLOBAL": _Machine.global_name,
    "STACK_GLOBAL": _Machine.stack_global,
    "REDUCE": _Machine.reduce,
    "NEWOBJ": _Machine.new,
    "NEWOBJ_EX": _Machine.new_keywords,
    "BUILD": _Machine.build,
    "BINPERSID": lambda machine, _: machine.stack.append(machine.persistent(machine.pop())),
}


def read_pickle(data: bytes, persistent: Callable[[object], object]) -> tuple[object, int]:
    """Rebuild one pickle as inert values; returns it and the number of bytes that it took.

    `persistent` maps the file's references to storages; what follows the pickle in `data` is not looked at. Raises
    DataError naming the first thing that is refused.
    """
    machine = _Machine(persistent)
    try:
        for operation, argument, position in pickletools.genops(data):
            if operation.name == "STOP":
                return machine.pop(), (position or 0) + 1
            machine.step(operation.name, argument)
    except (ValueError, UnicodeDecodeError, IndexError, OverflowError) as error:
        raise DataError(f"the pickle is damaged or cut short: {str(error)[:160]}") from None
    raise DataError("the pickle has no end")
