"""Pre-activations of whole sequences, a chunk at a time, by the cheapest exact form for the encoder and the target."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from writesae.recurrence.scan import project, scan
from writesae.recurrence.written import Written, native_update, rebuild_states
from writesae.sae.config import Bilinear
from writesae.types import Float

if TYPE_CHECKING:
    from writesae.sae.model import SAE

CHUNK = 64


@torch.no_grad()
def preactivation_chunks(sae: SAE, written: Written, initial: Float[Tensor, "B K V"] | None) -> Iterator[Tensor]:
    """`p` of consecutive chunks, each `[B, C, N]`, from the state `initial` (`[B, K, V]`, None: zero) on."""
    target, bilinear, start = sae.config.target, isinstance(sae.config.encoder, Bilinear), None
    if target == "write-value":
        written = written._replace(update=native_update(written, initial))
    if bilinear:
        v, w = (x.transpose(0, 1).flatten(0, 1) for x in sae.encoder_factors)  # the rank outermost
        if target == "state" and written.scalar_decay and initial is not None:
            start = project(initial, v, w)
    for first in range(0, written.key.shape[1], CHUNK):
        part = written.tokens(first, first + CHUNK)
        if bilinear and target != "state":
            p = (part.key @ v.T) * (part.update @ w.T)
        elif bilinear and part.scalar_decay:
            p = scan(part.key, part.update, part.log_decay, start, v, w)
            start = p[:, -1]
        else:
            matrices = part.key.unsqueeze(3) * part.update.unsqueeze(2)
            if target == "state":
                matrices = rebuild_states(part, initial, matrices)
                initial = matrices[:, -1]
            yield sae.preactivations(matrices)
            continue
        yield p.view(*p.shape[:2], -1, sae.config.features).sum(2) + sae.b_enc
