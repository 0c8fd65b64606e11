"""Several runs at once are the runs one by one."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from memory_store import MemoryStore
from test_train import small

from writesae.sae import SAE, BatchTopK, TopK
from writesae.sae.loss import Loss
from writesae.sae.step import losses_and_gradients
from writesae.training import many, train, train_many
from writesae.types import Site, Target


@pytest.mark.parametrize("memory", [4.0, 4e-5])
def test_many_at_once_equals_one_by_one(memory: float, tmp_path: Path) -> None:
    """With little memory every run reads its pools ahead, all of them from the one store that remembers."""
    store = MemoryStore()
    base = small("write-delta", steps=60, memory=memory)
    wanted = [
        replace(base, site=Site(3, head), seed=seed, sparsity=TopK(2 + seed)) for head in (0, 1) for seed in (0, 1)
    ]
    together = train_many(store, wanted, tmp_path / "together")
    assert [r.config for r in together] == wanted
    for config, result in zip(wanted, together, strict=True):
        alone = train(store, config, tmp_path / f"{config.site}{config.seed}")
        assert alone.metrics == result.metrics
        for name, want in alone.sae.state_dict().items():
            assert torch.equal(result.sae.state_dict()[name], want), name
    again = train_many(store, wanted, tmp_path / "together")
    assert [r.metrics for r in again] == [r.metrics for r in together]


@pytest.mark.parametrize(("target", "sparsity"), [("state", TopK(3)), ("write-delta", BatchTopK(3))], ids=str)
def test_runs_that_share_their_products_equal_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: Target, sparsity: TopK | BatchTopK
) -> None:
    store = MemoryStore()
    base = small(target, sparsity=sparsity, steps=25, dead_after=5, resample_every=10)
    wanted = [replace(base, site=Site(3, head), seed=seed) for head in (0, 1) for seed in (0, 1)]
    wanted.append(replace(base, seed=2, sparsity=TopK(2)))  # of another shape: it goes alone
    groups = []

    def counted(saes: Sequence[SAE], *rest: Any) -> list[Loss]:
        groups.append(len(saes))
        return losses_and_gradients(saes, *rest)

    monkeypatch.setattr(many, "losses_and_gradients", counted)
    for config, result in zip(wanted, train_many(store, wanted, tmp_path / "together", together=True), strict=True):
        alone = train(store, config, tmp_path / f"{config.site}{config.seed}")
        for name, want in alone.sae.state_dict().items():
            torch.testing.assert_close(result.sae.state_dict()[name], want, rtol=1e-3, atol=1e-5)
    assert groups == [4] * 25
