"""What a sweep is: a file, and the pure list of runs that follows from it. Free of torch."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from itertools import product
from math import prod
from pathlib import Path
from typing import cast

from writesae.config import Json, at_least, checked, from_json
from writesae.disk import JSON_LIMIT, check_there
from writesae.errors import ConfigError, DataError, InputError
from writesae.evals import named
from writesae.training.config import TrainConfig

SHIPPED = Path(__file__).parent / "shipped"
"""Sweeps that come with the package, by name: `matched` (the paper's 720 runs), `small` (24, in minutes)."""
SHORT = ("preset", "k")
"""Settings of training that are short for others."""
FIXED = ("memory", "device", "threads")
"""Settings that say where a run is made, not what it is; they belong to the command."""
MOST = 100_000
"""Runs of one sweep."""


@checked
@dataclass(frozen=True)
class Sweep:
    """Every combination of the values in `grid`, on every host."""

    hosts: tuple[str, ...]
    """Embedded hosts, folders, or Hub ids."""
    grid: dict[str, Json]
    """Setting of training -> its values. `site` is one of them ("L5.H0", or a layer, "L5": all of its heads);
    `preset`, `sparsity` and `k` are understood as `writesae train` does."""
    train: dict[str, Json] = field(default_factory=dict)
    """Every other setting of training that is not the usual one, the same for all runs."""
    evaluate: dict[str, dict[str, Json]] = field(default_factory=dict)
    """Evaluation -> its options (`passages` and `length` among them), run on every dictionary."""
    corpus: str = "sample"
    """Text: four fifths to capture, the rest for the evaluations."""
    tokens: int = 200_000
    """Captured, a host."""
    length: int = 256
    """Tokens a sequence."""

    def __post_init__(self) -> None:
        at_least(self, tokens=1, length=2)
        known = [one.name for one in fields(TrainConfig) if one.name not in FIXED] + list(SHORT)
        for part, name in (*(("grid", name) for name in self.grid), *(("train", name) for name in self.train)):
            if name not in known:
                near = " or ".join(get_close_matches(name, known, 2))
                why = "is said by the command" if name in FIXED else f"is no setting of training{_meant(near)}"
                raise ConfigError(f"[{part}] {name}: it {why}")
        if both := [name for name in self.grid if name in self.train]:
            raise ConfigError(f"{both[0]!r} stands in [grid] and in [train]: leave one out")
        if "site" not in self.grid:
            raise ConfigError('[grid] names no heads: give site = ["L5.H0"], or a layer, ["L5"]')
        for name, values in self.grid.items():
            if not isinstance(values, list) or not values or any(x in values[:i] for i, x in enumerate(values)):
                raise ConfigError(f"{name} = {values} in [grid]: give a list, each value once, and at least one")
        for name, options in self.evaluate.items():
            one = named(name)
            if one.takes not in ("one", "heads", "optional"):
                raise ConfigError(f"[evaluate.{name}]: it does not measure one dictionary by itself")
            for key in ("passages", "length"):
                if key in options and (type(options[key]) is not int or cast(int, options[key]) < 1):
                    raise ConfigError(f"[evaluate.{name}] {key} = {options[key]!r}: give a whole number from 1 on")
            try:
                one.configured({key: value for key, value in options.items() if key not in ("passages", "length")})
            except InputError as error:
                raise ConfigError(f"[evaluate.{name}]: {error}") from None
        if self.size > MOST:
            raise ConfigError(f"{self.size:,} runs are more than the {MOST:,} of one sweep: split it")

    @property
    def values(self) -> dict[str, list[Json]]:
        """The grid."""
        return cast(dict[str, list[Json]], self.grid)

    @property
    def size(self) -> int:
        """Runs, a layer counted as one."""
        return len(self.hosts) * prod(map(len, self.values.values()))

    @property
    def axes(self) -> list[str]:
        """The settings that have several values, in the file's order."""
        return [name for name, values in self.values.items() if len(values) > 1]

    def cells(self) -> Iterator[dict[str, Json]]:
        """The combinations: what is asked of training for each, as the file says it."""
        for values in product(*self.values.values()):
            yield self.train | dict(zip(self.grid, values, strict=True))


def read_sweep(source: str | Path) -> Sweep:
    """A sweep from a TOML file, or one that comes with the package by its name.

    Raises InputError where there is none, DataError for what is no TOML, ConfigError for what it may not say.
    """
    path = SHIPPED / f"{source}.toml" if str(source) in shipped() else Path(source)
    give = f"give a TOML file, or one of {', '.join(shipped())}"
    check_there(path, give)
    if not path.is_file():
        raise InputError(f"{path} is a folder: {give}")
    if path.stat().st_size > JSON_LIMIT:
        raise DataError(f"{path} is too large for a sweep's file")
    try:
        data = tomllib.loads(path.read_bytes().decode("utf-8"))
    except UnicodeDecodeError:
        raise DataError(f"{path} is no text in UTF-8: save it as UTF-8") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise DataError(f"{path} is no TOML: {error}") from None
    known = [one.name for one in fields(Sweep)]
    for name in data:
        if name not in known:
            near = " or ".join(get_close_matches(name, known, 2))
            raise ConfigError(f"{path}: a sweep has no {name!r}{_meant(near)}; it has {', '.join(known)}")
    if "hosts" in data and not isinstance(data["hosts"], list):
        raise ConfigError(f'{path}: hosts = {data["hosts"]!r}: give a list, hosts = ["tiny-gdn"]')
    try:
        return from_json(Sweep, data)
    except InputError as error:
        said = str(error).removeprefix("cannot read a Sweep: ").replace(" @ Sweep", "")
        raise ConfigError(f"{path}: {said}") from None


def _meant(near: str) -> str:
    return f"; did you mean {near}?" if near else ""


def shipped() -> list[str]:
    """Names of the sweeps that come with the package."""
    return sorted(path.stem for path in SHIPPED.glob("*.toml"))


def told(cell: Mapping[str, Json]) -> str:
    """A combination in words."""
    return ", ".join(f"{name} {value}" for name, value in cell.items())
