"""Hosts for the edits' tests."""

from __future__ import annotations

import pytest

from random_hosts import ALL_HOSTS, tiny_host
from writesae.hosts import Host


@pytest.fixture(params=ALL_HOSTS)
def any_host(request: pytest.FixtureRequest) -> Host:
    """Every class."""
    return tiny_host(str(request.param))


@pytest.fixture
def tiny() -> Host:
    """A random Qwen3.5: layers 0 and 1 recurrent with 6 heads of 5 x 7."""
    return tiny_host("qwen3_5")
