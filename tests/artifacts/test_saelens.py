"""Exports load in SAELens itself, and its own SAEs import: the same codes and reconstructions on both sides."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from dictionaries import PARTS, K, N, V, matrices, random_sae

from writesae.artifacts.interchange import export_saelens, import_vectors
from writesae.sae import BatchTopK, Gated, JumpReLU, SAEConfig, TopK

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    sae_lens: Any = pytest.importorskip("sae_lens", reason="SAELens is not installed", exc_type=ImportError)

KINDS = [SAEConfig(K, V, N, encoder, TopK(5), decoder) for encoder, decoder in PARTS]
KINDS += [SAEConfig(K, V, N, sparsity=kind) for kind in (JumpReLU(), Gated(), BatchTopK(5))]
pytestmark = pytest.mark.filterwarnings("default")


@pytest.mark.parametrize("config", KINDS, ids=repr)
def test_saelens_loads_an_export_and_agrees(config: SAEConfig, tmp_path: Path) -> None:
    sae = random_sae(config)
    export_saelens(sae, tmp_path / "out")
    theirs = sae_lens.SAE.load_from_disk(tmp_path / "out")
    codes = theirs.encode(matrices().flatten(1))
    ours = sae.encode(matrices())
    torch.testing.assert_close(codes, ours.dense(N), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(theirs.decode(codes).view(13, K, V), sae.decode(ours), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("side", "size"), [("key", K), ("value", V)])
def test_saelens_loads_either_side(side: str, size: int, tmp_path: Path) -> None:
    sae = random_sae(SAEConfig(K, V, N, sparsity=TopK(5)))
    export_saelens(sae, tmp_path / "out", side=side)  # type: ignore[arg-type]
    theirs = sae_lens.SAE.load_from_disk(tmp_path / "out")
    assert theirs.cfg.d_in == size
    assert torch.equal(theirs.W_dec, (sae.v_dec if side == "key" else sae.w_dec)[:, 0])
    assert theirs(torch.randn(3, size)).shape == (3, size)


@pytest.mark.parametrize("subtract", [True, False])
@pytest.mark.parametrize("rescale", [True, False])
def test_their_saes_are_imported(subtract: bool, rescale: bool, tmp_path: Path) -> None:
    config = sae_lens.TopKSAEConfig(
        d_in=K * V, d_sae=N, k=5, apply_b_dec_to_input=subtract, rescale_acts_by_decoder_norm=rescale
    )
    theirs = sae_lens.TopKSAE(config)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(7)))
    theirs.save_model(tmp_path / "theirs")
    sae = import_vectors(tmp_path / "theirs", (K, V)).sae
    x = matrices()
    torch.testing.assert_close(sae.encode(x).dense(N), theirs.encode(x.flatten(1)), rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(sae(x), theirs(x.flatten(1)).view(13, K, V), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("subtract", [True, False])
@pytest.mark.parametrize("kind", ["Standard", "Gated", "JumpReLU"])
def test_their_other_saes_are_imported(kind: str, subtract: bool, tmp_path: Path) -> None:
    config = getattr(sae_lens, f"{kind}SAEConfig")(d_in=K * V, d_sae=N, apply_b_dec_to_input=subtract)
    theirs = getattr(sae_lens, f"{kind}SAE")(config)
    with torch.no_grad():
        for seed, parameter in enumerate(theirs.parameters()):
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed)))
    theirs.save_model(tmp_path / "theirs")
    sae = import_vectors(tmp_path / "theirs", (K, V)).sae
    x = matrices()
    torch.testing.assert_close(sae.encode(x).dense(N), theirs.encode(x.flatten(1)), rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(sae(x), theirs(x.flatten(1)).view(13, K, V), rtol=1e-5, atol=1e-3)
