"""A model, a dictionary and a head: whether they belong together, and on which device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, TypeVar, get_args

import torch

from writesae.causal.identity import check_size, mismatches, remedy
from writesae.errors import InputError
from writesae.hosts import Host
from writesae.sae import SAE
from writesae.types import Site

T = TypeVar("T")
Allow = Literal["mismatch"] | Sequence[Literal["mismatch"]]
"""What may be overruled: a dictionary of another head or of other weights. Every result says so."""
Dictionaries = SAE | Sequence[SAE] | Mapping[Site, SAE] | Mapping[str, SAE]
"""One that knows its head, several, or each by its head."""


class Placed(NamedTuple):
    """A dictionary at a head of a model."""

    site: Site
    sae: SAE
    """On the layer's device: the one given, or a copy where it stood elsewhere."""
    overruled: tuple[str, ...] = ()
    """What does not fit and was allowed all the same, in words."""


def check_model(model: object) -> Host:
    """The model, if it is one; raises InputError for anything else."""
    if not isinstance(model, Host):
        raise InputError(f"the first argument is {_kind(model)}, and must be a model: ws.load(...)")
    return model


def read_site(site: Site | str) -> Site:
    """`"L5.H0"` or a Site. Raises InputError for anything else."""
    if not isinstance(site, Site | str):
        raise InputError(f'{_kind(site)} was given as a site: write it like "L5.H0"')
    return Site.parse(site) if isinstance(site, str) else site


def place(model: Host, sae: SAE, site: Site | str | None = None, *, allow: Allow = ()) -> Placed:
    """Put a dictionary at its own head, or at the one that is named.

    Raises InputError for a dictionary of matrices of another size, one that belongs to no head while none is named,
    and, unless `allow="mismatch"`, one of another head or of other weights.
    """
    if not isinstance(sae, SAE):
        raise InputError(f"{_kind(sae)} was given as a dictionary: train one, or load it with ws.load_sae(...)")
    asked = sae.site if site is None else read_site(site)
    if asked is None:
        raise InputError('the dictionary does not say which head it belongs to: give one, site="L5.H0"')
    check_size(check_model(model), asked, sae)
    wrong = mismatches(model, asked, sae)
    if wrong and "mismatch" not in allow:
        raise InputError(f'{"; ".join(wrong)}: {remedy(model, sae)}, or allow="mismatch" (--allow mismatch)')
    return Placed(asked, sae.on(_device(model, asked)), wrong)


def place_all(
    model: Host, saes: Dictionaries | None, site: Site | str | None = None, *, allow: Allow = ()
) -> dict[Site, Placed]:
    """One dictionary, one for each of several heads, or none. Raises InputError as `place` does, and for two of a head.

    `site` is the head of a single one.
    """
    pairs: list[tuple[Site | str | None, SAE]]
    if isinstance(saes, Mapping):
        pairs = list(saes.items())
    else:
        pairs = [(site, sae) for sae in (() if saes is None else saes if isinstance(saes, list | tuple) else (saes,))]
    if site is not None and (isinstance(saes, Mapping) or len(pairs) != 1):
        raise InputError(f"site {site} was named beside {len(pairs)} dictionaries: give one, or each by its head")
    found: dict[Site, Placed] = {}
    for where, sae in pairs:
        one = place(model, sae, where, allow=allow)
        if one.site in found:
            raise InputError(f"two dictionaries of {one.site} were given: give one of each head")
        found[one.site] = one
    return found


def check_choice(name: str, value: T, allowed: object) -> T:
    """The value, if it is one of a Literal's; raises InputError for anything else."""
    if value not in get_args(allowed):
        raise InputError(f"{name} {value!r} is none of {', '.join(map(str, get_args(allowed)))}")
    return value


def _device(model: Host, site: Site) -> torch.device:
    """Where a layer's states are."""
    weights = next(model.mixers[site.layer].module.parameters())
    return model.device if weights.is_meta else weights.device


def _kind(x: object) -> str:
    return "nothing" if x is None else f"a {type(x).__name__}"
