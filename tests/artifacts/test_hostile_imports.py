"""Checkpoints and SAEs whose parts disagree are refused in one line, before anything large is made of them."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
import torch
from dictionaries import K, N, V
from legacy_files import TYPES, random_config, random_state, write_payload
from safetensors.torch import save_file

from writesae.artifacts.interchange import import_vectors
from writesae.artifacts.legacy import convert_file
from writesae.errors import WritesaeError

IGNORED = "steps_since_active"


def spoilt(tensor: torch.Tensor) -> dict[str, torch.Tensor]:
    """What stands in place of a tensor."""
    return {
        "0-dimensional": torch.tensor(1.0),
        "empty": torch.zeros(0),
        "broadcast": torch.zeros(1).expand(tensor.shape),
        "broadcast to terabytes": torch.zeros(1).expand(10**6, 10**6),
        "another size": torch.zeros(*tensor.shape[:-1], tensor.shape[-1] + 1),
        "four axes": torch.zeros(2, 2, 2, 2),
        "NaN": tensor * float("nan"),
        "whole numbers": torch.ones(tensor.shape, dtype=torch.int64),
        "truths": torch.ones(tensor.shape, dtype=torch.bool),
    }


def refusal(path: Path) -> str:
    with pytest.raises(WritesaeError) as stop:
        convert_file(path)
    assert str(stop.value).isprintable()
    return str(stop.value)


@pytest.mark.parametrize("kind", TYPES)
def test_tensors_that_disagree_are_refused(kind: str, tmp_path: Path) -> None:
    state = random_state(kind)
    for name in state.keys() - {IGNORED}:
        for bad in spoilt(state[name]).values():
            write_payload(tmp_path / "a.pt", state | {name: bad}, random_config(kind))
            assert refusal(tmp_path / "a.pt").startswith(str(tmp_path))


@pytest.mark.parametrize("change", [{"d_k": -1}, {"k": -3}, {"k": 0}, {"k": 0.5}, {"rank": -1}, {"n_features": 10**30}])
def test_a_config_that_disagrees_is_refused(change: dict[str, object], tmp_path: Path) -> None:
    write_payload(tmp_path / "a.pt", random_state("bilinear"), random_config("bilinear", **change))
    refusal(tmp_path / "a.pt")


def test_numbers_that_no_manifest_can_hold_are_left_out(tmp_path: Path) -> None:
    config = random_config("bilinear", layer=10**400, seed=10**300, lr=10**50)
    write_payload(tmp_path / "a.pt", random_state("bilinear"), config)
    record = convert_file(tmp_path / "a.pt").record
    assert (record.site, record.seed) == (None, None)
    assert "lr" not in str(record.source)


def test_an_archive_of_a_million_entries_is_refused_at_once(tmp_path: Path) -> None:
    entries = b"".join(
        struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, 20, 0, 0, 0, 0, 0, 0, 0, 7, *[0] * 6) + b"%07d" % n
        for n in range(400_000)
    )
    start = b"PK\3\4" + bytes(26)
    for large in (False, True):
        end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 65535, 65535, len(entries), len(start), 0)
        if large:
            record = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, 400_000, 400_000, len(entries), len(start))
            place = struct.pack("<4sLQL", b"PK\6\7", 0, len(start) + len(entries), 1)
            end = record + place + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 65535, 65535, 2**32 - 1, 2**32 - 1, 0)
        (tmp_path / "a.pt").write_bytes(start + entries + end)
        assert f"a directory of {len(entries):,} bytes" in refusal(tmp_path / "a.pt")


def parts(layout: str) -> tuple[str, dict[str, object], dict[str, torch.Tensor]]:
    """File name, config and tensors of a whole SAE."""
    draw = torch.Generator().manual_seed(0)
    shapes = {"W_dec": (N, K * V), "b_dec": (K * V,)}
    if layout == "sparsify":
        shapes |= {"encoder.weight": (N, K * V), "encoder.bias": (N,)}
        config: dict[str, object] = {"k": 5, "d_in": K * V, "num_latents": N}
        name = "sae.safetensors"
    else:
        own = {"gated": ("b_gate", "b_mag", "r_mag"), "jumprelu": ("b_enc", "threshold")}.get(layout, ("b_enc",))
        shapes |= {"W_enc": (K * V, N)} | dict.fromkeys(own, (N,))
        config = {"architecture": layout, "k": 5, "d_in": K * V, "d_sae": N, "rescale_acts_by_decoder_norm": True}
        name = "sae_weights.safetensors"
    return name, config, {key: torch.randn(shape, generator=draw) for key, shape in shapes.items()}


def imported(folder: Path, name: str, config: object, tensors: dict[str, torch.Tensor]) -> None:
    (folder / "cfg.json").write_text(json.dumps(config))
    save_file({key: value.contiguous().clone() for key, value in tensors.items()}, folder / name)
    import_vectors(folder, (K, V))


@pytest.mark.parametrize("layout", ["sparsify", "topk", "standard", "jumprelu", "gated"])
def test_vectors_that_disagree_are_refused(layout: str, tmp_path: Path) -> None:
    name, config, tensors = parts(layout)
    imported(tmp_path, name, config, tensors)
    for key, tensor in tensors.items():
        others = {kind: bad for kind, bad in spoilt(tensor).items() if "broadcast" not in kind}
        others |= {"turned": tensor.T} if tensor.ndim == 2 else {}
        others |= {"beyond float32": tensor.double() * 1e300}
        for kind, bad in others.items():
            if (key, kind) == ("r_mag", "beyond float32"):
                continue
            with pytest.raises(WritesaeError) as stop:
                imported(tmp_path, name, config, tensors | {key: bad})
            assert str(stop.value).isprintable()
    wrong: tuple[dict[str, object], ...] = ({"d_in": -5}, {"d_in": 3}, {"d_in": "77"}, {"d_in": []})
    wrong += ({"num_latents": 7},) if layout == "sparsify" else ({"d_sae": 7}, {"architecture": []})
    wrong += ({"k": -1}, {"k": "5"}, {"k": 10**20}) if layout in ("sparsify", "topk") else ()
    for change in wrong:
        with pytest.raises(WritesaeError):
            imported(tmp_path, name, config | change, tensors)
    for shape in ((-K, -V), (0, 0), (V, K + 1)):
        with pytest.raises(WritesaeError, match="not of flattened"):
            import_vectors(tmp_path, shape)
