"""Training units: chunks of consecutive tokens with the state before them, or loose tokens for write targets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from writesae.errors import ConfigError
from writesae.recurrence.written import Written, rebuild_states, states_before
from writesae.sae.batch import Batch, States, Writes
from writesae.training.config import TrainConfig
from writesae.training.sequences import Sequences


def chunk_length(config: TrainConfig, d_k: int, d_v: int, length: int) -> int:
    """Tokens a chunk of the state target; raises ConfigError if `stride` does not divide it."""
    wanted = max(16, min(64, max(d_k, d_v) // 2)) if config.chunk is None else config.chunk
    wanted = min(wanted, length)
    if wanted % config.stride:
        raise ConfigError(f"stride {config.stride} does not divide the chunk of {wanted} tokens")
    return wanted


def positions(time: int, length: int) -> list[int]:
    """First token of each chunk; the last chunk overlaps the one before where `length` does not divide `time`."""
    return sorted({*range(0, time - length + 1, length), time - length}) if time >= length else []


def owners(padding: list[int], time: int, length: int) -> list[int]:
    """Place of the sequence that each chunk is from, in the order in which `make_chunks` makes them."""
    return [
        place
        for size in sorted(set(padding))
        for place, own in enumerate(padding)
        if own == size
        for _ in positions(time - size, length)
    ]


@dataclass(frozen=True)
class LooseWrites:
    """Units of the write targets: every token that is no padding."""

    writes: Writes
    """Scaled."""

    @property
    def units(self) -> int:
        """Number of units."""
        return self.writes.tokens

    def take(self, units: Tensor) -> Writes:
        """The batch of these units, by number."""
        return Writes(self.writes.key[units], self.writes.update[units])


@dataclass(frozen=True)
class Chunks:
    """Units of the state target. Tokens of all sequences follow each other, padding left out."""

    key: Tensor
    """`[n, K]`; where `pairs`, two rows a token."""
    update: Tensor
    """`[n, V]`, scaled."""
    log_decay: Tensor
    """`[n, 1 | K]`."""
    starts: Tensor
    """State before each chunk, `[P, K, V]`, scaled."""
    first: Tensor
    """Row of each chunk's first token, `[P]`."""
    length: int
    """Tokens a chunk."""
    stride: int = 1
    """A unit is every so-manyth token of a chunk, so a chunk makes `stride` units."""
    pairs: bool = False
    """Whether a token writes two matrices."""

    @property
    def units(self) -> int:
        """Number of units."""
        return len(self.first) * self.stride

    def take(self, units: Tensor) -> States:
        """The batch of these units, by number."""
        chunk, phase = units // self.stride, units % self.stride
        count = self.length * (2 if self.pairs else 1)
        row = (self.first[chunk].unsqueeze(1) + torch.arange(count, device=units.device)).flatten()
        key, update, decay = (
            x.index_select(0, row).view(len(units), count, -1) for x in (self.key, self.update, self.log_decay)
        )
        picked = None
        if self.stride > 1:
            picked = phase.unsqueeze(1) + torch.arange(0, self.length, self.stride, device=phase.device)
        states = States(key, update, decay, self.starts.index_select(0, chunk), picked)
        return _apart(states) if self.pairs else states


def _apart(states: States) -> States:
    """Tokens of two writes each as chunks of one token, whose `initial` is all of the state but the last write.

    The state of a token is that after its second write: what is left after the erase is the state before the native
    write. `states.picked` counts tokens.
    """
    left = states.pick(rebuild_states(Written(*states[:3]), states.initial)[:, 0::2]).flatten(0, 1)
    key, update = (states.pick(x[:, 1::2]).flatten(0, 1).unsqueeze(1) for x in (states.key, states.update))
    return States(key, update, key.new_zeros(len(key), 1, 1), left)


def make_chunks(
    sequences: Sequences, config: TrainConfig, length: int, scale: float, device: torch.device
) -> Chunks | LooseWrites:
    """Prepare sequences for sampling. Those shorter than a chunk make none."""
    per_token = 2 if sequences.pairs else 1
    parts: list[tuple[Tensor, ...]] = []
    first: list[Tensor] = []
    base = 0
    for written in sequences.unpadded():
        rows, time = written.key.shape[:2]
        begins = positions(time // per_token, length if config.target == "state" else 1)
        if not begins:
            continue
        written = written._replace(update=written.update * scale).to(device)
        flat = tuple(x.flatten(0, 1) for x in written[:3])
        if config.target == "state":
            flat = *flat, states_before(written, [per_token * x for x in begins]).flatten(0, 1)
            here = base + time * torch.arange(rows).unsqueeze(1) + per_token * torch.tensor(begins)
            first.append(here.flatten().to(device))
        parts.append(flat)
        base += rows * time
    joined = [torch.cat(x) if len(x) > 1 else x[0] for x in zip(*parts, strict=True)]
    if config.target != "state":
        return LooseWrites(Writes(*joined[:2]))
    return Chunks(joined[0], joined[1], joined[2], joined[3], torch.cat(first), length, config.stride, sequences.pairs)


def whole_batches(sequences: Sequences, config: TrainConfig, length: int, scale: float) -> list[Batch]:
    """Whole sequences as batches, every token that is no padding once: full chunks of `length`, and then the rest."""
    batches: list[Batch] = []
    for written in sequences.unpadded():
        written = written._replace(update=written.update * scale)
        if written.key.shape[1] == 0:
            continue
        if config.target == "state":
            batches += _chunked(written, length, sequences.pairs)
        else:
            batches.append(Writes(written.key.flatten(0, 1), written.update.flatten(0, 1)))
    return batches


def _chunked(written: Written, length: int, pairs: bool) -> Iterator[States]:
    length *= 2 if pairs else 1
    time = written.key.shape[1]
    starts = states_before(written, range(0, time, length))
    whole = time // length
    for first, stop, size in ((0, whole, length), (whole, whole + 1, time - whole * length)):
        if size == 0 or stop == first:
            continue
        part = written.tokens(first * length, first * length + (stop - first) * size)
        key, update, decay = (x.reshape(-1, size, x.shape[-1]) for x in (part.key, part.update, part.log_decay))
        states = States(key, update, decay, starts[:, first:stop].flatten(0, 1))
        yield _apart(states) if pairs else states
