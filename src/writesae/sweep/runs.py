"""The runs of a sweep on one host: what is asked for, as training understands it, each with a name of its own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from writesae.config import Json
from writesae.errors import ConfigError, InputError
from writesae.sweep.config import Sweep, told
from writesae.training import TrainConfig
from writesae.training.costs import Sized
from writesae.training.recipe import recipe
from writesae.types import Site


@dataclass(frozen=True)
class Planned:
    """One run."""

    name: str
    """Unique on its host; the name of its folders."""
    cell: Mapping[str, Json]
    """Its values of the sweep's grid, its own head among them."""
    config: TrainConfig


def planned(sweep: Sweep, layers: Mapping[int, Sized], device: str = "auto", memory: float = 4.0) -> list[Planned]:
    """The runs, in the order of the grid.

    Raises ConfigError for a combination that cannot be trained, naming it, and InputError for a head that is not there.
    """
    runs: dict[str, Planned] = {}
    for cell in sweep.cells():
        for site in _sites(str(cell["site"]), layers):
            layer = layers[site.layer]
            own = {name: str(site) if name == "site" else cell[name] for name in sweep.grid}
            try:
                config = recipe(None, cell | {"site": site, "device": device, "memory": memory})
                config.sae(layer.d_k, layer.d_v)
            except InputError as error:
                raise ConfigError(f"{told(own)}: {error}") from None
            name = "-".join([str(site), *(_word(sweep, axis, cell) for axis in sweep.axes if axis != "site")])
            if runs.setdefault(name, run := Planned(name, own, config)) is not run:
                raise ConfigError(f"{told(own)} is asked for twice: a layer in [grid] stands for all of its heads")
    return list(runs.values())


def _word(sweep: Sweep, axis: str, cell: Mapping[str, Json]) -> str:
    """A value in the name of a run: itself, or its number in the file where it is more than a word."""
    value = cell[axis]
    plain = isinstance(value, str) and re.fullmatch(r"[\w.]+", value.replace("-", "_"))
    if plain or isinstance(value, int | float):
        return str(value).replace("-", "_") if plain else f"{axis}{value}"
    return f"{axis}_{sweep.values[axis].index(value)}"


def _sites(name: str, layers: Mapping[int, Sized]) -> list[Site]:
    whole = re.fullmatch(r"L(\d+)", name.strip())
    sites = [Site.parse(name.strip())] if whole is None else [Site(int(whole[1]), 0)]
    for site in sites:
        if site.layer not in layers:
            raise InputError(f"there is no layer {site.layer} with a matrix state: there are {sorted(layers)}")
        if site.head >= layers[site.layer].heads:
            raise InputError(f"there is no head {site}: layer {site.layer} has {layers[site.layer].heads}")
    return sites if whole is None else [Site(sites[0].layer, head) for head in range(layers[sites[0].layer].heads)]
