"""Pre-activations of whole sequences, a chunk at a time, by the cheapest exact form for the encoder and the target."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from writesae.recurrence.scan import project, scan
from writesae.recurrence.written import Written, native_update, rebuild_states
from writesae.sae.config import Bilinear

if TYPE_CHECKING:
    from writesae.sae.model import SAE

CHUNK = 64


def flat_factors(sae: SAE) -> tuple[Tensor, Tensor, int]:
    """Encoder factors with the rank laid out first, `[r * N, K]` and `[r * N, V]`, and `r`."""
    v, w = sae.encoder_factors
    return v.transpose(0, 1).flatten(0, 1), w.transpose(0, 1).flatten(0, 1), v.shape[1]


@torch.no_grad()
def preactivation_chunks(sae: SAE, written: Written, initial: Tensor | None) -> Iterator[Tensor]:
    """`p` of consecutive chunks, each `[B, C, N]`."""
    if sae.config.target == "write-value":
        written = written._replace(update=native_update(written))
    carry = _Carry(sae, initial)
    for start in range(0, written.key.shape[1], CHUNK):
        yield carry.advance(written.tokens(start, start + CHUNK))


class _Carry:
    """What one chunk hands to the next: pre-activations without bias (scan) or states (dense forms)."""

    def __init__(self, sae: SAE, initial: Tensor | None) -> None:
        self.sae, self.initial = sae, initial
        self.p: Tensor | None = None

    def advance(self, part: Written) -> Tensor:
        sae = self.sae
        bilinear = isinstance(sae.config.encoder, Bilinear)
        if sae.config.target != "state":
            if bilinear:
                v, w, rank = flat_factors(sae)
                return _sum_rank((part.key @ v.T) * (part.update @ w.T), rank) + sae.b_enc
            return sae.preactivations(part.key.unsqueeze(3) * part.update.unsqueeze(2))
        if bilinear and part.scalar_decay:
            v, w, rank = flat_factors(sae)
            if self.p is None and self.initial is not None:
                self.p = project(self.initial, v, w)
            p = scan(part.key, part.update, part.log_decay, self.p, v, w)
            self.p = p[:, -1]
            return _sum_rank(p, rank) + sae.b_enc
        states = rebuild_states(part, self.initial)
        self.initial = states[:, -1]
        return sae.preactivations(states)


def _sum_rank(p: Tensor, rank: int) -> Tensor:
    return p if rank == 1 else p.reshape(*p.shape[:-1], rank, -1).sum(-2)
