"""Vector dictionaries to and from SAELens and sparsify, checked on their documented files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from dictionaries import PARTS, K, N, V, matrices, random_sae
from safetensors.torch import load_file, save_file

from writesae.artifacts.interchange import export_saelens, import_vectors
from writesae.errors import DataError, InputError, OutputError
from writesae.sae import SAE, BatchTopK, Flat, Gated, JumpReLU, Linear, Record, SAEConfig, SoftGated, TopK
from writesae.types import Site

FLAT = SAEConfig(K, V, N, Linear(), TopK(5), Flat())
PLAIN = SAEConfig(K, V, N, sparsity=TopK(5))
KINDS = [SAEConfig(K, V, N, encoder, TopK(5), decoder) for encoder, decoder in PARTS]
KINDS += [SAEConfig(K, V, N, sparsity=kind) for kind in (JumpReLU(), Gated(), BatchTopK(5))]


def coefficients(sae: SAE) -> torch.Tensor:
    return sae.encode(matrices()).dense(N)


def test_batchtopk_without_a_threshold_has_no_form_there(tmp_path: Path) -> None:
    sae = random_sae(SAEConfig(K, V, 23, sparsity=BatchTopK(5)))
    sae.threshold.fill_(-1)
    with pytest.raises(InputError, match="without a threshold"):
        export_saelens(sae, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("config", KINDS, ids=repr)
def test_export_and_import_keep_every_code(config: SAEConfig, tmp_path: Path) -> None:
    sae = random_sae(config)
    export_saelens(sae, tmp_path / "out", Record(host="some/model", site=Site(9, 4)))
    back = import_vectors(tmp_path / "out", (K, V)).sae
    torch.testing.assert_close(coefficients(back), coefficients(sae), rtol=1e-5, atol=1e-5)
    codes = sae.encode(matrices())
    torch.testing.assert_close(back.decode(codes), sae.decode(codes), rtol=1e-5, atol=1e-5)


def test_the_written_files_are_what_saelens_documents(tmp_path: Path) -> None:
    sae = random_sae(PLAIN)
    export_saelens(sae, tmp_path / "out")
    config, weights = (
        json.loads((tmp_path / "out/cfg.json").read_text()),
        load_file(tmp_path / "out/sae_weights.safetensors"),
    )
    assert (config["architecture"], config["k"], config["d_in"], config["d_sae"]) == ("topk", 5, K * V, N)
    assert config["apply_b_dec_to_input"] is False
    pre = matrices().flatten(1) @ weights["W_enc"] + weights["b_enc"]
    value, index = pre.topk(5)
    codes = torch.zeros(13, N).scatter(1, index, value.relu())
    torch.testing.assert_close(codes, coefficients(sae), rtol=1e-5, atol=1e-5)
    decoded = (codes @ weights["W_dec"] + weights["b_dec"]).view(13, K, V)
    torch.testing.assert_close(decoded, sae.decode(sae.encode(matrices())).detach(), rtol=1e-5, atol=1e-5)


def test_either_side_of_rank_one_atoms(tmp_path: Path) -> None:
    sae = random_sae(PLAIN)
    for side, decoder, encoder in (("key", sae.v_dec, sae.v_enc), ("value", sae.w_dec, sae.w_enc)):
        export_saelens(sae, tmp_path / side, side=side)  # type: ignore[arg-type]
        weights = load_file(tmp_path / side / "sae_weights.safetensors")
        assert torch.equal(weights["W_dec"], decoder[:, 0])
        assert torch.equal(weights["W_enc"], encoder[:, 0].T)
        assert not weights["b_enc"].any()
        assert not weights["b_dec"].any()


def test_soft_gates_and_sides_of_full_atoms_cannot_be_exported(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no form"):
        export_saelens(random_sae(SAEConfig(K, V, N, sparsity=SoftGated())), tmp_path / "out")
    with pytest.raises(InputError, match="not both rank 1"):
        export_saelens(random_sae(FLAT), tmp_path / "out", side="key")
    assert list(tmp_path.iterdir()) == []


def test_an_export_never_overwrites(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("mine")
    with pytest.raises(OutputError):
        export_saelens(random_sae(PLAIN), tmp_path)


def saelens(folder: Path, **changes: object) -> dict[str, torch.Tensor]:
    """A SAELens SAE on flattened matrices, TopK if nothing else is said."""
    folder.mkdir(parents=True)
    config: dict[str, object] = {"architecture": "topk", "k": 5, "d_in": K * V, "d_sae": N}
    config |= {"normalize_activations": "none"} | changes
    (folder / "cfg.json").write_text(json.dumps(config))
    own = ("b_gate", "b_mag", "r_mag") if config["architecture"] == "gated" else ("b_enc",)
    shapes = {"W_enc": (K * V, N), "W_dec": (N, K * V), "b_dec": (K * V,)} | dict.fromkeys(own, (N,))
    generator = torch.Generator().manual_seed(4)
    weights = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    save_file(weights, folder / "sae_weights.safetensors")
    return weights


@pytest.mark.parametrize("subtract", [True, False])
@pytest.mark.parametrize("rescale", [True, False])
def test_saelens_options_are_folded_exactly(subtract: bool, rescale: bool, tmp_path: Path) -> None:
    w = saelens(tmp_path / "s", apply_b_dec_to_input=subtract, rescale_acts_by_decoder_norm=rescale)
    x = matrices().flatten(1)
    pre = (x - w["b_dec"] * subtract) @ w["W_enc"] + w["b_enc"]
    norm = w["W_dec"].norm(dim=1) if rescale else torch.ones(N)
    value, index = (pre * norm).topk(5)
    codes = torch.zeros(13, N).scatter(1, index, value.relu())
    decoded = ((codes / norm) @ w["W_dec"] + w["b_dec"]).view(13, K, V)
    sae = import_vectors(tmp_path / "s", (K, V), target="write-delta").sae
    assert sae.config.target == "write-delta"
    torch.testing.assert_close(coefficients(sae), codes, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(sae(matrices()).detach(), decoded, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("subtract", [True, False])
@pytest.mark.parametrize("kind", ["standard", "gated"])
def test_saelens_relu_and_gated_saes_keep_every_code(kind: str, subtract: bool, tmp_path: Path) -> None:
    w = saelens(tmp_path / "s", architecture=kind, apply_b_dec_to_input=subtract)
    projected = (matrices().flatten(1) - w["b_dec"] * subtract) @ w["W_enc"]
    if kind == "standard":
        codes = (projected + w["b_enc"]).relu()
    else:
        codes = (projected * w["r_mag"].exp() + w["b_mag"]).relu() * (projected + w["b_gate"] > 0)
    sae = import_vectors(tmp_path / "s", (K, V)).sae
    assert isinstance(sae.config.sparsity, JumpReLU if kind == "standard" else Gated)
    assert 0 < float((codes > 0).float().mean()) < 1
    torch.testing.assert_close(coefficients(sae), codes, rtol=1e-5, atol=1e-4)
    decoded = (codes @ w["W_dec"] + w["b_dec"]).view(13, K, V)
    torch.testing.assert_close(sae(matrices()).detach(), decoded, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("latents", [{"num_latents": N}, {"num_latents": 0, "expansion_factor": 1}])
def test_sparsify_topk(latents: dict[str, int], tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(4)
    w = {
        name: torch.randn(shape, generator=generator)
        for name, shape in {
            "encoder.weight": (N, K * V), "encoder.bias": (N,), "W_dec": (N, K * V), "b_dec": (K * V,),
        }.items()
    }  # fmt: skip
    save_file(w, tmp_path / "sae.safetensors")
    (tmp_path / "cfg.json").write_text(json.dumps({"k": 5, "d_in": K * V, "activation": "topk"} | latents))
    pre = (matrices().flatten(1) - w["b_dec"]) @ w["encoder.weight"].T + w["encoder.bias"]
    value, index = pre.relu().topk(5)
    codes = torch.zeros(13, N).scatter(1, index, value)
    imported = import_vectors(tmp_path, (K, V))
    torch.testing.assert_close(coefficients(imported.sae), codes, rtol=1e-5, atol=1e-4)
    decoded = (codes @ w["W_dec"] + w["b_dec"]).view(13, K, V)
    torch.testing.assert_close(imported.sae(matrices()).detach(), decoded, rtol=1e-5, atol=1e-4)
    assert imported.record.source["layout"] == "sparsify"


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"normalize_activations": "layer_norm"}, InputError, "without normalisation"),
        ({"architecture": "temporal"}, InputError, "not 'temporal'"),
        ({"k": 0}, DataError, "k = 0"),
        ({"k": "5"}, DataError, "k = '5'"),
    ],
)
def test_what_cannot_be_imported(
    changes: dict[str, object], error: type[Exception], message: str, tmp_path: Path
) -> None:
    saelens(tmp_path / "s", **changes)
    with pytest.raises(error, match=message):
        import_vectors(tmp_path / "s", (K, V))


def test_another_shape(tmp_path: Path) -> None:
    saelens(tmp_path / "s")
    with pytest.raises(InputError, match="not of flattened 7 x 12"):
        import_vectors(tmp_path / "s", (7, 12))


DAMAGES: list[Callable[[Path], object]] = [
    lambda folder: (folder / "cfg.json").write_text("{"),
    lambda folder: (folder / "cfg.json").write_text("[]"),
    lambda folder: (folder / "sae_weights.safetensors").write_bytes(b"x"),
    lambda folder: save_file({"W_enc": torch.zeros(1)}, folder / "sae_weights.safetensors"),
]


@pytest.mark.parametrize("change", DAMAGES)
def test_damaged_files(change: Callable[[Path], object], tmp_path: Path) -> None:
    saelens(tmp_path / "s")
    change(tmp_path / "s")
    with pytest.raises(DataError):
        import_vectors(tmp_path / "s", (K, V))
