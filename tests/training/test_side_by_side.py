"""Runs in processes of their own end as they would here, and say what became of them where they do not."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from memory_store import MemoryStore
from test_train import SMALL, small

from writesae.errors import DataError, InputError, WritesaeError
from writesae.recurrence.written import Written
from writesae.sae import BatchTopK
from writesae.training import StepRecord, TrainConfig, train, train_many
from writesae.types import Site

RUNS = [
    small("write-delta", steps=60, memory=4e-5),
    replace(SMALL, site=Site(3, 0), steps=60),
    small("write-delta", steps=60, sparsity=BatchTopK(2), seed=3),
]


class Heard:
    def __init__(self) -> None:
        self.steps: list[int] = []
        self.closed = False

    def record(self, record: StepRecord) -> None:
        self.steps.append(record.step)

    def close(self) -> None:
        self.closed = True


class Deadly(MemoryStore):
    """The process that reads it dies in the middle of a run, once."""

    mark: Path
    parent: int
    reads: int

    def __init__(self, mark: Path, parent: int) -> None:
        super().__init__()
        self.__dict__.update(mark=mark, parent=parent, reads=0)

    def read(self, site: Site, start: int, stop: int) -> Written:
        self.__dict__["reads"] += 1
        if self.reads > 20 and os.getpid() != self.parent and not self.mark.exists():
            self.mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().read(site, start, stop)


def same(folder: Path, store: MemoryStore, wanted: list[TrainConfig], alone: Path) -> None:
    """What lies in the folders is what each run gives alone."""
    for number, (config, result) in enumerate(zip(wanted, train_many(store, wanted, folder), strict=True)):
        want = train(store, config, alone / str(number))
        assert (result.metrics, result.config) == (want.metrics, want.config)
        assert [record.loss for record in result.history] == [record.loss for record in want.history]
        for name, value in want.sae.state_dict().items():
            assert torch.equal(result.sae.state_dict()[name], value), name


def test_two_processes_give_the_bits_of_one_and_report_what_they_do(tmp_path: Path) -> None:
    store, heard = MemoryStore(), [Heard() for _ in RUNS]
    found = train_many(store, RUNS, tmp_path / "both", loggers=[[one] for one in heard], workers=2)
    assert [result.config for result in found] == RUNS
    for one in heard:
        assert one.steps[-1] == 60
        assert one.steps == sorted(one.steps)
        assert one.closed
    same(tmp_path / "both", store, RUNS, tmp_path)


def test_a_killed_process_is_named_and_the_same_call_goes_on(tmp_path: Path) -> None:
    store = Deadly(tmp_path / "died", os.getpid())
    with pytest.raises(WritesaeError, match=r"^L3\.H1_write-delta_seed0: its process was killed by signal 9.* goes on"):
        train_many(store, RUNS[:2], tmp_path / "both", workers=2)
    assert (tmp_path / "both" / "L3.H1_write-delta_seed0" / "checkpoint.pt").exists()
    train_many(store, RUNS[:2], tmp_path / "both", workers=2)
    same(tmp_path / "both", MemoryStore(), RUNS[:2], tmp_path)


def test_an_error_in_one_is_named_and_the_others_are_finished(tmp_path: Path) -> None:
    store, heard = MemoryStore(), []
    store.data[1].update[4, 7, 2] = torch.nan
    wanted = [replace(SMALL, site=Site(3, head), steps=20, seed=seed) for head, seed in ((0, 0), (1, 0), (0, 1))]
    said = r"^L3\.H1_state_seed0: training data of L3\.H1, sequence 4.*; the other 2 of 3 runs are finished$"
    with pytest.raises(DataError, match=said):
        train_many(store, wanted, tmp_path / "both", workers=2, ended=lambda result: heard.append(result.config))
    assert sorted(heard, key=str) == sorted([wanted[0], wanted[2]], key=str)
    assert (tmp_path / "both" / "L3.H0_state_seed1" / "result.json").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupting_saves_every_run(number: int, tmp_path: Path) -> None:
    class Press(Heard):
        def record(self, record: StepRecord) -> None:
            if record.step == 20:
                signal.raise_signal(number)

    store = MemoryStore()
    wanted = [replace(config, steps=1000, checkpoint_every=1000) for config in RUNS[:2]]
    with pytest.raises(KeyboardInterrupt, match="saved; the same command goes on"):
        train_many(store, wanted, tmp_path / "both", loggers=[[Press()], []], workers=2)
    assert (tmp_path / "both" / "L3.H1_write-delta_seed0" / "checkpoint.pt").exists()
    assert not any((tmp_path / "both").rglob("result.json"))
    same(tmp_path / "both", store, wanted, tmp_path)


def test_places_and_loggers_belong_to_runs(tmp_path: Path) -> None:
    store, short = MemoryStore(), [replace(config, steps=3) for config in RUNS[:2]]
    found = train_many(store, short, [tmp_path / "a", tmp_path / "b"])
    assert [result.folder for result in found] == [tmp_path / "a", tmp_path / "b"]
    with pytest.raises(InputError, match="2 runs need as many different folders"):
        train_many(store, short, [tmp_path / "a", tmp_path / "a"])
    with pytest.raises(InputError, match="1 lists of loggers were given for 2 runs"):
        train_many(store, short, tmp_path / "c", loggers=[[Heard()]])
    with pytest.raises(InputError, match="workers=0"):
        train_many(store, short, tmp_path / "c", workers=0)
