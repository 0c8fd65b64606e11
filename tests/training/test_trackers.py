"""Weights & Biases and trackio themselves, where they are installed: records of two heads at once go to their runs."""

from __future__ import annotations

import json
import sqlite3
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from memory_store import MemoryStore

from writesae.training import TrainResult, train_many
from writesae.training.log import Service
from writesae.training.recipe import recipe

pytestmark = pytest.mark.filterwarnings("default")  # theirs
BLOCK = 1 << 15


def two_heads(service: Service, tmp_path: Path) -> dict[str, TrainResult]:
    """Of one pass, which records them in turn."""
    settings = {"features": 11, "k": 2, "steps": 6, "batch": 64, "log_every": 2}
    configs = [recipe(None, settings | {"site": f"L3.H{head}"}) for head in range(2)]
    found = train_many(MemoryStore(), configs, tmp_path / "runs", [service], together=True)
    return {result.config.name: result for result in found}


def wanted(results: dict[str, TrainResult]) -> dict[str, dict[int, float]]:
    told = {name: {record.step: record.loss for record in result.history} for name, result in results.items()}
    assert [len(losses) for losses in told.values()] == [3, 3]
    assert len({loss for losses in told.values() for loss in losses.values()}) == 6
    return told


def logged(data: bytes) -> Iterator[bytes]:
    """Records of a log in LevelDB's format, as Weights & Biases writes them behind 7 bytes of its own."""
    at, held = 7, b""
    while at + 7 < len(data):
        if BLOCK - at % BLOCK < 7:
            at += BLOCK - at % BLOCK
        _, length, kind = struct.unpack_from("<IHB", data, at)
        held += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last piece
            yield held
            held = b""


def test_wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    proto = pytest.importorskip("wandb.proto.wandb_internal_pb2")
    for name, value in {"MODE": "offline", "DIR": str(tmp_path), "SILENT": "true"}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    results, found = two_heads("wandb", tmp_path), dict[str, dict[int, float]]()
    for path in tmp_path.glob("wandb/offline-run-*/*.wandb"):
        name, losses = "", dict[int, float]()
        for data in logged(path.read_bytes()):
            record = proto.Record.FromString(data)
            name = record.run.display_name or name
            items = {item.key or item.nested_key[0]: item.value_json for item in record.history.item}
            if "loss" in items:
                losses[json.loads(items["_step"])] = json.loads(items["loss"])
        found[name] = losses
    assert found == wanted(results)


def test_trackio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    pytest.importorskip("trackio")
    results = two_heads("trackio", tmp_path)
    assert capsys.readouterr().out.count("Run finished") == 2  # none is ended before its time
    with sqlite3.connect(next(tmp_path.rglob("writesae.db"))) as base:
        rows = base.execute("select run_name, step, metrics from metrics").fetchall()
    base.close()
    found: dict[str, dict[int, float]] = {}
    for name, step, told in rows:
        found.setdefault(name, {})[step] = json.loads(told)["loss"]
    assert found == wanted(results)
