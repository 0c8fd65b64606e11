"""What is not finite is named in one line, and no result is written with it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from small_results import small_result
from writesae.errors import DataError
from writesae.evals import EVALUATIONS, partition
from writesae.evals.common.pieces import Measured
from writesae.hosts import Host


@pytest.mark.parametrize("name", ["partition", "spectrum", "substitution"])
def test_one_token_of_one_passage(name: str, host: Host, passages: Tensor, tmp_path: Path) -> None:
    def hook(_: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        output = output.clone()
        output[-1, 7:8] = torch.nan  # of a text that is so long
        return output

    tokens, handle = passages[:3], host.blocks[2].get_submodule("mlp").register_forward_hook(hook)
    text = repr(host.text(tokens[-1, :8].tolist()))
    try:
        with pytest.raises(DataError) as caught:
            small_result(name, host, tokens, out=tmp_path / "out")
    finally:
        handle.remove()
    said = (
        f"{host.name}: NaN or infinity begins in block 2, at token 7 of the text that begins {text}: check the weights"
    )
    assert str(caught.value).startswith(said)
    assert not list(tmp_path.rglob("summary.json"))
    assert not list(tmp_path.rglob("*.parquet"))
    small_result(name, host, tokens, out=tmp_path / "out")  # the same folder goes on once that is mended


@pytest.mark.parametrize(("bad", "refused"), [("coefficient", False), ("firings", True)])
def test_a_table(
    bad: str, refused: bool, host: Host, passages: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NaN is taken only where a column says when it is there."""
    real = type(partition).measure

    def measure(*given: object) -> Measured:
        measured = real(*given)  # type: ignore[arg-type]
        records = measured.records.astype({"firings": float})
        records.loc[5, bad] = torch.nan
        return measured._replace(records=records)

    monkeypatch.setattr(type(partition), "measure", measure)
    if not refused:
        small_result("partition", host, passages[:3], out=tmp_path / "out")
        return
    with pytest.raises(DataError, match=r"^partition: firings is nan at feature \d+: not saved$"):
        small_result("partition", host, passages[:3], out=tmp_path / "out")
    assert not (tmp_path / "out" / "summary.json").exists()


def test_every_column_is_known_to_be_nan_or_not() -> None:
    told = [text for one in EVALUATIONS.values() for table in one.columns.values() for text in table.values()]
    assert sum("NaN" in text for text in told) >= 10
