"""Several runs at once are the runs one by one."""

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from memory_store import MemoryStore
from test_side_by_side import Heard
from test_train import small

from writesae.disk.lock import LOCK, _lock
from writesae.errors import DataError, OutputError
from writesae.sae import SAE, BatchTopK, TopK
from writesae.sae.loss import Loss
from writesae.sae.step import losses_and_gradients
from writesae.training import StepRecord, TrainConfig, TrainResult, loop, train, train_many
from writesae.types import Site, Target


@pytest.mark.parametrize("memory", [4.0, 4e-5])
def test_many_at_once_equals_one_by_one(memory: float, tmp_path: Path) -> None:
    """With little memory every run reads its pools ahead, all of them from the one store that remembers."""
    store = MemoryStore()
    base = small("write-delta", steps=60, memory=memory)
    wanted = [
        replace(base, site=Site(3, head), seed=seed, sparsity=TopK(2 + seed)) for head in (0, 1) for seed in (0, 1)
    ]
    together = train_many(store, wanted, tmp_path / "together")
    assert [r.config for r in together] == wanted
    for config, result in zip(wanted, together, strict=True):
        alone = train(store, config, tmp_path / f"{config.site}{config.seed}")
        assert alone.metrics == result.metrics
        for name, want in alone.sae.state_dict().items():
            assert torch.equal(result.sae.state_dict()[name], want), name
    again = train_many(store, wanted, tmp_path / "together")
    assert [r.metrics for r in again] == [r.metrics for r in together]


@pytest.mark.parametrize(("target", "sparsity"), [("state", TopK(3)), ("write-delta", BatchTopK(3))], ids=str)
def test_runs_that_share_their_products_equal_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: Target, sparsity: TopK | BatchTopK
) -> None:
    store = MemoryStore()
    base = small(target, sparsity=sparsity, steps=25, dead_after=5, resample_every=10)
    wanted = [replace(base, site=Site(3, head), seed=seed) for head in (0, 1) for seed in (0, 1)]
    wanted.append(replace(base, seed=2, sparsity=TopK(2)))  # of another shape: it goes alone
    groups = []

    def counted(saes: Sequence[SAE], *rest: Any) -> list[Loss]:
        groups.append(len(saes))
        return losses_and_gradients(saes, *rest)

    monkeypatch.setattr(loop, "losses_and_gradients", counted)
    results = train_many(store, wanted, tmp_path / "together", together=True)
    assert groups == [4] * 25 + [1] * 25
    for config, result in zip(wanted, results, strict=True):
        alone = train(store, config, tmp_path / f"{config.site}{config.seed}")
        for name, want in alone.sae.state_dict().items():
            torch.testing.assert_close(result.sae.state_dict()[name], want, rtol=1e-3, atol=1e-5)


def members(steps: int = 60) -> list[TrainConfig]:
    """Two that end, a head that never writes, and one that diverges after its first checkpoint."""
    base = small("write-delta", steps=steps, checkpoint_every=5)
    bad = replace(base, seed=1, lr=1e3, lr_end=1e3, warmup=150, clip=None, renormalise_every=0, resample_every=0)
    return [replace(base, seed=0), bad, replace(base, site=Site(3, 0)), replace(base, seed=2)]


def half_silent() -> MemoryStore:
    store = MemoryStore()
    store.data[0].update.zero_()
    return store


def test_a_run_whose_folder_vanished_before_it_began_can_be_asked_for_again(tmp_path: Path) -> None:
    first, second = small("write-delta", steps=3), small("write-delta", steps=3, seed=1)

    def rob(result: TrainResult) -> None:
        if result.config == first:
            shutil.rmtree(tmp_path / "b")

    train_many(MemoryStore(), [first, second], [tmp_path / "a", tmp_path / "b"], ended=rob)
    assert (tmp_path / "b" / "run.json").is_file()
    again = train_many(MemoryStore(), [first, second], [tmp_path / "a", tmp_path / "b"])
    assert torch.equal(again[1].sae.v_dec, train(MemoryStore(), second, tmp_path / "c").sae.v_dec)


@pytest.mark.parametrize("together", [False, True])
def test_what_fails_is_named_and_the_others_are_finished(together: bool, tmp_path: Path) -> None:
    store, wanted, heard = half_silent(), members(), list[TrainResult]()
    with pytest.raises(DataError) as caught:
        train_many(store, wanted, tmp_path, together=together, ended=heard.append)
    for words in (
        r"^L3\.H1_write-delta_seed1: the (loss|gradient) of L3\.H1 is (nan|inf) at step \d+ .*"
        r"the checkpoint of step \d+ is kept.*; "
        r"L3\.H0_write-delta_seed0: L3\.H0: \d+ sampled training matrices have variance 0.*"
        r"; the other 2 of 4 runs are finished$",
    ):
        assert re.search(words, str(caught.value)), str(caught.value)
    assert [result.config for result in heard] == [wanted[0], wanted[3]]
    kept = torch.load(tmp_path / "L3.H1_write-delta_seed1" / "checkpoint.pt", weights_only=True)
    assert all(bool(x.isfinite().all()) for x in kept["sae"].values())
    with pytest.raises(DataError, match=rf"checkpoint of step {kept['step']} is kept"):
        train(store, wanted[1], tmp_path / "L3.H1_write-delta_seed1")


SCRIPT = """
import sys; sys.path[:0] = [{tests!r}, {tests!r} + "/.."]
from test_many import half_silent, members
from writesae.training import train_many
train_many(half_silent(), members(150), {out!r}, workers={workers})
"""


@pytest.mark.parametrize(("kills", "workers"), [(2, 1), *(pytest.param(20, n, marks=pytest.mark.slow) for n in (1, 2))])
def test_sigkill_beside_one_that_diverges_leaves_the_same_bits(kills: int, workers: int, tmp_path: Path) -> None:
    """Some members end before a kill, some are killed in their middle, one fails every time."""
    script = SCRIPT.format(tests=str(Path(__file__).parent), out=str(tmp_path / "killed"), workers=workers)
    for number in range(kills):
        process = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.DEVNULL)
        before, began = set(_marks(tmp_path / "killed")), time.monotonic()
        while process.poll() is None and len(set(_marks(tmp_path / "killed")) - before) < 2 + number % 5:
            assert time.monotonic() - began < 600
            time.sleep(0.01)
        process.kill()
        process.wait()
    store, wanted = half_silent(), members(150)
    with pytest.raises(DataError, match=r"seed1: the .* of 4 runs are finished$"):
        train_many(store, wanted, tmp_path / "killed", workers=workers)
    for config in (wanted[0], wanted[3]):
        whole = train(store, config, tmp_path / f"whole {config.seed}")
        found = train(store, config, tmp_path / "killed" / f"L3.H1_write-delta_seed{config.seed}")
        assert found.metrics == whole.metrics
        for name, want in whole.sae.state_dict().items():
            assert torch.equal(found.sae.state_dict()[name], want), name


def _marks(folder: Path) -> list[tuple[Path, int]]:
    return [(path, path.stat().st_mtime_ns) for path in folder.rglob("checkpoint.pt")]


def test_one_process_trains_in_a_folder(tmp_path: Path) -> None:
    store, config = MemoryStore(), small("write-delta", steps=3)
    folder = tmp_path / "L3.H1_write-delta_seed0"
    hold = f"from pathlib import Path; from writesae.disk import alone; held = alone(Path({str(folder)!r}))\n"
    hold += "with held: print(1); input()"
    command = [sys.executable, "-u", "-c", hold]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(OutputError, match=rf"^process {other.pid} on .* is at work in"):
            train_many(store, [config, replace(config, seed=1)], tmp_path)
        other.communicate("\n")
    assert not (tmp_path / "L3.H1_write-delta_seed1").exists()

    class Look(Heard):
        def record(self, record: StepRecord) -> None:
            with pytest.raises(OutputError, match="is at work in"), (folder / LOCK).open() as file:
                _lock(file.fileno(), folder)
            super().record(record)

    train(store, config, folder, [look := Look()])
    assert look.steps == [3]
