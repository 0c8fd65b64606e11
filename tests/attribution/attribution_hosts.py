"""Tiny hosts of every class, built once, and dictionaries that fit them."""

from __future__ import annotations

import warnings
from functools import cache
from importlib import import_module
from importlib.util import find_spec

import pytest
import torch
from torch import Tensor

from writesae.hosts import Host, load_host
from writesae.hosts.tiny import TINY_MODELS, build_tiny
from writesae.sae import SAE, SAEConfig, TopK
from writesae.types import Site, Target

TIME = 17

if find_spec("fla") is not None:  # its import warns of missing GPUs
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import_module("fla.layers")


@cache
def tiny_host(name: str) -> Host:
    """A random tiny model."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of fla's RWKV-7
        return load_host(build_tiny(name))


def host_parameter(name: str) -> object:
    """A host's name, skipped where its package is not installed."""
    extra = TINY_MODELS[name].extra
    if extra is None:
        return name
    missing = find_spec(TINY_MODELS[name].module.partition(".")[0]) is None
    skip = pytest.mark.skipif(missing, reason=f"needs writesae[{extra}]")
    return pytest.param(name, marks=[getattr(pytest.mark, extra), skip])


ALL_HOSTS = [host_parameter(name) for name in TINY_MODELS]


def dictionary(host: Host, site: Site, target: Target = "write-value", features: int = 101) -> SAE:
    """A random dictionary for a site."""
    layer = host.layers[site.layer]
    config = SAEConfig(layer.d_k, layer.d_v, features, sparsity=TopK(5), target=target)
    return SAE(config, torch.Generator().manual_seed(7))


def some_text(time: int = TIME) -> Tensor:
    """Random token ids, `[T]`."""
    return torch.randint(3, 101, (time,), generator=torch.Generator().manual_seed(0))
