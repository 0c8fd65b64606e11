"""What one training step sees: chunks of writes with the states before them, or loose writes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from writesae.recurrence.written import Written, rebuild_states, states_reference
from writesae.sae.workspace import Workspace


class Batch(NamedTuple):
    """`B` chunks of `C` consecutive tokens of one head."""

    key: Tensor
    """`k_t`, `[B, C, K]`."""
    update: Tensor
    """The write value: `u_t` for `state` and `write-delta`, `b_t v_t` for `write-value`, `[B, C, V]`."""
    log_decay: Tensor | None
    """`[B, C, 1 | K]` where the target is the state; None where it is the write itself."""
    initial: Tensor | None
    """State before each chunk, `[B, K, V]`; None where the target is the write."""
    picked: Tensor | None = None
    """Where the target is the state: which tokens of each chunk are modelled, `[B, P]` int64; None: all of them."""

    @property
    def tokens(self) -> int:
        """Number of matrices, `B * C`, or `B * P`."""
        return self.key.shape[0] * (self.key if self.picked is None else self.picked).shape[1]

    def pick(self, rows: Tensor) -> Tensor:
        """Of `[B, C, ...]` the tokens that are modelled, `[B, P, ...]`. Differentiable."""
        if self.picked is None:
            return rows
        return rows[torch.arange(len(rows), device=rows.device).unsqueeze(1), self.picked]

    @property
    def scalar_decay(self) -> bool:
        """Whether the scan applies (or no decay matters)."""
        return self.log_decay is None or self.log_decay.shape[-1] == 1

    def rows(self, start: int, stop: int, count: int = 1) -> Batch:
        """Chunks `start <= b < stop`, of each of the `count` equal batches that this one is made of."""
        if count == 1:
            return Batch(*(None if x is None else x[start:stop] for x in self))  # type: ignore[arg-type]
        parts = (None if x is None else x.view(count, -1, *x.shape[1:])[:, start:stop].flatten(0, 1) for x in self)
        return Batch(*parts)  # type: ignore[arg-type]

    def stretch(self, start: int, stop: int) -> Batch:
        """Tokens `start <= t < stop` of each chunk, with the same state before them."""
        decay = None if self.log_decay is None else self.log_decay[:, start:stop]
        return Batch(self.key[:, start:stop], self.update[:, start:stop], decay, self.initial)

    def matrices(self, work: Workspace | None = None) -> Tensor:
        """The modelled matrices, `[B * P, K, V]`, rebuilt (in `work`'s memory where given)."""
        shape = (*self.key.shape, self.update.shape[-1])
        out = self.key.new_empty(shape) if work is None else work.take("matrices", self.key, *shape)
        if self.log_decay is None:
            torch.mul(self.key.unsqueeze(3), self.update.unsqueeze(2), out=out)
        else:
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
                yield row * each, stop * each, self.rows(row, stop).matrices(work)
            return
        for row in range(chunks):
            chunk = self.rows(row, row + 1)
            for start in range(0, length, limit):
                piece = chunk.stretch(start, start + limit)
                matrices = piece.matrices(work)
                first = row * length + start
                chunk = chunk._replace(initial=matrices[-1:].clone())
                yield first, first + len(matrices), matrices

    def matrices_reference(self) -> Tensor:
        """The same, by the recurrence as written."""
        if self.log_decay is None:
            return self.matrices()
        return self.pick(states_reference(Written(self.key, self.update, self.log_decay), self.initial)).flatten(0, 1)
