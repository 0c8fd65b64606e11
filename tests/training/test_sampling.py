"""What the batches hold: padding never, both writes of RWKV-7, spread-out tokens, and the same read ahead or not."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch
from memory_store import MemoryStore
from test_train import SITE, SMALL, small
from torch import Tensor

from references import states_reference
from writesae.errors import ConfigError, DataError, InputError
from writesae.recurrence.written import Written
from writesae.sae import Linear, evaluate
from writesae.training import TrainConfig, train
from writesae.training.chunks import whole_batches
from writesae.training.data import Sampler
from writesae.training.sequences import Sequences, read_sequences, split_sequences
from writesae.types import Target

CPU = torch.device("cpu")
PADDING = (3, 53, 0, 41, 3, 17)
"""Of the first sequences: 53 is all of one, and 41 leaves fewer tokens than a chunk."""


def sampler(store: MemoryStore, config: TrainConfig, numbers: list[int]) -> Sampler:
    return Sampler(store, config, numbers, 1.0, CPU)


def targets(store: MemoryStore, config: TrainConfig, number: int) -> Tensor:
    """The matrices of a sequence that are no padding, by the recurrence as written, `[T, K, V]`."""
    padding, native = int(store.padded[number]), store.native(SITE, number, number + 1)
    if config.target != "state":
        update = store.read(SITE, number, number + 1).update if config.target == "write-delta" else native
        return (store.keys(SITE, number, number + 1)[..., None] * update[..., None, :])[0, padding:]
    if store.layers[3].erase == "own":
        return states_reference(store.pairs(SITE, number, number + 1))[0, 1::2][padding:]
    return states_reference(store.read(SITE, number, number + 1))[0, padding:]


def ordered(matrices: Tensor) -> Tensor:
    """Flat matrices in an order that does not depend on theirs."""
    flat = matrices.flatten(1).double()
    return flat[(flat @ torch.linspace(1, 2, flat.shape[1], dtype=torch.float64)).argsort()]


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("target", ["state", "write-value"])
def test_padding_is_neither_trained_on_nor_validated_on(target: Target, own: bool) -> None:
    store = MemoryStore(padding=PADDING, own=own, decays=5 if own else 1)
    config, numbers = small(target), list(range(6))
    held = whole_batches(read_sequences(store, config, numbers), config, 13, 1.0)
    expected = torch.cat([targets(store, config, n) for n in numbers])
    assert len(expected) == sum(53 - p for p in PADDING)
    torch.testing.assert_close(
        ordered(torch.cat([b.matrices() for b in held])), ordered(expected), atol=1e-5, rtol=1e-4
    )
    source = sampler(store, config, numbers)
    assert source.numbers == ([0, 2, 4, 5] if target == "state" else [0, 2, 3, 4, 5])
    seen = torch.cat([b.matrices() for b in islice(source.batches(0), source.steps_per_epoch)])
    distance = torch.cdist(seen.flatten(1).double(), expected.flatten(1).double()).min(1).values
    assert float(distance.max()) < 1e-4
    assert (seen.flatten(1).norm(dim=1) > 0).all()


def test_nothing_but_padding_is_refused() -> None:
    store = MemoryStore(sequences=5, padding=(53, 53, 50, 41, 44))
    with pytest.raises(InputError, match="none of the 5 training sequences has 13 tokens"):
        sampler(store, SMALL, list(range(5)))


@pytest.mark.parametrize("kind", ["scalar", "vector", "own"])
def test_a_stride_spreads_a_chunk_over_several_visits(kind: str) -> None:
    """12 = 4 visits of 3 tokens; in an epoch each token comes as often as chunks hold it (the last one overlaps)."""
    store = MemoryStore(length=47, decays=1 if kind == "scalar" else 5, own=kind == "own")
    config = replace(SMALL, chunk=12, stride=4, batch=3)
    source = sampler(store, config, [0, 1, 2])
    assert source.tokens_per_batch == 3
    assert source.steps_per_epoch == 3 * 4 * 4
    epoch = list(islice(source.batches(0), source.steps_per_epoch))
    every = [targets(store, config, n) for n in range(3)]
    expected = torch.cat([torch.cat([x[i : i + 12] for i in (0, 12, 24, 35)]) for x in every])
    torch.testing.assert_close(
        ordered(torch.cat([b.matrices() for b in epoch])), ordered(expected), atol=1e-5, rtol=1e-4
    )
    first = epoch[0].matrices()
    where = [int(torch.cdist(x.flatten()[None].double(), expected.flatten(1).double()).argmin()) for x in first]
    assert where[1] - where[0] == where[2] - where[1] == 4
    with pytest.raises(ConfigError, match="stride 5 does not divide the chunk of 12"):
        sampler(store, replace(config, stride=5), [0, 1, 2])


def test_pools_mix_runs_of_neighbours_and_read_ahead_without_a_trace() -> None:
    store, config = MemoryStore(sequences=61), replace(SMALL, memory=8e-5, batch=13)
    numbers = split_sequences(store, config).train
    source = sampler(store, config, numbers)
    assert len(source.steps_per_pool) > 2
    pools = [source._pool(0, i) for i in range(len(source.steps_per_pool))]
    assert sorted(n for pool in pools for n in pool) == numbers
    assert pools[0] != source._pool(1, 0)
    steps = 2 * source.steps_per_epoch
    straight = list(islice(source.batches(0), steps))
    for start in (1, source.steps_per_pool[0], steps - 3):
        again = sampler(store, config, numbers).batches(start)
        for want, batch in zip(straight[start : start + 3], again, strict=False):
            assert torch.equal(want.update, batch.update)
    assert len(list(sampler(store, config, numbers).batches(3, steps - 2))) == steps - 5


def test_nothing_is_read_for_steps_that_never_come() -> None:
    read: list[tuple[int, int]] = []

    class Watched(Sampler):
        def _read(self, epoch: int, pool: int) -> Sequences:
            read.append((epoch, pool))
            return super()._read(epoch, pool)

    config = replace(SMALL, memory=8e-5, batch=13)
    source = Watched(MemoryStore(sequences=61), config, list(range(61)), 1.0, CPU)
    for extra, pools in ((0, [(0, 0)]), (1, [(0, 0), (0, 1)])):
        stop = source.steps_per_pool[0] + extra
        assert len(list(source.batches(0, stop))) == stop
        assert read == pools
        read.clear()


@pytest.mark.parametrize("target", ["state", "write-delta"])
@pytest.mark.parametrize("memory", [1.0, 8e-5])
def test_a_step_knows_its_sequences(target: Target, memory: float) -> None:
    store = MemoryStore(sequences=31, padding=PADDING)
    for number in range(31):  # the first value channel says which sequence a token is from
        store.data[1].update[number, int(store.padded[number]) :, 0] = number + 1
    config = small(target, memory=memory, batch=39)
    source = sampler(store, config, list(range(31)))
    for step, batch in enumerate(islice(source.batches(0), 2 * source.steps_per_epoch)):
        assert source.sequences(step) == sorted({round(float(x)) - 1 for x in batch.update[..., 0].flatten()})


def test_bad_numbers_of_a_later_pool_name_the_step() -> None:
    store, config = MemoryStore(sequences=61), replace(SMALL, memory=8e-5, batch=13)
    source = sampler(store, config, list(range(61)))
    last = len(source.steps_per_pool) - 1
    bad, step = source._pool(0, last)[0], sum(source.steps_per_pool[:last])
    store.data[1].log_decay[bad, 7] = torch.nan
    batches = source.batches(0)
    for _ in range(step):
        next(batches)
    with pytest.raises(DataError, match=rf"L3\.H1, sequence {bad}, token 7: log_decay is nan.*for step {step + 1}\)"):
        next(batches)


@pytest.mark.parametrize("change", [{"init": "writes"}, {"encoder": Linear(), "stride": 1, "memory": 4e-5}])
def test_states_with_two_writes_a_token_are_learnt(change: dict[str, object], tmp_path: Path) -> None:
    """The state of RWKV-7: more is explained than by a dictionary of random atoms, and a pool changes nothing else."""
    store, config = MemoryStore(decays=5, own=True), replace(SMALL, **change)  # type: ignore[arg-type]
    result = train(store, config, tmp_path / "run")
    assert result.metrics.tokens == 6 * 53
    assert result.metrics.explained_variance > 0.3
    split = split_sequences(store, config)
    raw = whole_batches(read_sequences(store, config, split.held_out), config, 13, 1.0)
    assert evaluate(result.sae, raw).explained_variance == pytest.approx(result.metrics.explained_variance, abs=1e-3)
    with pytest.raises(InputError, match="no delta write"):
        train(store, replace(config, target="write-delta", chunk=None), tmp_path / "delta")


def test_pairs_are_the_recurrence_with_an_erase_of_its_own() -> None:
    store = MemoryStore(decays=5, own=True)
    native, (along, erased) = store.read(SITE, 0, 2), store.erased[1]
    state = torch.zeros(2, 5, 7)
    for t in range(53):
        state = native.log_decay[:, t].exp()[..., None] * state - along[:2, t, :, None] * erased[:2, t, None]
        state = state + native.key[:, t, :, None] * native.update[:, t, None]
    two = Written(*(x for x in store.pairs(SITE, 0, 2)[:3] if x is not None))
    torch.testing.assert_close(states_reference(two)[:, -1], state)
