"""What one training step sees: loose writes, or states as chunks of writes with the states before them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from writesae.recurrence.written import Written, rebuild_states
from writesae.sae.workspace import Workspace
from writesae.types import Float, Int


class Writes(NamedTuple):
    """`T` writes of one head, each the matrix `key update^T`."""

    key: Float[Tensor, "T K"]
    """`k_t`, `[T, K]`."""
    update: Float[Tensor, "T V"]
    """The write value: `u_t` for `write-delta`, `b_t v_t` for `write-value`, `[T, V]`."""

    @property
    def tokens(self) -> int:
        """Number of matrices."""
        return len(self.key)

    @property
    def length(self) -> int:
        """Tokens a row."""
        return 1

    def matrices(self, work: Workspace | None = None) -> Float[Tensor, "T K V"]:
        """The modelled matrices, `[T, K, V]` (in `work`'s memory where given)."""
        out = _room(self.key, self.update, work)
        return torch.mul(self.key.unsqueeze(2), self.update.unsqueeze(1), out=out)

    def slices(self, limit: int, work: Workspace) -> Iterator[tuple[int, int, Tensor]]:
        """The matrices of `limit` tokens at a time, as `(first, stop, matrices)`, gone at the next."""
        for first in range(0, len(self.key), limit):
            some = rows(self, first, first + limit)
            yield first, first + some.tokens, some.matrices(work)


class States(NamedTuple):
    """The states after the tokens of `B` chunks of `C` consecutive tokens of one head."""

    key: Float[Tensor, "B C K"]
    """`k_t`, `[B, C, K]`."""
    update: Float[Tensor, "B C V"]
    """`u_t`, `[B, C, V]`."""
    log_decay: Float[Tensor, "B C #K"]
    """`[B, C, 1 | K]`."""
    initial: Float[Tensor, "B K V"]
    """State before each chunk, `[B, K, V]`."""
    picked: Int[Tensor, "B P"] | None = None
    """Which tokens of each chunk are modelled, `[B, P]` int64; None: all of them."""

    @property
    def tokens(self) -> int:
        """Number of matrices, `B * C`, or `B * P`."""
        return self.key.shape[0] * (self.key if self.picked is None else self.picked).shape[1]

    @property
    def length(self) -> int:
        """Tokens a row, `C`."""
        return self.key.shape[1]

    @property
    def scalar_decay(self) -> bool:
        """Whether the scan applies."""
        return self.log_decay.shape[-1] == 1

    def pick(self, rows: Float[Tensor, "B C *d"]) -> Float[Tensor, "B P *d"]:
        """Of `[B, C, ...]` the tokens that are modelled, `[B, P, ...]`. Differentiable."""
        if self.picked is None:
            return rows
        return rows[torch.arange(len(rows), device=rows.device).unsqueeze(1), self.picked]

    def matrices(self, work: Workspace | None = None) -> Float[Tensor, "T K V"]:
        """The modelled matrices, `[B * P, K, V]`, rebuilt (in `work`'s memory where given)."""
        out = _room(self.key, self.update, work)
        rebuild_states(Written(self.key, self.update, self.log_decay), self.initial, out)
        return self.pick(out).flatten(0, 1)

    def slices(self, limit: int, work: Workspace) -> Iterator[tuple[int, int, Tensor]]:
        """The matrices of about `limit` tokens at a time, as `(first, stop, [stop - first, K, V])`.

        Whole chunks where they fit, otherwise stretches of one chunk that hand their last state on. What is yielded
        lies in `work`'s memory and is gone at the next.
        """
        chunks, length = self.key.shape[:2]
        each = self.tokens // chunks
        if length <= limit or self.picked is not None:
            some = max(1, limit // each)
            for row in range(0, chunks, some):
                stop = min(row + some, chunks)
                yield row * each, stop * each, rows(self, row, stop).matrices(work)
            return
        for row in range(chunks):
            key, update, log_decay, initial, _ = rows(self, row, row + 1)
            for start in range(0, length, limit):
                here = slice(start, start + limit)
                matrices = States(key[:, here], update[:, here], log_decay[:, here], initial).matrices(work)
                first = row * length + start
                initial = matrices[-1:].clone()
                yield first, first + len(matrices), matrices


Batch = Writes | States
B = TypeVar("B", bound=Writes | States)


def _room(key: Tensor, update: Tensor, work: Workspace | None) -> Tensor:
    shape = (*key.shape, update.shape[-1])
    return key.new_empty(shape) if work is None else work.take("matrices", key, *shape)


def rows(batch: B, start: int, stop: int, count: int = 1) -> B:
    """Rows (chunks, or writes) `start <= b < stop`, of each of the `count` equal batches that this one is made of."""
    parts = (None if x is None else x.view(count, -1, *x.shape[1:])[:, start:stop].flatten(0, 1) for x in batch)
    return type(batch)(*parts)  # type: ignore[arg-type]


def joined(batches: Sequence[B]) -> B:
    """The rows of several batches of one shape, one after another."""
    parts = (None if x[0] is None else torch.cat(x) for x in zip(*batches, strict=True))
    return type(batches[0])(*parts)  # type: ignore[arg-type]
