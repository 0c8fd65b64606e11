"""What a reproduction would cost is said without running it, and without weights or the network."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from huggingface_hub import constants

from tiny_models import build_tiny
from writesae.cli import main
from writesae.errors import InputError
from writesae.hosts import load
from writesae.reproduce import ReproduceConfig
from writesae.reproduce.plan import plan, shape_of

QWEN = "Qwen/Qwen3.5-0.8B"


def test_the_published_run_by_hand() -> None:
    costs = {one.part: one for one in plan(ReproduceConfig((QWEN,), ("k_sweep",), preset="published"))}
    # 5,000 sequences of 1,024; three layers of 16 heads, each with two vectors of 128 in two bytes, decay and erase gate
    assert (costs["capture"].tokens, costs["capture"].size) == (5_120_000, 5_120_000 * 3 * 16 * (2 * 256 + 8))
    # k = 32 and three others; 20 epochs of four fifths of the tokens, each
    assert costs["train"].tokens == 4 * 20 * 4000 * 1024
    assert costs["train"].size == 4 * 2048 * 2 * 256 * 16  # encoder and decoder, weights and checkpoint
    assert costs["train"].hours["one H100"] < costs["train"].hours["2 CPU cores"] / 50
    assert all(one.host == QWEN for one in costs.values())


def test_more_features_cost_more() -> None:
    small, large = (
        {one.part: one for one in plan(ReproduceConfig((QWEN,), ("k_sweep",), preset="published", features=features))}
        for features in (2_048, 16_384)
    )
    assert large["train"].size == 8 * small["train"].size
    assert large["train"].hours["one H100"] == pytest.approx(1.87 * small["train"].hours["one H100"], rel=0.05)
    assert large["capture"] == small["capture"]


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
    with pytest.raises(InputError, match="only the shapes of Qwen/Qwen3.5-0.8B, .* are known without"):
        shape_of("me/unknown")


def test_the_command_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    main(["reproduce", "--plan", "--hosts", QWEN, "--preset", "published"])
    said = capsys.readouterr().out
    assert "84 dictionaries of 2,048 features" in said
    assert "hf:Skylion007/openwebtext, layers 1, 9, 17" in said
    assert "measurements of 32 claims at L9.H4" in said
    assert not list(tmp_path.iterdir())
