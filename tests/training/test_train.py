"""A whole run on planted writes: it learns, it resumes to the bit, it refuses what it must."""

from __future__ import annotations

import resource
import signal
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from memory_store import MemoryStore

from references import explained_variance, states_reference
from writesae.artifacts import add_metrics, load_sae
from writesae.config import from_json, to_json
from writesae.disk import claim
from writesae.errors import ConfigError, DataError, InputError, OutputError
from writesae.sae import SAE, BatchTopK, Bilinear, Gated, JumpReLU, SoftGated, Sparsity, TopK
from writesae.sae.loss import Loss
from writesae.sae.step import losses_and_gradients
from writesae.training import StepRecord, TrainConfig, train
from writesae.training import loop as module
from writesae.training.folder import save_checkpoint
from writesae.training.log import JsonLines, read_history
from writesae.types import Site, Target

SITE = Site(3, 1)
SMALL = TrainConfig(
    site=SITE,
    features=23,
    sparsity=TopK(2),
    steps=120,
    batch=64,
    chunk=13,
    lr=1e-2,
    lr_end=1e-3,
    warmup=5,
    dead_after=10,
    renormalise_every=7,
    resample_every=30,
    validate_every=40,
    checkpoint_every=25,
    log_every=10,
    aux_k=5,
    device="cpu",
)


def small(target: Target, **changes: object) -> TrainConfig:
    """The same on another target; only states come in chunks."""
    return replace(SMALL, target=target, chunk=13 if target == "state" else None, **changes)  # type: ignore[arg-type]


class Kill(Exception):
    """Stands for a process that is gone."""


class KillAt:
    def __init__(self, step: int) -> None:
        self.step = step

    def record(self, record: StepRecord) -> None:
        if record.step >= self.step:
            raise Kill

    def close(self) -> None:
        pass


@pytest.mark.parametrize("target", ["state", "write-value", "write-delta"])
def test_a_run_learns_and_is_saved_in_raw_units(target: Target, tmp_path: Path) -> None:
    store = MemoryStore()
    config = small(target, init="writes", steps=300, resample_until=0.5)
    result = train(store, config, tmp_path / "run")
    floor = 0.97 if target == "write-delta" else 0.5
    assert result.metrics.explained_variance > floor
    assert result.metrics.l0 <= 2
    assert result.metrics.alive + result.metrics.dead == 23
    assert result.history[-1].step == 300
    part = store.read(SITE, 0, store.sequences)
    if target == "write-value":
        part = part._replace(update=store.native(SITE, 0, store.sequences))
    matrices = states_reference(part) if target == "state" else part.key[..., None] * part.update[..., None, :]
    assert explained_variance(result.sae, matrices) == pytest.approx(result.metrics.explained_variance, abs=0.1)
    again = load_sae(tmp_path / "run" / "sae")
    x = matrices[0]
    torch.testing.assert_close(again(x), result.sae(x))
    torch.testing.assert_close(again.v_dec.flatten(1).norm(dim=1), torch.ones(23))
    cached = train(store, config, tmp_path / "run")
    assert cached.metrics == result.metrics
    assert torch.equal(cached.sae.v_dec, result.sae.v_dec)
    for sae in (result.sae, again, cached.sae):
        assert (sae.site, sae.host, sae.target) == (SITE, "planted", target)
        assert sae.record is not None
        assert (sae.record.store_hash, sae.record.metrics) == (store.hash, asdict(result.metrics))
        assert (sae.record.corpus, sae.record.text) == ("planted, train of 0.8", store.text)


@pytest.mark.parametrize("sparsity", [BatchTopK(2), JumpReLU(2.0), Gated(), SoftGated()], ids=str)
def test_every_sparsity_trains(sparsity: Sparsity, tmp_path: Path) -> None:
    result = train(MemoryStore(), small("write-delta", sparsity=sparsity), tmp_path / "run")
    assert result.history[-1].loss < result.history[0].loss
    assert result.metrics.explained_variance > 0.3
    if isinstance(sparsity, BatchTopK | JumpReLU):
        assert 1 < result.metrics.l0 < 4


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"sparsity": BatchTopK(2), "target": "write-delta", "chunk": None, "memory": 2e-5},
        {"encoder": Bilinear(tied=True), "memory": 2e-5},
    ],
    ids=str,
)
def test_a_killed_run_ends_with_the_same_bits(change: dict[str, object], tmp_path: Path) -> None:
    store, config = MemoryStore(), replace(SMALL, **change)  # type: ignore[arg-type]
    whole = train(store, config, tmp_path / "whole")
    for step in (10, 70, 80):
        with pytest.raises(Kill):
            train(store, config, tmp_path / "killed", [KillAt(step)])
    resumed = train(store, config, tmp_path / "killed")
    for name, want in whole.sae.state_dict().items():
        assert torch.equal(resumed.sae.state_dict()[name], want), name
    assert [r.loss for r in resumed.history] == [r.loss for r in whole.history]
    assert resumed.metrics == whole.metrics


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_saves_and_says_how_to_go_on(number: int, tmp_path: Path) -> None:
    class Press:
        def record(self, record: StepRecord) -> None:
            if record.step == 20:
                signal.raise_signal(number)

        def close(self) -> None:
            pass

    store = MemoryStore()
    with pytest.raises(KeyboardInterrupt, match="step 20 of 120"):
        train(store, SMALL, tmp_path / "run", [Press()])
    resumed = train(store, SMALL, tmp_path / "run")
    whole = train(store, SMALL, tmp_path / "whole")
    assert torch.equal(resumed.sae.v_dec, whole.sae.v_dec)


def test_what_is_not_finite_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()
    store.data[1].update[4, 7, 2] = torch.nan
    with pytest.raises(DataError, match=r"L3\.H1, sequence 4"):
        train(store, SMALL, tmp_path / "data")
    calls = 0

    def broken(saes: list[SAE], *rest: Any) -> list[Loss]:
        nonlocal calls
        calls += 1
        losses = losses_and_gradients(saes, *rest)
        if calls == 33 + 75:  # whose step leaves a checkpoint
            assert saes[0].b_enc.grad is not None
            saes[0].b_enc.grad[3] = torch.inf
        return [loss._replace(error=loss.error * torch.nan) if calls == 33 else loss for loss in losses]

    monkeypatch.setattr(module, "losses_and_gradients", broken)
    with pytest.raises(DataError, match=r"L3\.H1 is nan at step 33 \(sequences [\d, ]+.*the checkpoint of step 25"):
        train(MemoryStore(), SMALL, tmp_path / "loss")
    calls = 33
    with pytest.raises(DataError, match=r"gradient of L3\.H1 is (inf|nan) at step 75 .*the checkpoint of step 50 is"):
        train(MemoryStore(), replace(SMALL, clip=None), tmp_path / "gradient")
    monkeypatch.undo()
    real = torch.optim.Adam.step

    def leap(self: torch.optim.Adam) -> None:
        real(self)
        self.param_groups[0]["params"][0].data[0] = torch.inf

    monkeypatch.setattr(torch.optim.Adam, "step", leap)
    with pytest.raises(DataError, match=r"weights of L3\.H1 is (inf|nan) at step 1 .*there is no checkpoint yet"):
        train(MemoryStore(), replace(SMALL, steps=1), tmp_path / "weights")
    assert not [path.name for path in (tmp_path / "weights").iterdir() if path.name in ("checkpoint.pt", "sae")]
    monkeypatch.undo()
    resumed = train(MemoryStore(), SMALL, tmp_path / "loss")
    assert resumed.metrics == train(MemoryStore(), SMALL, tmp_path / "whole").metrics


def test_foreign_folders_and_impossible_requests_are_refused(tmp_path: Path) -> None:
    store = MemoryStore()
    claim(tmp_path / "run", "training run", {"config": to_json(SMALL), "store": store.hash})
    with pytest.raises(OutputError, match="features is 23 there and 29 here"):
        train(store, replace(SMALL, features=29), tmp_path / "run")
    with pytest.raises(OutputError, match="store is"):
        train(MemoryStore(seed=1), SMALL, tmp_path / "run")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"thesis\.txt"):
        train(store, SMALL, tmp_path / "other")
    with pytest.raises(InputError, match=r"no site L3\.H2; it holds L3 \(2 heads\)"):
        train(store, replace(SMALL, site=Site(3, 2)), tmp_path / "a")
    with pytest.raises(ConfigError, match="k = 31"):
        train(store, replace(SMALL, sparsity=TopK(31)), tmp_path / "b")
    with pytest.raises(ConfigError, match="batchsize"):
        from_json(TrainConfig, {**cast(dict[str, object], to_json(SMALL)), "batchsize": 3})
    assert not (tmp_path / "a").exists()


def test_a_full_disk_keeps_the_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    store = MemoryStore()
    real = os.replace

    def full(source: Path, target: Path) -> None:
        if str(target).endswith("checkpoint.pt") and Path(target).exists():
            raise OSError(28, "No space left on device")
        real(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OutputError, match="No space left"):
        train(store, SMALL, tmp_path / "run")
    monkeypatch.undo()
    resumed = train(store, SMALL, tmp_path / "run")
    assert torch.equal(resumed.sae.v_dec, train(store, SMALL, tmp_path / "whole").sae.v_dec)


def test_a_checkpoint_that_cannot_be_written_in_the_middle_is_refused_in_one_line(tmp_path: Path) -> None:
    """torch then says that its archive is at an unexpected place."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    save_checkpoint(tmp_path, {"a": torch.ones(3)})
    whole = (tmp_path / "checkpoint.pt").read_bytes()
    state: dict[str, object] = {str(number): torch.full((4099,), float(number)) for number in range(9)}
    try:
        for most in (100, 5_000, 40_000, 140_000):
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, limits[1]))
            with pytest.raises(OutputError, match=r"cannot write .*checkpoint\.pt: File too large"):
                save_checkpoint(tmp_path, state)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("checkpoint.pt", whole)]


def test_a_full_disk_tears_no_more_than_the_last_line_of_the_history(tmp_path: Path) -> None:
    """A limit on file sizes cuts a line in the middle, as a disk does that fills up."""
    path = tmp_path / "history.jsonl"
    records = [StepRecord(step, 5 * step, 0.5, 0.1, 0.5, 7, 1e-3, 1.5) for step in (10, 20)]
    log = JsonLines(path, 0)
    log.record(records[0])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 11, limits[1]))
    try:
        with pytest.raises(OutputError, match=r"cannot write .*history\.jsonl: "):
            log.record(records[1])
        log.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes().count(b"{") == 2
    assert read_history(path) == records[:1]
    log = JsonLines(path, 10)
    log.record(records[1])
    log.close()
    assert read_history(path) == records[:2]


def test_a_full_disk_at_the_end_leaves_no_half_dictionary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("writesae.disk.tensors.sync", full)
    store = MemoryStore()
    with pytest.raises(OutputError, match="No space left"):
        train(store, SMALL, tmp_path / "run")
    assert not (tmp_path / "run" / "sae" / "manifest.json").exists()
    assert not (tmp_path / "run" / "result.json").exists()
    monkeypatch.undo()
    assert train(store, SMALL, tmp_path / "run").metrics == train(store, SMALL, tmp_path / "whole").metrics


def test_a_kill_between_the_two_renames_of_a_dictionary_that_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the quickstart leaves it, whose last step replaces dictionaries, on a file system without exchange."""
    import os

    class Killed(BaseException):
        pass

    def rename(source: Path, target: Path) -> None:
        if Path(target).name == "sae":
            raise Killed
        real(source, target)

    real, first = os.rename, train(MemoryStore(), SMALL, tmp_path / "run")
    monkeypatch.setattr("writesae.disk.folders._exchanged", lambda *_: False)
    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises(Killed):
        add_metrics(tmp_path / "run" / "sae", {"a": 1.5})
    assert not (tmp_path / "run" / "sae").exists()
    monkeypatch.undo()
    again = train(MemoryStore(), SMALL, tmp_path / "run")
    assert torch.equal(again.sae.v_dec, first.sae.v_dec)
    assert add_metrics(tmp_path / "run" / "sae", {"a": 1.5}).record.metrics["a"] == 1.5


def test_configs_survive_json() -> None:
    assert from_json(TrainConfig, to_json(SMALL)) == SMALL
