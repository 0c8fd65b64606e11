"""What public functions say in one line: a call whose arguments are missing, unknown or of a wrong kind, and what the
operating system refuses while they work."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from numbers import Integral, Real
from os import PathLike
from typing import ParamSpec, TypeVar

from writesae.errors import InputError, WritesaeError

P = ParamSpec("P")
T = TypeVar("T")
_PLAIN: dict[str, tuple[type, ...]] = {
    "int": (Integral,), "float": (Real,), "str": (str,), "bool": (bool,), "None": (type(None),),
    "Path": (PathLike,),
}  # fmt: skip


def worded(function: Callable[P, T]) -> Callable[P, T]:
    """The same function, which checks how it is called (names of arguments; numbers, texts and switches by kind), with
    InputError; what the operating system refuses inside is a WritesaeError, with its cause."""
    signature = inspect.signature(function)
    name = function.__name__.strip("_")
    needed = [
        p.name for p in signature.parameters.values()
        if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD and p.name != "self"
    ]  # fmt: skip

    @wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            given = signature.bind(*args, **kwargs).arguments
        except TypeError as error:
            raise InputError(f"{name}: {error}; it is called as {name}({', '.join(needed)}, ..)") from None
        for key, value in given.items():
            kinds = str(signature.parameters[key].annotation).split(" | ")
            allowed = tuple(kind for plain in kinds for kind in _PLAIN.get(plain, (object,)))
            if not isinstance(value, allowed) or (isinstance(value, bool) and not {bool, object} & set(allowed)):
                raise InputError(f"{name}: {key} is {value!r:.80}, and must be {' or '.join(kinds)}")
        try:
            return function(*args, **kwargs)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise WritesaeError(refused(error)) from error

    return called


def refused(error: OSError) -> str:
    """What the operating system refuses, in words."""
    about = " and ".join(str(name) for name in (error.filename, error.filename2) if name is not None)
    return f"the system refuses{f' {about}' * bool(about)}: {error.strerror or str(error) or type(error).__name__}"
