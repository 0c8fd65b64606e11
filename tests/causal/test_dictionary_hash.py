"""A dictionary by its content: every kind of one."""

from __future__ import annotations

import pytest
import torch

from writesae.causal.identity import sae_hash
from writesae.sae import SAE, SAEConfig
from writesae.sae.config import BatchTopK, Gated, JumpReLU, SoftGated, Sparsity, TopK


@pytest.mark.parametrize("sparsity", [TopK(2), BatchTopK(2), JumpReLU(), Gated(), SoftGated()], ids=repr)
def test_every_tensor_counts(sparsity: Sparsity) -> None:
    sae = SAE(SAEConfig(3, 5, 7, sparsity=sparsity), torch.Generator().manual_seed(0))
    before = sae_hash(sae)
    for name, tensor in sae.state_dict().items():  # BatchTopK's threshold is a single number
        kept = tensor.clone()
        tensor.add_(1)
        assert sae_hash(sae) != before, name
        tensor.copy_(kept)
    assert sae_hash(sae) == before
