"""Calls of public functions whose arguments are missing, unknown or of a wrong kind: one InputError that says how."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from numbers import Integral, Real
from typing import ParamSpec, TypeVar

from writesae.errors import InputError

P = ParamSpec("P")
T = TypeVar("T")
_PLAIN: dict[str, tuple[type, ...]] = {
    "int": (Integral,), "float": (Real,), "str": (str,), "bool": (bool,), "None": (type(None),),
}  # fmt: skip


def worded(function: Callable[P, T]) -> Callable[P, T]:
    """The same function, which checks how it is called: names of arguments, and numbers, texts and switches by kind."""
    signature = inspect.signature(function)
    name = function.__name__

    @wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            given = signature.bind(*args, **kwargs).arguments
        except TypeError as error:
            needed = [p.name for p in signature.parameters.values() if p.default is p.empty]
            raise InputError(f"{name}: {error}; it is called as {name}({', '.join(needed)}, ..)") from None
        for key, value in given.items():
            kinds = str(signature.parameters[key].annotation).split(" | ")
            allowed = tuple(kind for plain in kinds for kind in _PLAIN.get(plain, (object,)))
            if not isinstance(value, allowed) or (isinstance(value, bool) and not {bool, object} & set(allowed)):
                raise InputError(f"{name}: {key} is {value!r:.80}, and must be {' or '.join(kinds)}")
        return function(*args, **kwargs)

    return called
