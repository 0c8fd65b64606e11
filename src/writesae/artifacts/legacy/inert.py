"""What the names in an old checkpoint stand for: torch's own tensors, or records without behaviour.

Nothing is looked up in a module: a name is compared with the lists here, and any other is refused by name.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable

from writesae.errors import DataError

_TORCH = {
    "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_parameter_with_state",
    "torch.Size",
    "torch.device",
    "collections.OrderedDict",
    "builtins.set",
    "_codecs.encode",
}
"""Names that torch rebuilds itself; fewer than it would, because some of the others take any amount of memory."""
_DTYPES = {"float16", "bfloat16", "float32", "float64", "uint8", "int8", "int16", "int32", "int64", "bool"}
_STORAGES = {"Float", "Double", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool"}
_TORCH |= {f"torch.{name}" for name in _DTYPES} | {f"torch.{name}Storage" for name in _STORAGES}
_NAMESPACES = {"argparse.Namespace", "types.SimpleNamespace"}
_NUMBERS = {"f2": "e", "f4": "f", "f8": "d", "i1": "b", "i2": "h", "i4": "i", "i8": "q", "u1": "B", "b1": "?"}


class Inert:
    """An instance of a class that is not imported: its attributes, and no behaviour."""

    kind: str
    """Full name of the class in the file."""
    state: dict[object, object]
    """Its attributes."""

    def __new__(cls, *arguments: object) -> Inert:
        if arguments:
            raise DataError(f"the file calls {cls.kind} with arguments; refused, not run")
        record = super().__new__(cls)
        record.state = {}
        return record

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, dict):
            raise DataError(f"the pickle gives {describe(self)} the state {describe(state)}; refused")
        self.state = state


def stand_in(name: str) -> Callable[..., object] | None:
    """What a name is registered as with torch, None where torch's own is used.

    Raises DataError for a name that no checkpoint of tensors and records needs.
    """
    if name in _TORCH or name in _CALLS:
        return _CALLS.get(name)
    parts = name.split(".")
    foreign = parts[0] not in sys.stdlib_module_names and parts[0] not in ("torch", "numpy", "__builtin__", "copy_reg")
    known = name in _NAMESPACES or foreign or name.startswith("torch.nn.modules.")
    if not known or len(name) > 300 or not all(part.isidentifier() for part in parts):
        raise DataError(f"the file asks for {name[:160]}, which is neither a tensor nor a record; refused, not run")
    return type(parts[-1], (Inert,), {"kind": name})


def describe(value: object) -> str:
    """A short name of a value for an error line, whatever its size or nesting."""
    return f"an instance of {value.kind}" if isinstance(value, Inert) else f"a {type(value).__name__}"


class _NumpyType:
    def __new__(cls, code: str, *rest: object) -> _NumpyType:
        value = super().__new__(cls)
        value.form = "<" + _NUMBERS[code]
        return value

    form: str

    def __setstate__(self, state: object) -> None:
        """Byte order and flags of a number's type, which are always the same."""


def _scalar(kind: _NumpyType, data: bytes) -> object:
    value: object = struct.unpack(kind.form, data)[0]
    return value


def _path(*parts: str) -> str:
    return "/".join(parts)


def _class(_: str, kind: object, *source: object) -> object:
    return kind


CLASS_REFERENCE = "writesae.class_reference"
"""Called where the older container refers to a class in a way that torch does not read."""
_CALLS: dict[str, Callable[..., object]] = {
    CLASS_REFERENCE: _class,
    "builtins.frozenset": set,
    "numpy.dtype": _NumpyType,
    "numpy.core.multiarray.scalar": _scalar,
    "numpy._core.multiarray.scalar": _scalar,
    **{f"{module}.{name}": _path for module in ("pathlib", "pathlib._local") for name in ("PosixPath", "WindowsPath")},
    "pathlib.PurePosixPath": _path,
}
"""Functions that a file may call beside torch's, and what is called instead of them."""
