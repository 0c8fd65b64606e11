"""One run, straight down: loss and gradients of a batch, step, housekeeping, record, checkpoint."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import cast

import torch

from writesae.artifacts import load_sae, save_sae
from writesae.config import Json, to_json
from writesae.devices import choose_device
from writesae.disk import claim
from writesae.errors import DataError
from writesae.sae.batch import Batch
from writesae.sae.config import BatchTopK, JumpReLU
from writesae.sae.loss import Dead, Loss
from writesae.sae.metrics import evaluate
from writesae.sae.presets import name_of
from writesae.sae.record import Record
from writesae.sae.step import losses_and_gradients
from writesae.sae.workspace import Workspace
from writesae.store import StreamStore
from writesae.training import folder
from writesae.training.chunks import chunk_length, whole_batches
from writesae.training.config import EPOCHS, TrainConfig
from writesae.training.data import Sampler, pool_size
from writesae.training.initial import initial_sae, moments
from writesae.training.log import JsonLines, Logger, Loggers, StepRecord, read_history
from writesae.training.process import products
from writesae.training.resample import resample
from writesae.training.result import TrainResult
from writesae.training.schedule import active_features, bandwidth, learning_rate
from writesae.training.sequences import Sequences, head_shape, read_sequences, split_sequences

SAMPLE_TOKENS = 16384
"""Tokens from which the data's scale, mean and first atoms are taken."""
KEPT = ("step", "idle", "best", "waiting", "stopped", "resampled", "seconds")
"""What a checkpoint holds of a run beside its dictionary and optimiser."""
THRESHOLD_MEMORY = 0.99
"""Share of BatchTopK's running threshold that one more batch leaves."""


class Run:
    """One run in progress. All that changes is in its checkpoint (`save`)."""

    def __init__(self, store: StreamStore, config: TrainConfig, out: Path) -> None:
        self.store, self.config, self.out = store, config, out
        self.shape = head_shape(store, config.site)
        self.sae_config = config.sae(*self.shape)
        self.split = split_sequences(store, config)
        self.device = choose_device(config.device)
        self.step = 0
        self.kept: int | None = None
        self.stopped = False
        self.seconds = 0.0
        self.resampled = 0
        self.claim()

    def claim(self) -> None:
        """Make the folder that of this run; raises OutputError where it is another's."""
        claim(self.out, "training run", {"config": self.config, "store": self.store.hash})

    def finished(self) -> TrainResult | None:
        """The result, if the run has already ended."""
        result = folder.load_result(self.out)
        if result is None:
            return None
        history = read_history(self.out / folder.HISTORY)
        sae = load_sae(self.out / folder.DICTIONARY).to(self.device)
        return TrainResult(sae, self.config, result[0], history, result[1], self.out)

    def begin(self, log: Logger) -> Iterator[Batch]:
        """Measure the data, build dictionary, optimiser and sampler, and go back to the checkpoint if there is one.

        Returns the batches that are left. Records go to `log` and to the history on disk.
        """
        self.claim()  # others may have run before it, while its folder vanished
        config, store = self.config, self.store
        train, length = self.split.train, chunk_length(self.config, *self.shape, self.store.length)
        everything = None
        if pool_size(store, config, len(train)) == len(train):
            everything = read_sequences(store, config, train)
        sample = self._sample(everything).to(self.device)
        mean, variance = moments(whole_batches(sample, config, length, 1.0), config.site)
        self.scale = 1 / math.sqrt(variance)
        batches = whole_batches(sample, config, length, self.scale)
        self.sae = initial_sae(self.sae_config, batches, mean * self.scale, config.init == "writes", config.seed)
        self.width = self.sae.width
        self.sampler = Sampler(store, config, train, self.scale, self.device)
        if everything is not None:
            self.sampler.preload(everything)
        held_out = self.split.held_out[: max(1, config.validate_tokens // store.length)]
        writes = read_sequences(store, config, held_out).to(self.device)
        self.held_out = whole_batches(writes, config, length, self.scale)
        self.steps = config.steps or max(1, math.ceil((config.epochs or EPOCHS) * self.sampler.steps_per_epoch))
        self.optimiser = torch.optim.Adam(self.sae.parameters(), lr=config.lr, fused=True)
        self.idle = torch.zeros(config.features, dtype=torch.int64, device=self.device)
        self.best = -math.inf
        self.waiting = 0
        saved = folder.load_checkpoint(self.out, self.device)
        if saved is not None:
            self._restore(saved)
        self.log = Loggers([JsonLines(self.out / folder.HISTORY, self.step), log])
        return self._left()

    def _sample(self, everything: Sequences | None) -> Sequences:
        """A few training sequences at random, from memory where all of them are there."""
        train = self.split.train
        count = min(len(train), max(1, SAMPLE_TOKENS // self.store.length))
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(self.config.seed + 1))
        places = sorted(order[:count].tolist())
        if everything is None:
            return read_sequences(self.store, self.config, [train[i] for i in places])
        return everything.pick(places)

    def _restore(self, saved: dict[str, object]) -> None:
        self.sae.load_state_dict(cast(dict[str, torch.Tensor], saved["sae"]))
        self.optimiser.load_state_dict(cast(dict[str, object], saved["optimiser"]))
        for name in KEPT:
            setattr(self, name, saved[name])
        self.kept = self.step

    def save(self) -> None:
        """Replace the checkpoint."""
        state: dict[str, object] = {"sae": self.sae.state_dict(), "optimiser": self.optimiser.state_dict()}
        folder.save_checkpoint(self.out, state | {name: getattr(self, name) for name in KEPT})
        self.kept = self.step

    def _left(self) -> Iterator[Batch]:
        left = () if self.stopped else self.sampler.batches(self.step, self.steps)
        for batch in left:
            yield batch
            if self.stopped:
                return

    def due(self) -> tuple[Dead | None, int | None]:
        """Set what the schedules ask of this step; what its loss takes of the dead features, and its `k`."""
        config = self.config
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(config, self.step, self.steps)
        if self.width is not None:
            self.sae.width = bandwidth(config, self.width, self.step, self.steps)
        inactive = self.idle >= config.dead_after
        dead = Dead(inactive, config.aux_k, config.aux_weight) if config.aux_weight > 0 else None
        return dead, active_features(config, self.step)

    def learn(self, batch: Batch, loss: Loss) -> None:
        """Use the gradients that are in place, and do what is due after a step.

        Raises DataError where loss, gradients, or weights that are to be saved are not finite.
        """
        started = time.perf_counter()
        config = self.config
        clip = math.inf if config.clip is None else config.clip
        norm = torch.nn.utils.clip_grad_norm_(self.sae.parameters(), clip)
        self._check(self.step, {"loss": loss.total, "gradient": norm})
        self.optimiser.step()
        self.idle = torch.where(loss.fired > 0, 0, self.idle + 1)
        self.step += 1
        self._housekeep(batch, loss)
        held_out = self._validate()
        self.seconds += time.perf_counter() - started
        if self.step % config.log_every == 0 or held_out is not None or self.step == self.steps:
            self.log.record(self._record(loss, held_out))
            self.resampled = 0
        if self.step % config.checkpoint_every == 0 or self.step == self.steps or self.stopped:
            weights = torch.stack([x.detach().double().sum() for x in self.sae.parameters()])
            self._check(self.step - 1, {"sum of the weights": weights.sum()})
            self.save()

    def _check(self, step: int, values: dict[str, torch.Tensor]) -> None:
        name, value = next(((n, float(x)) for n, x in values.items() if not math.isfinite(x)), ("", 0.0))
        if name:
            kept = (
                "there is no checkpoint yet" if self.kept is None else f"the checkpoint of step {self.kept:,} is kept"
            )
            numbers = self.sampler.sequences(step)
            some = ", ".join(map(str, numbers[:8])) + (f" and {len(numbers) - 8} more" if len(numbers) > 8 else "")
            raise DataError(
                f"the {name} of {self.config.site} is {value} at step {step + 1:,} (sequences {some}, whose "
                f"numbers are finite); {kept}. Lower the learning rate (now {self.config.lr:g})"
            )

    @torch.no_grad()
    def _housekeep(self, batch: Batch, loss: Loss) -> None:
        config, sae = self.config, self.sae
        if isinstance(config.sparsity, BatchTopK):
            sae.threshold.copy_(loss.cut if self.step == 1 else sae.threshold.lerp(loss.cut, 1 - THRESHOLD_MEMORY))
        if isinstance(config.sparsity, JumpReLU):
            sae.threshold.clamp_min_(0)
        due = config.resample_every and self.step % config.resample_every == 0
        if due and self.step <= config.resample_until * self.steps:
            inactive = self.idle >= config.dead_after
            generator = torch.Generator().manual_seed(config.seed * 1_000_003 + self.step)
            self.resampled += resample(sae, self.optimiser, batch, inactive, generator)
            self.idle[inactive] = 0
        every = config.renormalise_every
        if (every and self.step % every == 0) or self.sae_config.tied:
            sae.normalise_()

    def _validate(self) -> float | None:
        every = self.config.validate_every
        if not every or self.step % every:
            return None
        value = evaluate(self.sae, self.held_out).explained_variance
        better = value > self.best
        self.best = max(self.best, value)
        self.waiting = 0 if better else self.waiting + 1
        self.stopped = bool(self.config.patience) and self.waiting >= self.config.patience
        return value

    def _record(self, loss: Loss, held_out: float | None) -> StepRecord:
        d_k, d_v = self.shape
        return StepRecord(
            step=self.step,
            tokens=self.step * self.sampler.tokens_per_batch,
            loss=float(loss.total),
            mse=float(loss.full) / (self.scale**2 * d_k * d_v),
            explained_variance=1 - float(loss.full),
            alive=int((self.idle < self.config.dead_after).sum()),
            lr=self.optimiser.param_groups[0]["lr"],
            seconds=self.seconds,
            resampled=self.resampled,
            held_out=held_out,
        )

    @property
    def place(self) -> str:
        """How far the run is, in words."""
        return f"{self.config.site} at step {self.step:,} of {self.steps:,}"

    def finish(self) -> TrainResult:
        """Normalise, measure, turn to raw units, save; the run is then finished."""
        self.sae.normalise_()
        metrics = evaluate(self.sae, self.held_out, self.scale)
        self.sae.rescale_(self.scale)
        self.sae.requires_grad_(False)
        origin = self.store.provenance
        training: dict[str, Json] = {"config": to_json(self.config), "steps": self.step, "seconds": self.seconds}
        self.sae.record = Record(
            host=origin.host,
            host_revision=origin.revision,
            site=self.config.site,
            variant=name_of(self.config.encoder, self.config.decoder),
            seed=self.config.seed,
            corpus=origin.described,
            corpus_hash=origin.corpus,
            store_hash=self.store.hash,
            training=training,
            metrics=asdict(metrics),
            text=self.store.text,
        )
        save_sae(self.sae, self.out / folder.DICTIONARY, replace=True)
        folder.save_result(self.out, metrics, self.step, self.seconds)
        history = read_history(self.out / folder.HISTORY)
        return TrainResult(self.sae, self.config, metrics, history, self.seconds, self.out)


def losses(runs: Sequence[Run], batches: Sequence[Batch], work: Workspace) -> list[Loss]:
    """The losses of the runs' next steps, with every gradient in place; several share their products.

    Those differ in site and seed alone, and have made as many steps.
    """
    started = time.perf_counter()
    due = [run.due() for run in runs]
    dead = [one for one, _ in due if one is not None] or None
    with products(runs[0].config.precision) as half:
        found = losses_and_gradients([run.sae for run in runs], batches, dead, due[0][1], work, half)
    for run in runs:
        run.seconds += (time.perf_counter() - started) / len(runs)
    return found
