"""The shape of a host without its weights."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from huggingface_hub import constants

from tiny_models import build_tiny
from writesae.errors import InputError
from writesae.hosts import load
from writesae.hosts.shape import shape_of


def test_a_shape_without_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From a config alone, in a folder or in the Hub's cache, it is the shape that the loaded model has."""
    model = build_tiny("qwen3_5", 0)
    model.save_pretrained(tmp_path / "whole")
    (tmp_path / "bare").mkdir()
    shutil.copy(tmp_path / "whole" / "config.json", tmp_path / "bare")
    snapshot = tmp_path / "cache" / "models--me--qwen" / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (tmp_path / "cache" / "models--me--qwen" / "refs").mkdir()
    (tmp_path / "cache" / "models--me--qwen" / "refs" / "main").write_text("0" * 40)
    shutil.copy(tmp_path / "whole" / "config.json", snapshot)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    host = load(str(tmp_path / "whole"))
    for found in (shape_of(str(tmp_path / "bare")), shape_of("me/qwen")):
        assert {index: (one.family, one.heads, one.d_k, one.d_v) for index, one in found.layers.items()} == {
            index: (one.family, one.heads, one.d_k, one.d_v) for index, one in host.layers.items()
        }
        assert found.parameters == sum(x.numel() for x in host.model.parameters())


def test_a_host_of_unknown_shape() -> None:
    with pytest.raises(InputError, match=r"only the shapes of Qwen/Qwen3\.5-0\.8B, .* are known without"):
        shape_of("me/unknown")
