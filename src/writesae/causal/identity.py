"""Who a result speaks of: models and dictionaries by content, and whether they belong together."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType

import torch

from writesae.config import Json, to_json
from writesae.errors import InputError
from writesae.hosts import Host, Layer
from writesae.sae import SAE
from writesae.types import Reading, Site


@cache
def versions() -> Mapping[str, str]:
    """Versions of the packages that numbers depend on."""
    return MappingProxyType({name: version(name) for name in ("writesae", "torch", "transformers")})


def published(name: str) -> str:
    """A name without the folders above it: results are published."""
    path = Path(name)
    return path.name if path.is_absolute() or path.exists() else name


def sae_hash(sae: SAE) -> str:
    """SHA-256 over a dictionary's configuration and tensors."""
    digest = hashlib.sha256(repr(to_json(sae.config)).encode())
    for name, tensor in sorted(sae.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def sae_name(sae: SAE, site: Site) -> str:
    """What a dictionary is, from its own record: `writesae L5.H0 state, seed 0`."""
    record = sae.record
    seed = f", seed {record.seed}" if record is not None and record.seed is not None else ""
    return f"{(record.variant if record else None) or 'dictionary'} {site} {sae.target}{seed}"


def measured_on(host: Host, saes: Mapping[Site, SAE]) -> dict[str, Json]:
    """What a result says of the model, of the dictionaries, and of what ran them."""
    dictionaries: list[Json] = [
        {"name": sae_name(sae, site), "sha256": sae_hash(sae), "site": str(site), "target": sae.target}
        for site, sae in saes.items()
    ]
    dtype, device = str(host.dtype).removeprefix("torch."), str(host.device)
    return {
        "host": published(host.name), "revision": host.revision, "dtype": dtype, "device": device,
        "versions": dict(versions()), "dictionaries": dictionaries,
    }  # fmt: skip


def measured_line(of: Mapping[str, Json]) -> str:
    """What `measured_on` says, in one line: the model, and the dictionaries by name and hash."""
    many = of["dictionaries"] if isinstance(of["dictionaries"], list) else []
    named = [f"{one['name']} ({str(one['sha256'])[:10]})" for one in many if isinstance(one, dict)]
    return " | ".join([f"{of['host']} ({str(of['revision'])[:10]}), {of['dtype']}", *(named or ["no dictionary"])])


def check_size(host: Host, site: Site, sae: SAE) -> Layer:
    """The layer of a head that a dictionary is put at; raises InputError where there is no such head, or where it has
    matrices of another size, naming whose the dictionary is where that is known."""
    config = sae.config
    try:
        layer = host.check_site(site)
        if (config.d_k, config.d_v) != (layer.d_k, layer.d_v):
            raise InputError(
                f"the dictionary is for {config.d_k} x {config.d_v} matrices, but {site} of {host.name} writes "
                f"{layer.d_k} x {layer.d_v}: it belongs to another host or layer"
            )
    except InputError as error:
        wrong = [*mismatches(host, site, sae), str(error)]
        raise InputError("; ".join(wrong) + f": {remedy(host, sae)}" * (len(wrong) > 1)) from None
    return layer


def check_reading(reading: Reading, saes: Iterable[SAE]) -> None:
    """Raise InputError for a reading that no dictionary has."""
    if reading == "increment" and not any(sae.target == "state" for sae in saes):
        raise InputError(
            "reading='increment' has no effect: a dictionary of writes has one reading, and none of states was given"
        )


def check_features(sae: SAE, features: Sequence[int]) -> tuple[int, ...]:
    """The features; raises InputError for none, for one twice, or for one that the dictionary does not have."""
    most = sae.config.features - 1
    if not features or len(set(features)) < len(features) or not all(0 <= f <= most for f in features):
        asked = ", ".join(map(str, features)) or "none"
        raise InputError(f"features {asked} were asked of a dictionary with features 0 to {most}: give some, each once")
    return tuple(features)


def mismatches(host: Host, site: Site, sae: SAE) -> tuple[str, ...]:
    """In words, where a dictionary's own record names another head or other weights; empty where nothing does.

    Weights are compared by their revision where the dictionary records it, else by the host's name.
    """
    record, wrong = sae.record, []
    if record is None:
        return ()
    if record.site is not None and record.site != site:
        wrong.append(f"the dictionary is of {record.site}, not of {site}")
    theirs, ours = record.host_revision, host.revision
    if theirs is not None and theirs != ours:
        of = record.host or "a host"
        same = ", whose weights have changed since, or which an older version hashed otherwise: capture and train again"
        told = same if Path(of).name == Path(host.name).name else ""
        wrong.append(f"the dictionary is of {of} revision {theirs[:12]}, not of {host.name} revision {ours[:12]}{told}")
    if theirs is None and record.host is not None and Path(record.host).name != Path(host.name).name:
        wrong.append(f"the dictionary is of {record.host}, not of {host.name}")
    return tuple(wrong)


def remedy(host: Host, sae: SAE) -> str:
    """What to do about a dictionary of another head or host, in words."""
    own = None if sae.record is None else sae.record.host
    if own is None or Path(own).name == Path(host.name).name:
        return "use the one it belongs to"
    return f'load the host it belongs to, --host {own} (in Python ws.load("{own}"))'
