"""What runs will take is told before they take it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from memory_store import MemoryStore
from test_train import SMALL

from writesae.errors import InputError
from writesae.sae import PRESETS, SAE, TopK
from writesae.training import many, train, train_many
from writesae.training.chunks import Chunks
from writesae.training.data import Sampler
from writesae.training.loop import losses
from writesae.training.room import at_once, room
from writesae.training.sequences import read_sequences, split_sequences
from writesae.types import Site


@pytest.mark.parametrize("preset", PRESETS)
def test_every_number_of_a_dictionary_is_counted(preset: str) -> None:
    parts = PRESETS[preset]
    config = replace(SMALL, encoder=parts.encoder, decoder=parts.decoder)
    sae = config.sae(5, 7)
    assert sae.numbers == sum(p.numel() for p in SAE(sae).parameters())
    assert room(MemoryStore(), config).dictionary == 16 * sae.numbers


@pytest.mark.parametrize("own", [False, True])
def test_data_are_counted_as_they_are_held(own: bool) -> None:
    store = MemoryStore(own=own)
    train_on = split_sequences(store, SMALL).train
    sampler = Sampler(store, SMALL, train_on, 1.0, read_sequences(store, SMALL, train_on).written.key.device)
    sampler.preload(read_sequences(store, SMALL, train_on))
    assert isinstance(sampler.whole, Chunks)
    held = [sampler.whole.key, sampler.whole.update, sampler.whole.log_decay, sampler.whole.starts]
    taken = sum(x.nbytes for x in held)
    assert room(store, SMALL).data == pytest.approx(taken, rel=0.15)
    assert room(store, replace(SMALL, memory=1e-5)).data <= 2 * 1e-5 * 2**30


def test_a_run_that_does_not_fit_is_refused_with_numbers_and_leaves_nothing(tmp_path: Path) -> None:
    large = replace(SMALL, features=1_000_000_000, sparsity=TopK(2))
    with pytest.raises(InputError, match=r"1,000,000,000 features at L3\.H1 \(dictionary 372\.\d+ GiB.*GiB are free"):
        train(MemoryStore(), large, tmp_path / "run")
    with pytest.raises(InputError, match="fewer features"):
        train_many(MemoryStore(), [SMALL, replace(large, seed=1)], tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_runs_at_work_at_one_time_count_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()
    wanted = [replace(SMALL, site=Site(3, head)) for head in (0, 1)]
    one = sum(room(store, SMALL))
    for free, most, fits in ((one, 1, True), (one - 1, 1, False), (2 * one, 2, True), (2 * one - 1, 2, False)):
        monkeypatch.setattr("writesae.memory.free_bytes", lambda _, free=free: free)
        if fits:
            assert at_once(store, wanted, most) == most
        else:
            with pytest.raises(InputError, match=r"and 1 run\(s\) beside it need" if most == 2 else "are free"):
                at_once(store, wanted, most)
    monkeypatch.setattr("writesae.memory.free_bytes", lambda _: 1.5 * one)
    with pytest.raises(InputError, match="beside it"):
        train_many(store, [replace(config, steps=2) for config in wanted], tmp_path, workers=2)
    (tmp_path / "L3.H0_state_seed0").mkdir()
    train(store, replace(wanted[0], steps=2), tmp_path / "L3.H0_state_seed0")
    train_many(store, [replace(config, steps=2) for config in wanted], tmp_path, workers=2)  # one is finished


@pytest.mark.parametrize("way", ["workers", "together"])
def test_runs_hold_the_memory_of_one_together(way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore(length=97)
    data = room(store, SMALL).data
    wanted = [replace(SMALL, site=Site(3, n % 2), seed=n, steps=2, memory=2.5 * data / 2**30) for n in range(5)]
    groups = []
    if way == "workers":
        monkeypatch.setattr(many, "run_side_by_side", lambda store, jobs, workers, hear: groups.append(workers))
        with pytest.warns(UserWarning, match="2 runs at a time instead of 4"):
            train_many(store, wanted, tmp_path, workers=4)
        assert groups == [2]
    else:
        real = losses

        def counted(runs: Any, *rest: Any) -> Any:
            groups.append(len(runs))
            return real(runs, *rest)

        monkeypatch.setattr(many, "losses", counted)
        train_many(store, wanted, tmp_path, together=True)
        assert groups == [2, 2, 2, 2, 1, 1]
    assert at_once(store, [replace(config, memory=4.0) for config in wanted], 4) == 4
