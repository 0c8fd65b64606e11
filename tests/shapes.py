"""The dimensions in signatures, `Float[Tensor, "B T K"]`, checked at calls: by jaxtyping, under pytest only.

To be imported before anything that imports the checked modules; they then hold checked functions alone. Jaxtyping's own
import hook would do for less, but takes twice the time of these tests, most of it for functions inside functions.
"""

import importlib
import pkgutil
from collections import Counter
from collections.abc import Callable
from functools import wraps
from types import FunctionType, ModuleType
from typing import Any

import jaxtyping
from beartype import beartype

from writesae import types

PACKAGES = ("writesae.recurrence", "writesae.sae")
MOST = 100
"""Calls of each function that are checked in one test: a training run makes thousands that are alike."""
calls = Counter[str]()
"""How many there were in this test, by the function's full name."""


def checked(function: Callable[..., Any], home: ModuleType, hints: dict[str, Any] | None = None) -> Callable[..., Any]:
    """`function`, of the module `home`, with those annotations checked that hold dimensions."""
    hints = {name: hint for name, hint in (hints or function.__annotations__).items() if "[Tensor, '" in str(hint)}
    if not hints:
        return function
    function.__annotations__ = {name: eval(hint, vars(home)) for name, hint in hints.items()}
    typed, name = beartype(function), f"{home.__name__}.{function.__qualname__}"

    @wraps(function)
    def call(*given: object, **named: object) -> object:
        calls[name] += 1
        if calls[name] > MOST:
            return function(*given, **named)
        with jaxtyping.jaxtyped("context"):  # the letters of one call mean one size
            return typed(*given, **named)

    return call


def _check_class(kind: type, home: ModuleType) -> None:
    for name, made in list(vars(kind).items()):
        if isinstance(made, property):
            setattr(kind, name, property(checked(made.fget, home)))  # type: ignore[arg-type]
        elif isinstance(made, FunctionType):
            setattr(kind, name, checked(made, home))
    if issubclass(kind, tuple):
        fields = {name: hint.__forward_arg__ for name, hint in kind.__annotations__.items()}
        kind.__new__ = staticmethod(checked(kind.__new__, home, fields))  # type: ignore[method-assign]


def _check_all() -> None:
    for name in ("Bool", "Float", "Int"):
        setattr(types, name, getattr(jaxtyping, name))
    packages = [importlib.import_module(name) for name in PACKAGES]
    parts = [part.name for one in packages for part in pkgutil.iter_modules(one.__path__, f"{one.__name__}.")]
    modules = {part: importlib.import_module(part) for part in parts}
    made: dict[Any, Callable[..., Any]] = {}
    for name, home in modules.items():
        for thing in list(vars(home).values()):
            if getattr(thing, "__module__", None) != name:
                continue
            if isinstance(thing, type):
                _check_class(thing, home)
            elif isinstance(thing, FunctionType):
                made[thing] = checked(thing, home)
    for module in (*modules.values(), *packages):
        for name, thing in list(vars(module).items()):
            if isinstance(thing, FunctionType) and thing in made:
                setattr(module, name, made[thing])


_check_all()
