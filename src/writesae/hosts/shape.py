"""The shape of a host without its weights and without the network, for plans of what something would cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from writesae.errors import InputError
from writesae.hosts.host import Layer, find_layers
from writesae.hosts.loading import load
from writesae.hosts.registry import known_architectures
from writesae.hosts.sources import EMBEDDED, in_cache
from writesae.types import Site


@dataclass(frozen=True)
class Shape:
    """What of a host decides the cost."""

    layers: Mapping[int, Layer]
    parameters: int
    source: str
    """Where this is known from."""

    def check_site(self, site: Site) -> None:
        """Raise InputError for a head that is not there."""
        if site.layer not in self.layers or site.head >= self.layers[site.layer].heads:
            heads = ", ".join(f"L{index} (heads 0 to {layer.heads - 1})" for index, layer in self.layers.items())
            raise InputError(f"there is no head {site}; there are {heads}")


QWEN = tuple(index for index in range(24) if index % 4 != 3)
STATED = {
    "Qwen/Qwen3.5-0.8B": (752_000_000, QWEN, 16, 128, 128, "gated-deltanet"),
    "Qwen/Qwen3.5-4B": (4_206_000_000, tuple(i for i in range(32) if i % 4 != 3), 32, 128, 128, "gated-deltanet"),
    "Qwen/Qwen3.5-27B": (26_900_000_000, tuple(i for i in range(64) if i % 4 != 3), 48, 128, 128, "gated-deltanet"),
    "AntonV/mamba2-370m-hf": (368_000_000, tuple(range(48)), 32, 128, 64, "mamba2"),
    "fla-hub/delta_net-1.3B-100B": (1_366_000_000, tuple(range(24)), 16, 128, 128, "deltanet"),
    "fla-hub/gla-1.3B-100B": (1_366_000_000, tuple(range(24)), 4, 256, 512, "gla"),
    "fla-hub/rwkv7-1.5B-world": (1_527_000_000, tuple(range(24)), 32, 64, 64, "rwkv7"),
}
"""Published hosts: parameters, recurrent layers, heads, d_k, d_v, family."""


def shape_of(name: str) -> Shape:
    """The shape of a host, without its weights and without the network.

    Raises InputError for a Hub host that is neither in the cache nor among the published ones.
    """
    if name in EMBEDDED:
        host = load(name)
        return Shape(host.layers, sum(x.numel() for x in host.model.parameters()), "the package")
    folder = Path(name) if Path(name).is_dir() else in_cache(name)
    if folder is not None:
        with torch.device("meta"):
            config_there = AutoConfig.from_pretrained(folder).get_text_config()
            model = AutoModelForCausalLM.from_config(config_there)  # type: ignore[no-untyped-call]
        return Shape(find_layers(model), sum(x.numel() for x in model.parameters()), f"its config in {folder}")
    if name not in STATED:
        raise InputError(
            f"{name} is neither on this machine nor in the Hub's cache, and only the shapes of {', '.join(STATED)} are "
            "known without: fetch its config.json once (hf download NAME config.json)"
        )
    parameters, indices, heads, d_k, d_v, family = STATED[name]
    kind = next(one for one in known_architectures() if one.family == family)
    layers = {i: Layer(i, family, heads, d_k, d_v, name=f"layers.{i}", architecture=kind) for i in indices}
    return Shape(layers, parameters, "its published shape")
