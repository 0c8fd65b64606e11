"""Fixtures shared by all tests: the embedded host, loaded once, and a few passages of real text."""

import os
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"

import pytest
import torch

import shapes as checks  # before all that it checks
from first_blocks import first_blocks
from small_results import SHAPES, small_result
from writesae.evals import EVALUATIONS
from writesae.evals.common.result import Result
from writesae.hosts import Host, load


@pytest.fixture(autouse=True)
def _dimensions_are_checked_again() -> None:
    checks.calls.clear()


@pytest.fixture(scope="session")
def host() -> Host:
    """tiny-gdn, float32."""
    return load("tiny-gdn")


@pytest.fixture(scope="session")
def passages(host: Host) -> torch.Tensor:
    """Held-out text, `[7, 53]`."""
    blocks = first_blocks(host.tokenizer, 53, 7)
    return torch.from_numpy(blocks.tokens)


@pytest.fixture(scope="session")
def few_passages(host: Host) -> dict[str, torch.Tensor]:
    """Evaluation -> passages `[B, T]` that are enough for its small result."""
    blocks = first_blocks(host.tokenizer, 29, 400)
    tokens = torch.from_numpy(blocks.tokens)[::11].flatten()
    shapes = {name: SHAPES.get(name, (5, 29)) for name in EVALUATIONS}
    whole = torch.from_numpy(blocks.tokens).flatten()
    return {
        name: (tokens if rows * length <= len(tokens) else whole)[: rows * length].view(rows, length)
        for name, (rows, length) in shapes.items()
    }


@pytest.fixture(scope="session")
def results(host: Host, few_passages: dict[str, torch.Tensor]) -> dict[str, Result[Any, Any]]:
    """A small result of every evaluation."""
    return {name: small_result(name, host, few_passages[name]) for name in EVALUATIONS}
