"""Imported checkpoints compute what the research code computes, to 1e-6, for every type, rank and layout."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from legacy_files import (
    ACTIVE,
    TYPES,
    K,
    N,
    V,
    inputs,
    random_config,
    random_state,
    reference,
    write_module,
    write_payload,
)
from safetensors.torch import load_file

from writesae.artifacts import load_sae, save_sae
from writesae.artifacts.legacy import Converted, convert_file
from writesae.errors import DataError, InputError
from writesae.recurrence.written import Written
from writesae.types import Site

TOLERANCE = 1e-6
RELEASED = Path(__file__).parent / "released"


def agree(converted: Converted, kind: str, state: dict[str, torch.Tensor], k: int = ACTIVE) -> None:
    expected = reference(kind, state, inputs(), k)
    codes = converted.sae.encode(inputs())
    scale = max(1.0, float(np.abs(expected.reconstruction).max()), float(expected.coefficients.max()))
    assert np.abs(codes.dense(N).numpy() - expected.coefficients).max() <= TOLERANCE * scale
    assert np.abs(converted.sae.decode(codes).detach().numpy() - expected.reconstruction).max() <= TOLERANCE * scale


@pytest.mark.parametrize("name", ["bilinear", "bilinear_old2d_noconfig", "flat", "rank1", "whole_module"])
def test_real_payloads_agree_with_the_original_code(name: str, tmp_path: Path) -> None:
    converted = convert_file(RELEASED / f"{name}.pt")
    expected = load_file(RELEASED / f"{name}.expected.safetensors")
    save_sae(converted.sae, tmp_path / "sae", converted.record)
    sae = load_sae(tmp_path / "sae")
    codes = sae.encode(expected["x"])
    torch.testing.assert_close(codes.dense(N), expected["coefficients"], rtol=0, atol=TOLERANCE)
    torch.testing.assert_close(sae.decode(codes).detach(), expected["reconstruction"], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "row"])
@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("kind", TYPES)
def test_state_dicts_of_every_type(kind: str, rank: int, zipped: bool, tmp_path: Path) -> None:
    state = random_state(kind, rank)
    write_payload(tmp_path / "best.pt", state, random_config(kind, rank), zipped=zipped)
    converted = convert_file(tmp_path / "best.pt", target="write-value")
    agree(converted, kind, state)
    assert converted.record.variant == kind
    assert converted.record.site == Site(9, 4)
    assert converted.record.seed == 42
    assert converted.record.metrics == {"val_mse": 2.2e-5}
    assert converted.sae.config.target == "write-value"
    assert not converted.sae.training


@pytest.mark.parametrize("kind", TYPES)
def test_old_factors_without_a_rank_axis_and_without_a_config(kind: str, tmp_path: Path) -> None:
    state = {name: tensor[:, 0] if tensor.ndim == 3 else tensor for name, tensor in random_state(kind).items()}
    write_payload(tmp_path / "best.pt", state, None)
    shape = (K, V) if kind == "flat" else None
    agree(convert_file(tmp_path / "best.pt", shape=shape), kind, state, k=32)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "row"])
def test_what_research_code_leaves_beside_the_tensors(zipped: bool, tmp_path: Path) -> None:
    state = random_state("bilinear")
    named = torch.nn.Parameter(state["V_enc"])
    named.initialised = True  # type: ignore[attr-defined]
    config = random_config(
        "bilinear", dtype=torch.bfloat16, path=Path("a/b"), seen={3, 5}, raw=b"ab", betas=(0.9, 0.95)
    )
    content = {"model_state_dict": {**state, "V_enc": named}, "config": config, "val_mse": np.float64(0.25)}
    torch.save(content, tmp_path / "best.pt", _use_new_zipfile_serialization=zipped)
    converted = convert_file(tmp_path / "best.pt")
    agree(converted, "bilinear", state)
    assert converted.record.metrics == {"val_mse": 0.25}


def test_a_bare_state_dict(tmp_path: Path) -> None:
    state = random_state("bilinear")
    torch.save(state, tmp_path / "sae.pt")
    agree(convert_file(tmp_path / "sae.pt"), "bilinear", state, k=32)


RELEASE_NAMES: dict[str, Callable[[str], str]] = {
    "plain": str,
    "lower": lambda name: {
        "V_enc": "encoder.v", "W_enc": "encoder.w", "b_enc": "encoder.bias",
        "V_dec": "decoder.v", "W_dec": "decoder.w", "bias": "decoder.bias",
    }.get(name, name),
    "words": lambda name: {
        "V_enc": "enc.left", "W_enc": "enc.right", "b_enc": "enc.b",
        "V_dec": "dec.left", "W_dec": "dec.right", "bias": "dec.b",
    }.get(name, name),
    "key and value": lambda name: {
        "V_enc": "encoder.key", "W_enc": "encoder.value", "b_enc": "encoder.bias",
        "V_dec": "decoder.key", "W_dec": "decoder.value", "bias": "b_dec",
    }.get(name, name),
}  # fmt: skip


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "row"])
@pytest.mark.parametrize(
    ("names", "key", "rank"),
    [
        ("plain", "sae", 1),
        ("lower", "sae", 2),
        ("words", "model", 1),
        ("key and value", "anything", 2),
        ("lower", None, 1),
    ],
)
def test_whole_modules_under_other_names(names: str, key: str | None, rank: int, zipped: bool, tmp_path: Path) -> None:
    state = random_state("bilinear", rank)
    config = {"n_features": N, "layer": 9, "head": 4, "model": "some/host", "d_k": K, "d_v": V}
    write_module(tmp_path / "m.pt", state, {"k": 3}, config, key=key, rename=RELEASE_NAMES[names], zipped=zipped)
    converted = convert_file(tmp_path / "m.pt")
    agree(converted, "bilinear", state, k=3)
    assert converted.record.host == (None if key is None else "some/host")


@pytest.mark.parametrize("kind", TYPES)
def test_whole_modules_of_the_research_classes(kind: str, tmp_path: Path) -> None:
    state = random_state(kind, 2)
    attributes: dict[str, object] = {
        "k": ACTIVE,
        "use_batchtopk": False,
        "gate_tau": 0.1,
        "d_k": K,
        "d_v": V,
        "V_missing": None,
    }
    write_module(tmp_path / "m.pt", state, attributes, None)
    agree(convert_file(tmp_path / "m.pt"), kind, state)


def test_the_modules_own_k_wins_over_the_config(tmp_path: Path) -> None:
    state = random_state("bilinear")
    write_module(tmp_path / "m.pt", state, {"k": 2}, random_config("bilinear"))
    agree(convert_file(tmp_path / "m.pt"), "bilinear", state, k=2)


def test_a_tied_checkpoint_may_call_itself_bilinear(tmp_path: Path) -> None:
    state = random_state("bilinear_tied", 2)
    write_payload(tmp_path / "best.pt", state, random_config("bilinear", 2))
    converted = convert_file(tmp_path / "best.pt")
    agree(converted, "bilinear_tied", state)
    assert converted.sae.config.tied


def test_a_misspelt_type_is_told_by_its_tensors_as_in_the_research_code(tmp_path: Path) -> None:
    state = random_state("bilinear_jumprelu")
    write_payload(tmp_path / "best.pt", state, random_config("bilinear_jumprelou"))
    agree(convert_file(tmp_path / "best.pt"), "bilinear_jumprelu", state)


def test_half_and_double_precision_become_single(tmp_path: Path) -> None:
    for dtype in (torch.float64, torch.float16, torch.bfloat16):
        state = {name: t.to(dtype) if t.is_floating_point() else t for name, t in random_state("bilinear").items()}
        write_payload(tmp_path / "best.pt", state, random_config("bilinear"))
        agree(convert_file(tmp_path / "best.pt"), "bilinear", state)


def test_strided_and_shared_tensors_are_read_as_they_are(tmp_path: Path) -> None:
    state = random_state("flat")
    state["encoder.weight"] = state["encoder.weight"].T.contiguous().T
    both = torch.randn(2, N)
    state["encoder.bias"] = both[1]
    write_payload(tmp_path / "best.pt", state, random_config("flat"))
    agree(convert_file(tmp_path / "best.pt"), "flat", state)


@pytest.mark.parametrize("kind", ["flat", "rank1", "bilinear", "bilinear_tied", "bilinear_flat"])
def test_batchtopk_keeps_its_dependence_on_the_batch_only_where_asked(kind: str, tmp_path: Path) -> None:
    state = random_state(kind)
    write_payload(tmp_path / "best.pt", state, random_config(kind, use_batchtopk=True))
    old = convert_file(tmp_path / "best.pt").sae
    expected = reference(kind, state, inputs(), batchtopk=True)
    np.testing.assert_allclose(old.encode(inputs()).dense(N).numpy(), expected.coefficients, rtol=0, atol=4 * TOLERANCE)
    largest = float(np.abs(expected.reconstruction).max())
    reconstruction = old(inputs()).detach().numpy()
    np.testing.assert_allclose(reconstruction, expected.reconstruction, rtol=0, atol=TOLERANCE * largest)
    with pytest.raises(InputError, match="holds no threshold"):
        old.encode_written(Written(torch.ones(1, 2, 11), torch.ones(1, 2, 7), torch.zeros(1, 2, 1)))
    with pytest.raises(InputError, match="at least 0"):
        convert_file(tmp_path / "best.pt", threshold=-0.5)
    converted = convert_file(tmp_path / "best.pt", threshold=0.25)
    alone, together = converted.sae.encode(inputs()[:1]).dense(N), converted.sae.encode(inputs()).dense(N)
    torch.testing.assert_close(alone, together[:1])
    assert converted.record.variant == f"{kind}_batchtopk"


def test_extreme_gates_stay_finite(tmp_path: Path) -> None:
    state = random_state("bilinear_gated")
    state["b_gate"] = torch.linspace(-60, 60, N)
    write_payload(tmp_path / "best.pt", state, random_config("bilinear_gated"))
    agree(convert_file(tmp_path / "best.pt"), "bilinear_gated", state)


WRONG: dict[str, tuple[dict[str, object], dict[str, torch.Tensor | None], str]] = {
    "another type": ({"sae_type": "flat"}, {}, "config says sae_type 'flat', its tensors are those of 'bilinear'"),
    "another size": ({"d_k": 13}, {}, "config says d_k = 13, its tensors say 11"),
    "another rank": ({"rank": 2}, {}, "config says rank = 2, its tensors say 1"),
    "other features": ({"n_features": 24}, {}, "config says n_features = 24"),
    "no k": ({"k": 0}, {}, "asks for k = 0"),
    "k as text": ({"k": "32"}, {}, "k = '32', not an integer"),
    "NaN": ({}, {"b_enc": torch.full((N,), float("nan"))}, "b_enc holds NaN"),
    "too few biases": ({}, {"b_enc": torch.zeros(N - 1)}, "disagree on the number of features"),
    "an unknown tensor": ({}, {"pre_bias_scale": torch.zeros(K, V)}, "belongs to no known type"),
    "two of one part": ({}, {"encoder.v": torch.zeros(N, K)}, "both look like the enc_v part"),
    "half an encoder": ({}, {"W_enc": None}, "lacks the parts enc_w"),
    "a bias of another size": ({}, {"bias": torch.zeros(K, V + 1)}, "not 11 x 7"),
    "a gate on nothing": ({}, {"b_gate": torch.zeros(N)}, "lacks the parts"),
}


@pytest.mark.parametrize("name", list(WRONG))
def test_inconsistent_payloads_are_refused(name: str, tmp_path: Path) -> None:
    config, tensors, message = WRONG[name]
    state = {key: value for key, value in {**random_state("bilinear"), **tensors}.items() if value is not None}
    write_payload(tmp_path / "best.pt", state, random_config("bilinear", **config))
    with pytest.raises(DataError, match=message) as caught:
        convert_file(tmp_path / "best.pt")
    assert "best.pt" in str(caught.value)


def test_a_flat_dictionary_needs_its_shape(tmp_path: Path) -> None:
    write_payload(tmp_path / "best.pt", random_state("flat"), None)
    with pytest.raises(InputError, match="77 numbers does not say its matrix shape; give d_k and d_v"):
        convert_file(tmp_path / "best.pt")
    with pytest.raises(DataError, match="follows from the rest"):
        convert_file(tmp_path / "best.pt", shape=(K, V + 1))


@pytest.mark.parametrize("content", [[1, 2], {"a": 1}, "text", {"config": {}}, {"model_state_dict": {"V_enc": 1}}])
def test_payloads_without_a_dictionary(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(DataError, match=r"no dictionary found|only tensors are read"):
        convert_file(tmp_path / "x.pt")
