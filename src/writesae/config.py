"""Strict frozen dataclasses <-> JSON.

A config class is the Python API, the command-line flags, the JSON on disk and the header of a report at once.
Unknown keys are refused, numbers are finite and not coerced from strings, and a union of configs is written with the
name of its class under `"kind"`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import is_dataclass
from difflib import get_close_matches
from functools import partial, wraps
from inspect import signature
from itertools import islice
from types import MappingProxyType, UnionType
from typing import Any, TypeVar, get_args, get_type_hints

import cattrs
from cattrs.errors import BaseValidationError, CattrsError
from cattrs.strategies import configure_tagged_union
from cattrs.v import format_exception

from writesae.errors import ConfigError, WritesaeError
from writesae.types import Site

T = TypeVar("T")
Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]


def _strict(converter: cattrs.Converter, kind: type, allowed: tuple[type, ...], null: object = None) -> None:
    def check(value: object, _: type) -> object:
        if value is None and null is not None:
            return null
        if not isinstance(value, allowed) or (isinstance(value, bool) and kind is not bool):
            raise TypeError(f"{value!r} is not of type {kind.__name__}")
        if null is None and isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"invalid number: {value} is not finite")
        return kind(value)

    converter.register_structure_hook(kind, check)


def _made(null: object = None, *, extra: bool = False, detailed: bool = True) -> cattrs.Converter:
    converter = cattrs.Converter(forbid_extra_keys=not extra, detailed_validation=detailed)
    _strict(converter, int, (int,))
    _strict(converter, float, (int, float), null)
    _strict(converter, bool, (bool,))
    _strict(converter, str, (str,))
    converter.register_unstructure_hook(Site, str)
    converter.register_structure_hook(Site, lambda value, _: Site.parse(value))
    converter.register_structure_hook_func(_is_json, lambda value, _: value)
    converter.register_structure_hook_func(_is_named_tuple, partial(_named_tuple, converter))
    return converter


def _is_json(kind: object) -> bool:
    """Whether an annotation is `Json`, whose own name stands in it as text where it was resolved once."""
    return isinstance(kind, UnionType) and "ForwardRef('Json')" in str(kind)


def _is_named_tuple(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, tuple) and hasattr(kind, "_fields")


def _named_tuple(converter: cattrs.Converter, value: object, kind: type) -> object:
    """A NamedTuple from a list of its values; cattrs does not resolve annotations that are strings."""
    hints = list(get_type_hints(kind).values())
    if not isinstance(value, list | tuple) or len(value) != len(hints):
        raise TypeError(f"{value!r} is not a list of {len(hints)} values")
    return kind(*(converter.structure(one, hint) for one, hint in zip(value, hints, strict=True)))


_converter, _lenient, _newer = _made(), _made(null=math.nan), _made(extra=True)
_quick = {_converter: _made(detailed=False), _lenient: _made(math.nan, detailed=False)}
_quick[_newer] = _made(extra=True, detailed=False)
"""The same that stop at the first error: one error each of a million entries would fill the memory."""
_TOLD = 5
"""Wrong fields that are told."""


def register_union(union: object) -> None:
    """Declare a union of config classes; its members are written with their class name under `"kind"`."""
    for converter in (*_quick, *_quick.values()):
        configure_tagged_union(union, converter, tag_name="kind")


def to_json(config: object) -> Json:
    """The JSON form of a config (plain dicts, lists, numbers and strings)."""
    return _converter.unstructure(config)  # type: ignore[no-any-return]


def from_json(cls: type[T], data: object, converter: cattrs.Converter = _converter) -> T:
    """Build `cls` from its JSON form; raises ConfigError naming the first fields that are wrong."""
    try:
        return _quick[converter].structure(data, cls)
    except (CattrsError, TypeError, ValueError, LookupError, AttributeError, OverflowError, WritesaeError) as error:
        reasons = [str(error)]
    kinds = get_args(cls) if isinstance(cls, UnionType) else (cls,)
    name = " or ".join(getattr(kind, "__name__", str(kind)) for kind in kinds)
    try:
        converter.structure(_first(data), cls)
    except BaseValidationError as error:
        reasons = cattrs.transform_error(error, path=name, format_exception=_told)
    except (CattrsError, TypeError, ValueError, LookupError, AttributeError, WritesaeError) as error:
        reasons = [str(error)]
    more = f"; and {len(reasons) - _TOLD} more" * (len(reasons) > _TOLD)
    raise ConfigError(f"cannot read a {name}: {'; '.join(reasons[:_TOLD])}{more}") from None


def _first(data: object) -> object:
    """Data without what is behind the first hundred members of its lists and objects."""
    if isinstance(data, dict):
        return {key: _first(value) for key, value in islice(data.items(), 100)}
    return [_first(value) for value in data[:100]] if isinstance(data, list | tuple) else data


def _told(error: BaseException, kind: type | None) -> str:
    """One wrong field in words: what was given where that is known, and what is expected."""
    if isinstance(error, WritesaeError):
        return str(error)
    given, literal, _ = str(error).partition(" not in literal")
    if literal:
        return f"{given!r} is not one of {', '.join(map(str, get_args(kind)))}"
    said = format_exception(error, kind)
    ours = isinstance(error, TypeError | ValueError) and "is not iterable" not in given  # that one is Python's own
    return given if ours and "invalid" in said else said


def from_newer(cls: type[T], data: object) -> T:
    """The same for JSON of a newer version, whose additions are left out."""
    return from_json(cls, data, _newer)


def from_plain(cls: type[T], data: object) -> T:
    """The same for JSON that was written with null for NaN; raises ConfigError naming every field that is wrong."""
    return from_json(cls, data, _lenient)


MAY_BE_EMPTY: Mapping[str, bool] = MappingProxyType({"may be empty": True})
"""Metadata of a list that may be given empty though the usual one is not."""


def checked(cls: type[T]) -> type[T]:
    """Class decorator of a config dataclass, which then refuses a wrong call in words: a name that it does not have
    (the nearest is told), one that is missing, a value of another type, a list that names a value twice, or is empty
    where the usual one is not (but for fields with the metadata `MAY_BE_EMPTY`). What JSON can say is understood: a
    site is "L5.H0"."""
    make, hints = cls.__init__, dict[str, object]()

    @wraps(make)
    def init(self: T, *given: object, **named: object) -> None:
        hints.update({} if hints else get_type_hints(cls))
        for name in named.keys() - hints.keys():
            near = " or ".join(get_close_matches(name, hints, 2))
            raise ConfigError(f"{cls.__name__} has no setting {name!r}{f': did you mean {near}?' * bool(near)}")
        try:
            values = signature(make).bind(self, *given, **named).arguments
        except TypeError as error:
            raise ConfigError(f"{cls.__name__}: {error}") from None
        values = {name: _fitting(name, hints[name], x) if name in hints else x for name, x in values.items()}
        make(**values)
        lists = [name for name in values if get_args(hints.get(name))[-1:] == (...,)]
        no_repeats(self, *lists)
        fields = {name: cls.__dataclass_fields__[name] for name in lists}  # type: ignore[attr-defined]
        not_empty(self, *(name for name, x in fields.items() if x.default and x.metadata != MAY_BE_EMPTY))

    cls.__init__ = init  # type: ignore[assignment]
    return cls


def _fitting(name: str, hint: Any, value: object) -> object:
    if is_dataclass(value):
        kinds = [kind for kind in (hint, *get_args(hint)) if isinstance(kind, type)]
        if type(value) in kinds:
            return value
        raise ConfigError(f"{name}={value!r} cannot be: give a {' or a '.join(kind.__name__ for kind in kinds)}")
    try:
        return from_json(hint, value)
    except ConfigError as error:
        raise ConfigError(f"{name}={value!r} cannot be: {error}") from None


def at_least(config: object, **least: float) -> None:
    """Raises ConfigError where a field, or a member of it, is smaller than it may be."""
    for name, bound in least.items():
        given = getattr(config, name)
        if given is not None and any(x < bound for x in (given if isinstance(given, tuple) else (given,))):
            said = ", ".join(map(str, given)) if isinstance(given, tuple) else given
            raise ConfigError(f"{name.replace('_', ' ')} {said} is too small: give at least {bound}")


def at_most(config: object, **most: float) -> None:
    """Raises ConfigError where a field, or a member of it, is larger than it may be."""
    for name, bound in most.items():
        given = getattr(config, name)
        if any(x > bound for x in (given if isinstance(given, tuple) else (given,))):
            raise ConfigError(f"{name.replace('_', ' ')} {given} is too large: give at most {bound:,}")


def not_empty(config: object, *names: str) -> None:
    """Raises ConfigError where nothing was given."""
    for name in names:
        if not getattr(config, name):
            raise ConfigError(f"{name.replace('_', ' ')} is empty: give at least one value")


def no_repeats(config: object, *names: str) -> None:
    """Raises ConfigError where a list names a value twice."""
    for name in names:
        given = getattr(config, name)
        if len(set(given)) < len(given):
            listed = ", ".join(map(str, given))
            raise ConfigError(f"{name.replace('_', ' ')} {listed} names a value twice: give each once")
