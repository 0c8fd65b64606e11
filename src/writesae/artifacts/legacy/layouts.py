"""Finding the tensors and the facts of a dictionary in either published layout.

Research code: `{"model_state_dict": {name: tensor}, "config": {...}, "val_mse": ...}`, with or without a config.
Release: a whole pickled module, `checkpoint["sae"]`, whose tensors sit in a tree of `_parameters` and `_modules`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from torch import Tensor

from writesae.artifacts.legacy.inert import Inert, describe
from writesae.config import Json
from writesae.errors import DataError

_STATE_KEYS = ("model_state_dict", "state_dict", "sae_state_dict")
_MODULE_KEYS = ("sae", "model", "module")
_DEEPEST = 16


@dataclass(frozen=True)
class Payload:
    """What a checkpoint says about one dictionary."""

    tensors: dict[str, Tensor]
    """Its parameters and buffers by dotted name."""
    config: dict[str, Json]
    """The numbers and words of its config, and for a whole module of the module itself (those win)."""
    facts: dict[str, Json]
    """Other numbers beside it: epoch, step, validation error."""
    kind: str
    """Class of the pickled module, or `state dict`."""


def find_payload(root: object) -> Payload:
    """The dictionary in what a file holds; raises DataError naming what is there instead."""
    outer = root if isinstance(root, dict) else {}
    facts = _plain(outer)
    config = _config(outer.get("config"))
    for key in _STATE_KEYS:
        if isinstance(outer.get(key), dict):
            return Payload(_named_tensors(outer[key]), config, facts, "state dict")
    if outer and all(isinstance(value, Tensor) for value in outer.values()):
        return Payload(_named_tensors(outer), {}, {}, "state dict")
    module = root if isinstance(root, Inert) else _module(outer)
    if module is None or "_parameters" not in module.state:
        found = ", ".join(str(key) for key in list(outer)[:20]) or describe(root)
        raise DataError(f"no dictionary found: a checkpoint holds a state dict or a pickled module, not {found}")
    own = _config(module.state.get("config")) | _config(module.state.get("cfg")) | _plain(module.state)
    own.pop("training", None)
    return Payload(_module_tensors(module), config | own, facts, module.kind)


def _module(outer: dict[object, object]) -> Inert | None:
    for key in _MODULE_KEYS:
        if isinstance(value := outer.get(key), Inert):
            return value
    modules = [value for value in outer.values() if isinstance(value, Inert) and "_parameters" in value.state]
    return modules[0] if len(modules) == 1 else None


def _config(value: object) -> dict[str, Json]:
    if isinstance(value, Inert):
        value = value.state
    return _plain(value) if isinstance(value, dict) else {}


def _plain(values: dict[object, object]) -> dict[str, Json]:
    kept = {
        str(key): value
        for key, value in values.items()
        if isinstance(key, str) and len(key) < 200 and isinstance(value, str | int | float | bool)
    }
    return cast(dict[str, Json], {key: value for key, value in kept.items() if len(str(value)) < 1000})


def _named_tensors(state: dict[object, object]) -> dict[str, Tensor]:
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise DataError(f"the state dict holds {describe(value)} under {str(name)[:80]!r}; only tensors are read")
    return cast(dict[str, Tensor], dict(state))


def _module_tensors(root: Inert) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    waiting = [("", root, 0)]
    seen = set()
    while waiting:
        prefix, module, depth = waiting.pop()
        if depth > _DEEPEST or id(module) in seen:
            raise DataError("the pickled module is nested too deeply or contains itself; refused")
        seen.add(id(module))
        for group in ("_parameters", "_buffers", "_modules"):
            members = module.state.get(group)
            if members is not None and not isinstance(members, dict):
                raise DataError(f"the pickled module's {group} is {describe(members)}; refused")
            for name, value in (members or {}).items():
                if value is None:
                    continue
                if group == "_modules" and isinstance(value, Inert):
                    waiting.append((f"{prefix}{name}.", value, depth + 1))
                elif group != "_modules" and isinstance(value, Tensor):
                    tensors[f"{prefix}{name}"] = value
                else:
                    raise DataError(f"the pickled module holds {describe(value)} under {prefix}{name}; refused")
    return tensors
