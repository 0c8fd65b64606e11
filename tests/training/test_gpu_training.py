"""Training on a CUDA device against training on the CPU."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from memory_store import MemoryStore
from test_train import SMALL, small

from writesae.sae import BatchTopK, TopK
from writesae.training import train, train_many
from writesae.types import Site, Target

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("sparsity", [TopK(3), BatchTopK(3)], ids=str)
@pytest.mark.parametrize("target", ["state", "write-delta", "write-value"])
def test_runs_that_share_their_products_equal_the_cpu_one_by_one(
    tmp_path: Path, target: Target, sparsity: TopK | BatchTopK
) -> None:
    store = MemoryStore()
    base = small(target, sparsity=sparsity, steps=25, dead_after=5, resample_every=0)
    wanted = [replace(base, site=Site(3, head), seed=seed, device="cuda") for head in (0, 1) for seed in (0, 1)]
    for config, result in zip(wanted, train_many(store, wanted, tmp_path / "cuda"), strict=True):
        alone = train(store, replace(config, device="cpu"), tmp_path / f"{config.site}{config.seed}")
        for name, want in alone.sae.state_dict().items():
            torch.testing.assert_close(result.sae.state_dict()[name].cpu(), want, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("precision", ["tf32", "bfloat16"])
def test_lower_precision_learns_as_much(tmp_path: Path, precision: str) -> None:
    store = MemoryStore()
    config = replace(SMALL, steps=200, device="cuda")
    exact = train(store, config, tmp_path / "exact").metrics.explained_variance
    found = train(store, replace(config, precision=precision), tmp_path / precision).metrics.explained_variance  # type: ignore[arg-type]
    assert found == pytest.approx(exact, abs=0.02)
