"""From what is asked for, in a call's keywords or a command's flags, to training configurations."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from difflib import get_close_matches
from pathlib import Path

from writesae.config import from_json
from writesae.disk import read_json
from writesae.errors import ConfigError, InputError
from writesae.sae.config import BatchTopK, Gated, JumpReLU, SoftGated, Sparsity, TopK
from writesae.sae.presets import preset
from writesae.store import StreamStore
from writesae.training.config import TrainConfig
from writesae.training.sequences import head_shape
from writesae.types import Site

SPARSITIES: dict[str, type[Sparsity]] = {
    "topk": TopK,
    "batch-topk": BatchTopK,
    "jumprelu": JumpReLU,
    "gated": Gated,
    "soft-gated": SoftGated,
}
"""Short names of the sparsities, with their usual settings."""
_OTHER = ("preset", "k")
"""What may be asked for beside the fields of TrainConfig."""


def recipe(base: TrainConfig | None, asked: Mapping[str, object]) -> TrainConfig:
    """A configuration from some of its fields by name; `base` says the others, or the defaults do.

    Short forms are understood: a site as "L5.H0", the target "write" (`write-delta`), a `preset` for encoder and
    decoder, the name of a sparsity, and its `k`. Raises ConfigError or InputError in one line for what is unknown, of
    the wrong type, or without effect.
    """
    known = [field.name for field in fields(TrainConfig)]
    for name in asked:
        if name not in known and name not in _OTHER:
            near = " or ".join(get_close_matches(name, [*known, *_OTHER], 2))
            raise ConfigError(f"training has no setting {name!r}{f': did you mean {near}?' * bool(near)}")
    values = {name: value for name, value in asked.items() if name not in _OTHER}
    if values.get("target") == "write":
        values["target"] = "write-delta"
    if "preset" in asked:
        if {"encoder", "decoder"} & set(asked):
            raise ConfigError("a preset is an encoder and a decoder: give it, or them")
        parts = preset(str(asked["preset"]))
        values |= {"encoder": parts.encoder, "decoder": parts.decoder}
    if "sparsity" in asked or "k" in asked:
        values["sparsity"] = _sparsity(None if base is None else base.sparsity, asked)
    if base is None and "site" not in values:
        raise ConfigError('training needs a head: site="L5.H0"')
    if base is not None and {"steps", "epochs"} & set(values):
        values = {"steps": None, "epochs": None} | values
    return TrainConfig(**values) if base is None else replace(base, **values)  # type: ignore[arg-type]


def _sparsity(before: Sparsity | None, asked: Mapping[str, object]) -> Sparsity:
    named, k = asked.get("sparsity"), asked.get("k")
    if isinstance(named, str):
        if named not in SPARSITIES:
            raise ConfigError(f"unknown sparsity {named!r}; choose one of {', '.join(SPARSITIES)}")
        kept: Sparsity = SPARSITIES[named]()
    elif named is None:
        kept = TopK() if before is None else before
    elif isinstance(named, Mapping) and k is None:
        return from_json(Sparsity, named)  # type: ignore[arg-type]
    elif not is_dataclass(named):
        raise ConfigError(f"sparsity={named!r} is neither a name ({', '.join(SPARSITIES)}) nor one like TopK(32)")
    elif k is not None:
        raise ConfigError(f"k={k} stands beside sparsity={named}, which has its own: give one")
    else:
        return named  # type: ignore[return-value]
    if k is None:
        return kept
    if type(k) is not int:
        raise ConfigError(f"k={k!r} is no whole number of active features")
    if isinstance(kept, TopK | BatchTopK):
        return replace(kept, k=k)
    if isinstance(kept, JumpReLU):
        return replace(kept, l0=float(k))
    raise ConfigError(f"k={k} has no effect with {type(kept).__name__}, whose penalty decides: leave it out")


def read_recipe(path: Path) -> TrainConfig:
    """A configuration from a JSON file, with what `recipe` understands, the site and the seed too where they are given;
    raises ConfigError or DataError, naming the file."""
    data = read_json(path)
    if not isinstance(data, dict):
        raise ConfigError(f"{path} holds no JSON object")
    try:
        return recipe(None, {"site": "L0.H0", **data})
    except InputError as error:
        raise ConfigError(f"{path}: {error}") from None


def overruled(base: TrainConfig, config: TrainConfig) -> list[str]:
    """In words, what a configuration says otherwise than the one it began from; site and seed apart."""
    names = [field.name for field in fields(base) if field.name not in ("site", "seed")]
    both = [(name, getattr(config, name), getattr(base, name)) for name in names]
    return [f"{name} is {after}, not {before}" for name, after, before in both if after != before]


def sites(names: Sequence[str], store: StreamStore) -> list[Site]:
    """Heads by name, a layer (`L6`) standing for all of its; raises InputError for what the store does not hold."""
    found: list[Site] = []
    for name in names:
        layer = re.fullmatch(r"L(\d+)", name.strip())
        if layer is None:
            found.append(Site.parse(name.strip()))
            continue
        index = int(layer[1])
        head_shape(store, Site(index, 0))
        found += [Site(index, head) for head in range(store.layers[index].heads)]
    for site in found:
        head_shape(store, site)
    if len(set(found)) < len(found):
        raise InputError(f"sites {', '.join(names)} name a head twice")
    return found
