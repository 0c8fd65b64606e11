"""Fixtures shared by all tests: the embedded host, loaded once, and a few passages of real text."""

import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"
os.environ.setdefault("OMP_NUM_THREADS", "1")  # a process a core

import pytest
import torch

import shapes as checks  # before all that it checks
from first_blocks import first_blocks
from pretend_cuda import pretend_cuda
from small_results import SHAPES, small_result
from writesae.evals import EVALUATIONS
from writesae.evals.common.result import Result
from writesae.hosts import Host, load


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Whole folders of tests are run by as many processes as there are cores, four at most; single files by one."""
    if all(Path(given).is_dir() for given in config.args):
        return min(4, os.cpu_count() or 1)
    config.option.dist = "no"
    return 0


@pytest.fixture(autouse=True)
def _dimensions_are_checked_again() -> None:
    checks.calls.clear()


@pytest.fixture(scope="module", autouse=True)
def _a_gpu_or_a_pretended_one(request: pytest.FixtureRequest) -> Iterator[None]:
    """What is marked `gpu` runs on a GPU where there is one, and on a pretended one elsewhere."""
    if request.node.get_closest_marker("gpu") is None or torch.cuda.is_available():
        yield
    elif find_spec("triton"):
        pytest.skip("the kernels of the fla extra take no pretended device")
    else:
        with pretend_cuda():
            yield


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
