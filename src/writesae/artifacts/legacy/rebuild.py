"""The complete list of names that an old checkpoint may use, and what each is rebuilt as.

Nothing here is looked up in a module: a name is compared with this list, and any other is refused by name.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable, Sequence

from writesae.artifacts.legacy.records import STORAGES, Global, Object, Storage, TensorRef
from writesae.errors import DataError

_NAMESPACES = {("argparse", "Namespace"), ("types", "SimpleNamespace")}
_TORCH_CLASSES = ("torch.nn.modules.", "torch.nn.parameter.")
_PLAIN = {("builtins", "object"), ("copyreg", "_reconstructor"), ("torch", "Tensor")}
_DTYPES = {"float16", "bfloat16", "float32", "float64", "uint8", "int8", "int16", "int32", "int64", "bool"}
_PYTHON_2 = {"__builtin__": "builtins", "copy_reg": "copyreg"}
_LONGEST = 256
"""Longest argument of a call: results are copies, so long ones could be multiplied into any amount of memory."""
_NUMBERS = {"f2": "e", "f4": "f", "f8": "d", "i1": "b", "i2": "h", "i4": "i", "i8": "q", "u1": "B", "b1": "?"}


def check_global(module: str, name: str) -> Global:
    """The inert form of a name; raises DataError for one that no checkpoint of tensors and records needs."""
    module = _PYTHON_2.get(module, module)
    top = module.partition(".")[0]
    known = (module, name) in CALLS or (module, name) in _NAMESPACES or (module, name) in _PLAIN
    if top == "torch" and not known:
        known = module == "torch" and (name in STORAGES or name in _DTYPES)
        known = known or (module.startswith(_TORCH_CLASSES) and name.isidentifier())
        known = known or (module == "torch.storage" and name in STORAGES)
    elif not known:
        foreign = top.isidentifier() and top not in sys.stdlib_module_names and top != "numpy"
        known = foreign and all(part.isidentifier() for part in [*module.split("."), *name.split(".")])
    if not known or len(module) + len(name) > 300:
        asked = f"{module}.{name}"[:160]
        raise DataError(f"the file asks for {asked}, which is neither a tensor nor a record; refused, not run")
    return Global(module, name)


def new_object(kind: object) -> object:
    """An inert record of a class; raises DataError for what is no class name."""
    if kind == Global("collections", "OrderedDict"):
        return {}
    callable_name = isinstance(kind, Global) and ((kind.module, kind.name) in CALLS or kind.module == "torch")
    if not isinstance(kind, Global) or callable_name:
        raise DataError(f"the file makes an instance of {describe(kind)}; refused, not run")
    return Object(kind)


def call(function: object, arguments: object) -> object:
    """What `function(*arguments)` stands for; raises DataError naming a function that is not on the list."""
    rebuild = CALLS.get((function.module, function.name)) if isinstance(function, Global) else None
    if rebuild is None or not isinstance(arguments, tuple):
        raise DataError(f"the file calls {describe(function)}; refused, not run")
    if any(isinstance(value, list | set | str | tuple) and len(value) > _LONGEST for value in (*arguments, arguments)):
        raise DataError(f"the file calls {function} with more than {_LONGEST} items; refused")
    try:
        return rebuild(*arguments)
    except (TypeError, ValueError, struct.error):
        raise DataError(f"the file calls {function} with arguments that do not fit; refused") from None


def describe(value: object) -> str:
    """A short name of a value for an error line, whatever its size or nesting."""
    if isinstance(value, Object):
        return f"an instance of {value.kind}"
    return str(value)[:120] if isinstance(value, Global) else f"a {type(value).__name__}"


def _tensor(storage: object, offset: object, shape: object, stride: object, *rest: object) -> TensorRef:
    if not isinstance(storage, Storage) or not isinstance(offset, int) or len(rest) > 3:
        raise TypeError
    return TensorRef(storage, offset, _integers(shape), _integers(stride))


def _integers(values: object) -> tuple[int, ...]:
    if not isinstance(values, tuple) or any(type(value) is not int for value in values):
        raise TypeError
    return values


def _parameter(data: object, *rest: object) -> TensorRef:
    if not isinstance(data, TensorRef) or len(rest) > 3:
        raise TypeError
    return data


def _ordered(*pairs: object) -> dict[object, object]:
    result: dict[object, object] = {}
    for pair in pairs[0] if pairs and isinstance(pairs[0], list) else ():
        name, value = pair
        result[check_key(name)] = value
    return result


def check_key(key: object) -> object:
    """A dictionary key or set member; only plain ones are accepted, so hashing one is cheap and runs no code."""
    if key is None or isinstance(key, str | bytes | int | float):
        return key
    raise DataError(f"the file uses {describe(key)} as a key; refused")


def _set(*values: object) -> set[object]:
    members = values[0] if values else []
    if not isinstance(members, list | tuple | set):
        raise TypeError
    return {check_key(member) for member in members}


def _text(data: object, encoding: object = "utf-8") -> bytes:
    if not isinstance(data, str) or encoding not in ("latin1", "latin-1"):
        raise TypeError
    return data.encode("latin1")


def _dtype(code: object, *rest: object) -> Object:
    if not isinstance(code, str) or code not in _NUMBERS:
        raise TypeError
    return Object(Global("numpy", "dtype"), {"code": code})


def _scalar(dtype: object, data: object) -> object:
    code = dtype.state.get("code") if isinstance(dtype, Object) else None
    if not isinstance(code, str) or not isinstance(data, bytes):
        raise TypeError
    value: object = struct.unpack("<" + _NUMBERS[code], data)[0]
    return value


def _reconstructor(kind: object, base: object, state: object) -> object:
    if base != Global("builtins", "object") or state is not None:
        raise TypeError
    return new_object(kind)


def _path(*parts: object) -> str:
    return "/".join(str(part) for part in parts if isinstance(part, str))


def _first(value: object, *rest: object) -> object:
    return value


def _size(values: Sequence[int]) -> tuple[int, ...]:
    return _integers(tuple(values))


CALLS: dict[tuple[str, str], Callable[..., object]] = {
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _parameter,
    ("torch", "Size"): _size,
    ("torch", "device"): _first,
    ("collections", "OrderedDict"): _ordered,
    ("builtins", "set"): _set,
    ("builtins", "frozenset"): _set,
    ("_codecs", "encode"): _text,
    ("copyreg", "_reconstructor"): _reconstructor,
    ("numpy", "dtype"): _dtype,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy._core.multiarray", "scalar"): _scalar,
    ("pathlib", "PosixPath"): _path,
    ("pathlib", "PurePosixPath"): _path,
    ("pathlib", "WindowsPath"): _path,
}
"""Functions that a file may ask for, by name, and what is done instead of calling them."""
