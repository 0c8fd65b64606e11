"""What a reproduction would cost is said without running it, and without weights or the network."""

from __future__ import annotations

from pathlib import Path

import pytest

from writesae.cli import main
from writesae.reproduce import ReproduceConfig
from writesae.reproduce.plan import plan

QWEN = "Qwen/Qwen3.5-0.8B"


def test_the_published_run_by_hand() -> None:
    costs = {one.part: one for one in plan(ReproduceConfig((QWEN,), ("k_sweep",), preset="published"))}
    # 5,000 sequences of 1,024; three layers of 16 heads, each two vectors of 128 in two bytes, decay and erase gate
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


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--hosts", "tiny-gdn", "--site", "L99.H0"], "there is no head L99.H0"),
        (["--hosts", QWEN, "--site", "L1.H16"], "there is no head L1.H16"),
        (["--register"], "leave out --register"),
    ],
)
def test_what_cannot_be_planned_is_one_line(flags: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["reproduce", "--plan", "--quick", *flags])
    assert caught.value.code == 2
    assert said in capsys.readouterr().err
