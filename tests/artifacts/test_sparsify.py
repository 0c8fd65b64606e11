"""SAEs that sparsify itself writes are imported with the same codes and reconstructions."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from dictionaries import K, N, V, matrices

from writesae.artifacts.interchange import import_vectors

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    sparsify: Any = pytest.importorskip("sparsify", reason="sparsify is not installed", exc_type=ImportError)

pytestmark = pytest.mark.filterwarnings("default")


@pytest.mark.parametrize("latents", [{"num_latents": N}, {"num_latents": 0, "expansion_factor": 2}])
def test_their_saes_are_imported(latents: dict[str, int], tmp_path: Path) -> None:
    theirs = sparsify.SparseCoder(K * V, sparsify.SparseCoderConfig(k=5, **latents))
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 3)
    theirs.save_to_disk(tmp_path)
    sae = import_vectors(tmp_path, (K, V)).sae
    x = matrices()
    found = theirs.encode(x.flatten(1))
    codes = torch.zeros(13, theirs.num_latents).scatter(1, found.top_indices, found.top_acts)
    torch.testing.assert_close(sae.encode(x).dense(theirs.num_latents), codes, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(sae(x), theirs(x.flatten(1)).sae_out.view(13, K, V), rtol=1e-5, atol=1e-4)
