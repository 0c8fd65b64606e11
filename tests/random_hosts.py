"""Tiny hosts of every class, built once, dictionaries that fit them, and what tests compare."""

from __future__ import annotations

import warnings
from functools import cache
from importlib import import_module
from importlib.util import find_spec

import pytest
import torch
from torch import Tensor

from tiny_models import TINY_MODELS, build_tiny, lacking
from writesae.hosts import Host, load
from writesae.sae import SAE, SAEConfig, TopK
from writesae.types import Site, Target

BATCH, TIME = 2, 17
TOLERANCE = 1e-5

if find_spec("fla") is not None:  # its import warns of missing GPUs
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import_module("fla.layers")


@cache
def tiny_host(name: str, seed: int = 0) -> Host:
    """A random tiny model."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fla warns of missing GPUs, of torch's own changes, and of its RWKV-7
        return load(build_tiny(name, seed))


def host_parameter(name: str) -> object:
    """A host's name, skipped where its package is not installed or its release lacks the class."""
    extra, why = TINY_MODELS[name].extra, lacking(name)
    marks = [] if extra is None else [getattr(pytest.mark, extra)]
    return pytest.param(name, marks=[*marks, pytest.mark.skipif(why is not None, reason=why or "")])


ALL_HOSTS = [host_parameter(name) for name in TINY_MODELS]


def dictionary(host: Host, site: Site, target: Target = "write-value", features: int = 13, k: int = 3) -> SAE:
    """A random dictionary for a site."""
    layer = host.layers[site.layer]
    config = SAEConfig(layer.d_k, layer.d_v, features, sparsity=TopK(k), target=target)
    return SAE(config, torch.Generator().manual_seed(7))


def some_tokens(seed: int = 0, rows: int = BATCH, time: int = TIME) -> Tensor:
    """Random token ids."""
    return torch.randint(3, 101, (rows, time), generator=torch.Generator().manual_seed(seed))


def some_text(time: int = TIME) -> Tensor:
    """One row of random token ids, `[T]`."""
    return some_tokens(rows=1, time=time)[0]


def relative(x: Tensor, y: Tensor) -> float:
    """Relative L2 error."""
    return float((x - y).norm() / y.norm())


def first_site(host: Host) -> Site:
    """Head 1 of the first recurrent layer."""
    return Site(next(iter(host.layers)), 1)
