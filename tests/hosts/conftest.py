"""Tiny hosts, built once a session."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec

import pytest
import torch

from tiny_models import build_tiny
from writesae.hosts import Host, load

if find_spec("fla") is not None:
    # transformers imports it beside its models; where its warnings are errors that import would fail, and the
    # transformers hosts would be tested as if it were not installed
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import_module("fla.layers")


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny tensors lose more by splitting than they gain."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def tiny() -> Host:
    """A random Qwen3.5: layers 0 and 1 recurrent with 6 heads of 5 x 7 (3 key heads), layer 2 attention."""
    return load(build_tiny("qwen3_5"))


@pytest.fixture(scope="session")
def other_tiny() -> Host:
    """The same class with other weights."""
    return load(build_tiny("qwen3_5", seed=1))
