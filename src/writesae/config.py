"""Strict frozen dataclasses <-> JSON.

A config class is the Python API, the command-line flags, the JSON on disk and the header of a report at once.
Unknown keys are refused, numbers are not coerced from strings, and a union of configs is written with the
name of its class under `"kind"`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypeVar

import cattrs
from cattrs.errors import ClassValidationError
from cattrs.strategies import configure_tagged_union

from writesae.errors import ConfigError
from writesae.types import Site

T = TypeVar("T")
Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]


def _strict(kind: type, allowed: tuple[type, ...]) -> None:
    def check(value: object, _: type) -> object:
        if not isinstance(value, allowed) or (isinstance(value, bool) and kind is not bool):
            raise TypeError(f"{value!r} is not of type {kind.__name__}")
        return kind(value)

    _converter.register_structure_hook(kind, check)


_converter = cattrs.Converter(forbid_extra_keys=True)
_strict(int, (int,))
_strict(float, (int, float))
_strict(bool, (bool,))
_strict(str, (str,))
_converter.register_unstructure_hook(Site, str)
_converter.register_structure_hook(Site, lambda value, _: Site.parse(value))


def register_union(union: object) -> None:
    """Declare a union of config classes; its members are written with their class name under `"kind"`."""
    configure_tagged_union(union, _converter, tag_name="kind")


def to_json(config: object) -> Json:
    """The JSON form of a config (plain dicts, lists, numbers and strings)."""
    return _converter.unstructure(config)  # type: ignore[no-any-return]


def from_json(cls: type[T], data: object) -> T:
    """Build `cls` from its JSON form; raises ConfigError naming every field that is wrong."""
    try:
        return _converter.structure(data, cls)
    except (ClassValidationError, TypeError, ValueError, KeyError) as error:
        if isinstance(error, ClassValidationError):
            reasons = "; ".join(cattrs.transform_error(error, path=cls.__name__))
        else:
            reasons = str(error)
        raise ConfigError(f"cannot read a {cls.__name__}: {reasons}") from None


def read_json(path: Path) -> Json:
    """Parse a JSON file; raises ConfigError with the place where it breaks."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))  # type: ignore[no-any-return]
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ConfigError(f"cannot read {path} as JSON: {error}") from None
