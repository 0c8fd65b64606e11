"""Schedules, sampling, starts, logs and figures, each on its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from memory_store import MemoryStore
from test_train import SITE, SMALL, small

from references import matrices_reference, states_reference
from writesae.errors import ConfigError, DataError, InputError
from writesae.sae import SAE, BatchTopK, JumpReLU, TopK, evaluate
from writesae.sae.step import loss_and_gradients
from writesae.training import TrainConfig, open_logger, train
from writesae.training.chunks import Chunks, make_chunks, whole_batches
from writesae.training.data import Sampler
from writesae.training.initial import initial_sae, moments
from writesae.training.log import JsonLines, Service, StepRecord, read_history
from writesae.training.resample import leading_pair, resample
from writesae.training.schedule import active_features, bandwidth, learning_rate
from writesae.training.sequences import Sequences, read_sequences, split_sequences

CPU = torch.device("cpu")


def test_learning_rate_warms_up_and_follows_a_cosine() -> None:
    config = TrainConfig(SITE, lr=1.0, lr_end=0.1, warmup=4)
    rates = [learning_rate(config, step, 15) for step in range(15)]
    assert rates[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert rates[9] == pytest.approx(0.55)
    assert rates[14] == pytest.approx(0.1)


def test_k_and_bandwidth_fall_linearly() -> None:
    config = replace(SMALL, sparsity=BatchTopK(4), k_start=14, k_steps=5)
    assert [active_features(config, step) for step in range(7)] == [14, 12, 10, 8, 6, 4, 4]
    assert active_features(replace(SMALL, sparsity=JumpReLU()), 3) is None
    assert bandwidth(replace(SMALL, sparsity=JumpReLU(), bandwidth_end=0.5), 2.0, 10, 11) == pytest.approx(1.0)


@pytest.mark.parametrize("decays", [1, 5])
@pytest.mark.parametrize("memory", [1.0, 2e-5])
def test_batches_hold_the_states_of_the_store(decays: int, memory: float) -> None:
    store, config = MemoryStore(decays=decays), replace(SMALL, memory=memory)
    numbers = split_sequences(store, config).train
    sampler = Sampler(store, config, numbers, 2.0, CPU)
    everything = read_sequences(store, config, numbers)
    known = {
        tuple(k.tolist()): s for k, s in zip(everything.written.key.flatten(0, 1), _states(everything), strict=True)
    }
    source = sampler.batches(3)
    for _ in range(sampler.steps_per_epoch):
        batch = next(source)
        assert batch.tokens == sampler.tokens_per_batch == 65
        found = matrices_reference(batch)
        row = batch.update[:, :, 0].argmax()  # every key comes from few planted ones: compare by the state itself
        assert any(torch.allclose(found.view(-1, 5, 7)[row], 2 * s, atol=1e-5) for s in _states(everything))
    assert len(known) == 11


def _states(sequences: Sequences) -> torch.Tensor:
    return states_reference(sequences.written).flatten(0, 1)


def test_an_epoch_visits_every_chunk_once_and_can_start_anywhere() -> None:
    store, config = MemoryStore(), replace(SMALL, batch=13, target="state")
    numbers = split_sequences(store, config).train
    sampler = Sampler(store, config, numbers, 1.0, CPU)
    source = sampler.batches(0)
    epoch = [next(source) for _ in range(sampler.steps_per_epoch)]
    first = torch.stack([b.update[0, 0] for b in epoch])
    assert len({tuple(row) for row in first.tolist()}) == len(epoch) == len(numbers) * 5
    again = Sampler(store, config, numbers, 1.0, CPU).batches(7)
    for batch in epoch[7:]:
        assert torch.equal(next(again).update, batch.update)


def test_held_out_batches_hold_every_token_once() -> None:
    store = MemoryStore()
    writes = read_sequences(store, SMALL, [2, 3, 19])
    batches = whole_batches(writes, SMALL, 13, 1.5)
    found = torch.cat([b.matrices().flatten(1) for b in batches])
    expected = 1.5 * _states(writes).flatten(1)
    assert found.shape == expected.shape == (3 * 53, 35)
    torch.testing.assert_close(found.sum(0), expected.sum(0), atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(found.norm(dim=1).sort().values, expected.norm(dim=1).sort().values)


def test_the_start_has_the_right_bias_and_scale() -> None:
    store = MemoryStore()
    writes = read_sequences(store, SMALL, list(range(19)))
    raw = whole_batches(writes, SMALL, 13, 1.0)
    mean, variance = moments(raw, SITE)
    states = _states(writes)
    torch.testing.assert_close(mean, states.mean(0))
    assert variance == pytest.approx(float((states - states.mean(0)).square().sum((1, 2)).mean()), rel=1e-4)
    scaled_batches = whole_batches(writes, SMALL, 13, variance**-0.5)
    for from_writes in (False, True):
        sae = initial_sae(SMALL.sae(5, 7), scaled_batches, mean * variance**-0.5, from_writes, 0)
        torch.testing.assert_close(sae.preactivations(sae.bias), torch.zeros(23), atol=1e-5, rtol=0)
        scaled = states * variance**-0.5
        assert (scaled - sae(scaled)).square().sum((1, 2)).mean() < 1  # better than the mean alone
    few = SMALL.sae(5, 7)
    top, batch_top = (
        initial_sae(replace(few, sparsity=kind), scaled_batches, mean * variance**-0.5, False, 0)
        for kind in (TopK(2), BatchTopK(2))
    )
    assert float(batch_top.v_enc.detach().norm() / top.v_enc.detach().norm()) == pytest.approx(
        1, abs=0.2
    )  # not of all that is positive
    still = whole_batches(
        replace(writes, written=writes.written._replace(update=0 * writes.written.update)), SMALL, 13, 1.0
    )
    with pytest.raises(DataError, match=r"L3\.H1: 1007 sampled .*nothing to learn"):
        moments(still, SITE)


def test_leading_pairs_are_the_singular_ones() -> None:
    u, s, v = torch.linalg.svd(torch.randn(11, 5, 7))
    matrices = u[:, :, :5] @ torch.diag_embed(s * torch.tensor([9.0, 1, 1, 1, 1])) @ v[:, :5]
    left, right = leading_pair(matrices, torch.Generator().manual_seed(0))
    strength = torch.einsum("nk,nkv,nv->n", left, matrices, right)
    torch.testing.assert_close(strength, torch.linalg.matrix_norm(matrices, 2))


def test_resampling_revives_the_dead_where_it_is_worst_and_forgets_their_past() -> None:
    store = MemoryStore()
    config = small("write-delta", sparsity=TopK(1))
    batch = whole_batches(read_sequences(store, config, list(range(19))), config, 1, 0.3)[0]
    sae = SAE(config.sae(5, 7), torch.Generator().manual_seed(0))
    optimiser = torch.optim.Adam(sae.parameters())
    loss = loss_and_gradients(sae, batch)
    optimiser.step()
    dead = torch.zeros(23, dtype=torch.bool)
    dead[::3] = True
    with torch.no_grad():
        sae.b_enc[dead] = -1e6
    assert evaluate(sae, [batch]).alive <= int((~dead).sum())
    kept = sae.v_dec[~dead].clone()
    assert resample(sae, optimiser, batch, dead, torch.Generator().manual_seed(1)) == 8
    after = loss_and_gradients(sae, batch)
    assert (after.fired[dead] > 0).sum() >= 4
    assert after.error < 0.8 * loss.error
    assert torch.equal(sae.v_dec[~dead], kept)
    for name, parameter in sae.named_parameters():
        if name != "bias":
            assert (optimiser.state[parameter]["exp_avg"][dead] == 0).all()
            assert (optimiser.state[parameter]["exp_avg_sq"][~dead] != 0).any()


def test_a_run_without_renormalising_is_possible(tmp_path: Path) -> None:
    found = train(MemoryStore(), small("write-delta", renormalise_every=0, steps=20), tmp_path)
    torch.testing.assert_close(found.sae.v_dec.flatten(1).norm(dim=1), torch.ones(23))  # at its end it is
    with pytest.raises(ConfigError, match="renormalise every -1 is too small"):
        small("write-delta", renormalise_every=-1)


def test_early_stopping_and_refusals(tmp_path: Path) -> None:
    still = replace(SMALL, lr=1e-12, lr_end=1e-12, patience=2, validate_every=10, aux_weight=0.0, resample_every=0)
    assert train(MemoryStore(), still, tmp_path / "run").history[-1].step < 120
    for change, words in (
        ({"steps": 0}, "steps"),
        ({"validation": 1.0}, "share"),
        ({"lr_end": 1.0}, "lr_end"),
        ({"batch": 0}, "batch"),
        ({"sparsity": JumpReLU(), "k_start": 3}, "k_start"),
    ):
        with pytest.raises(ConfigError, match=words):
            replace(SMALL, **change)
    with pytest.raises(InputError, match="device"):
        train(MemoryStore(), replace(SMALL, device="abacus"), tmp_path / "c")
    with pytest.raises(InputError, match="at least 2 sequences"):
        train(MemoryStore(sequences=1), SMALL, tmp_path / "d")


def _record(step: int) -> StepRecord:
    return StepRecord(step, 5 * step, 0.5, 0.1, 0.5, 7, 1e-3, 1.5, 0, 0.4 if step % 2 else None)


def test_history_survives_a_torn_line_and_forgets_a_lost_tail(tmp_path: Path) -> None:
    path = tmp_path / "h.jsonl"
    log = JsonLines(path, 0)
    for step in range(1, 6):
        log.record(_record(step))
    log.close()
    path.write_text(path.read_text()[:-9])
    assert [r.step for r in read_history(path)] == [1, 2, 3, 4]
    JsonLines(path, 3).close()
    assert [r.step for r in read_history(path)] == [1, 2, 3]
    path.write_text("nonsense\n" + path.read_text())
    with pytest.raises(DataError, match="line 1"):
        read_history(path)


def test_loggers_that_are_not_installed_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("wandb", "trackio"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InputError, match="pip install wandb"):
        open_logger("wandb", "run", tmp_path)
    with pytest.raises(InputError, match="pip install trackio"):
        open_logger("trackio", "run", tmp_path)


@pytest.mark.parametrize("service", ["wandb", "trackio"])
def test_each_tracker_gets_every_scalar_of_its_own_run(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class FakeRun:
        def __init__(self) -> None:
            self.calls: list[object] = []

        def log(self, values: dict[str, float], step: int) -> None:
            self.calls.append((step, sorted(values)))

        def finish(self) -> None:
            self.calls.append("finished")

    class Fake:
        """Like wandb, it gives the run that is on already, unless it is told otherwise."""

        runs: dict[str, FakeRun] = {}  # noqa: RUF012

        def init(self, project: str, name: str, reinit: str | None = None) -> FakeRun:
            if service == "trackio":
                assert reinit is None
            elif reinit != "create_new" and self.runs:
                return next(iter(self.runs.values()))
            return self.runs.setdefault(f"{project} {name}", FakeRun())

    monkeypatch.setitem(sys.modules, service, Fake())
    one, two = open_logger(service, "L3.H1", tmp_path), open_logger(service, "L3.H0", tmp_path)
    for logger, step in ((one, 2), (two, 4), (one, 6)):
        logger.record(_record(step))
    one.close()
    names = ["alive", "explained_variance", "loss", "lr", "mse", "resampled", "seconds", "tokens"]
    assert Fake.runs["writesae L3.H1"].calls == [(2, names), (6, names), "finished"]
    assert Fake.runs["writesae L3.H0"].calls == [(4, names)]


def test_console_prints_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    open_logger("console", "L3.H1", tmp_path).record(_record(3))
    assert "L3.H1  step 3  tokens 15  loss 0.5000" in capsys.readouterr().out


SCRIPT = """
import sys; sys.path[:0] = [{tests!r}, {tests!r} + "/.."]
from memory_store import MemoryStore
from test_train import SMALL
from dataclasses import replace
from writesae.training import train
train(MemoryStore(), replace(SMALL, steps=1500, checkpoint_every=37, memory=4e-5), {out!r})
"""


@pytest.mark.slow
def test_sigkill_anywhere_leaves_the_same_bits(tmp_path: Path) -> None:
    store, config = MemoryStore(), replace(SMALL, steps=1500, checkpoint_every=37, memory=4e-5)
    whole = train(store, config, tmp_path / "whole")
    script = SCRIPT.format(tests=str(Path(__file__).parent), out=str(tmp_path / "killed"))
    kills = 0
    for number in range(60):
        process = subprocess.Popen([sys.executable, "-c", script])
        checkpoint, began = tmp_path / "killed" / "checkpoint.pt", time.time()
        before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
        while process.poll() is None and (not checkpoint.exists() or checkpoint.stat().st_mtime_ns == before):
            assert time.time() - began < 120
            time.sleep(0.01)
        time.sleep(0.013 * (number % 11))
        if process.poll() is not None:
            break
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        kills += 1
        if kills == 20:
            break
    assert kills >= 10
    resumed = train(store, config, tmp_path / "killed")
    for name, want in whole.sae.state_dict().items():
        assert torch.equal(resumed.sae.state_dict()[name], want), name


def test_chunks_of_a_length_that_does_not_divide() -> None:
    store = MemoryStore()
    writes = read_sequences(store, SMALL, [0, 1])
    chunks = make_chunks(writes, SMALL, 13, 1.0, CPU)
    assert isinstance(chunks, Chunks)
    assert chunks.first.tolist() == [0, 13, 26, 39, 40, 53, 66, 79, 92, 93]
    batch = chunks.take(torch.tensor([4, 9]))
    torch.testing.assert_close(batch.matrices(), states_reference(writes.written)[:, 40:53].flatten(0, 1))
