"""Runs that were written on 2026-11-27, before configs were compared as configs, are gone on with and read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from memory_store import MemoryStore

from writesae.config import from_json
from writesae.errors import OutputError
from writesae.training import TrainConfig, train

OLD = Path(__file__).parent / "old_runs"


def old(name: str, place: Path, **fields: object) -> tuple[Path, TrainConfig]:
    """A copy of a run, without the fields of its configuration that are None here and with the others; its own."""
    shutil.copytree(OLD / name, place / name)
    path = place / name / "run.json"
    data = json.loads(path.read_text())
    config = from_json(TrainConfig, data["config"])
    for field, value in fields.items():
        data["config"][field] = value
        if value is None:
            del data["config"][field]
    path.write_text(json.dumps(data))
    return place / name, config


@pytest.mark.parametrize("name", ["topk", "batch_topk", "jumprelu"])
@pytest.mark.parametrize("absent", [{}, {"stride": None, "patience": None}], ids=str)
def test_an_old_run_goes_on_where_it_was(name: str, absent: dict[str, None], tmp_path: Path) -> None:
    """Fields that are absent, as those are that were added later, have their defaults."""
    folder, config = old(name, tmp_path, **absent)
    lines = (folder / "history.jsonl").read_text().splitlines()[:5]
    result = train(MemoryStore(), config, folder)
    assert (folder / "history.jsonl").read_text().splitlines()[:5] == lines
    assert [record.step for record in result.history] == list(range(10, 121, 10))
    if name == "topk":  # the others start otherwise today
        whole = train(MemoryStore(), config, tmp_path / "whole")
        torch.testing.assert_close(result.sae.atom_matrices(), whole.sae.atom_matrices(), rtol=1e-3, atol=1e-4)


def test_an_old_finished_run_is_read(tmp_path: Path) -> None:
    folder, config = old("finished", tmp_path, stride=None)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    result = train(MemoryStore(), config, folder)
    assert result.metrics.tokens == 318
    assert result.history[-1].step == 30
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_what_differs_is_still_another_run(tmp_path: Path) -> None:
    folder, config = old("topk", tmp_path, stride=13)
    with pytest.raises(OutputError, match=r"config\.stride is 13 there and 1 here"):
        train(MemoryStore(), config, folder)
    folder, config = old("finished", tmp_path, momentum=0.5)
    with pytest.raises(OutputError, match=r"config\.momentum is 0\.5 there and not set here"):
        train(MemoryStore(), config, folder)
