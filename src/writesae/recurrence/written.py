"""What one head writes, in the factored form that is stored: `S_t = diag(d_t) S_{t-1} + k_t u_t^T`.

A `Written` is the rank-one part of a stream for one head (MATH.md section 2): enough to rebuild every state
exactly, and about 1/63 of its size at 128 x 128. States are rebuilt here, a chunk at a time, and nowhere stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from writesae.errors import InputError
from writesae.recurrence.decay import log_sums
from writesae.recurrence.stream import Stream
from writesae.recurrence.updates import native_values
from writesae.types import Float


class Written(NamedTuple):
    """The writes of one head over `B` sequences, fp32."""

    key: Float[Tensor, "B T K"]
    """`k_t`, `[B, T, K]`."""
    update: Float[Tensor, "B T V"]
    """`u_t`, what the token really adds along `k_t` (the delta write is `k_t u_t^T`), `[B, T, V]`."""
    log_decay: Float[Tensor, "B T #K"]
    """`log d_t`, `[B, T, 1]` (scalar decay) or `[B, T, K]` (one a key channel)."""
    erase_gate: Float[Tensor, "B T 1"] | None = None
    """Strength of the erase along the key, `[B, T, 1]`; None where nothing is erased."""

    @property
    def scalar_decay(self) -> bool:
        """Whether one number forgets all channels alike."""
        return self.log_decay.shape[-1] == 1

    def tokens(self, start: int, stop: int) -> Written:
        """The tokens `start <= t < stop` of every sequence."""
        return Written(*(None if x is None else x[:, start:stop] for x in self))  # type: ignore[arg-type]

    def to(self, device: torch.device | str) -> Written:
        """The same on another device."""
        return Written(*(None if x is None else x.to(device) for x in self))  # type: ignore[arg-type]


def _initial(written: Written, initial: Float[Tensor, "B K V"] | None) -> Float[Tensor, "B K V"]:
    if initial is not None:
        return initial
    batch, _, d_k = written.key.shape
    return written.key.new_zeros(batch, d_k, written.update.shape[-1])


@torch.no_grad()
def rebuild_states(
    written: Written, initial: Float[Tensor, "B K V"] | None = None, out: Float[Tensor, "B T K V"] | None = None
) -> Float[Tensor, "B T K V"]:
    """The states after each token of a chunk, `[B, T, K, V]`, in place in `out` where given.

    `initial` (`[B, K, V]`, zero if absent) is the state before the first token.
    """
    if out is None:
        out = written.key.new_empty(*written.key.shape, written.update.shape[-1])
    torch.mul(written.key.unsqueeze(3), written.update.unsqueeze(2), out=out)
    decay = written.log_decay.exp().unsqueeze(-1)
    state = initial
    for here, kept in zip(out.unbind(1), decay.unbind(1), strict=True):
        if state is not None:
            here.addcmul_(kept, state)
        state = here
    return out


@torch.no_grad()
def states_before(
    written: Written, positions: Sequence[int], initial: Float[Tensor, "B K V"] | None = None
) -> Float[Tensor, "B n K V"]:
    """The state before each of the tokens `positions` (rising), `[B, len(positions), K, V]`.

    `initial` (zero if absent) is the state before the first token. One matrix product between two positions, in
    which only products of decays <= 1 are formed, so any decay is safe.
    """
    state, states, done = _initial(written, initial), [], 0
    for position in positions:
        if position > done:
            part = written.tokens(done, position)
            since, like = log_sums(part.log_decay, 1)[1], part.key.dtype
            kept = part.key * (since[:, -1:] - since).to(like).exp()
            state = torch.baddbmm(since[:, -1].to(like).exp().unsqueeze(-1) * state, kept.transpose(1, 2), part.update)
            done = position
        states.append(state)
    return torch.stack(states, 1)


def native_update(written: Written, initial: Float[Tensor, "B K V"] | None = None) -> Float[Tensor, "B T V"]:
    """The native write values (`b v`, `[B, T, V]`), recovered from the delta values.

    `b_t v_t = u_t + gate_t S_{t-1}^T f_t` with `f = k` under a scalar decay and `f = d * k` under a vector decay
    (MATH.md section 1). `written` begins at the sequence's first token, or at the state `initial` (`[B, K, V]`).
    Raises InputError if it is empty.
    """
    if written.key.shape[1] == 0:
        raise InputError("native write values were asked for 0 tokens; at least 1 is needed")
    if written.erase_gate is None:
        return written.update
    read = written.key if written.scalar_decay else written.log_decay.exp() * written.key
    one = [x.unsqueeze(2) for x in (written.key, written.update, written.log_decay, read, written.erase_gate)]
    stream = Stream(query=one[0], key=one[0], value=one[1], log_decay=one[2], erase_read=one[3], erase_gate=one[4])
    return native_values(stream, one[1], None if initial is None else initial.unsqueeze(1)).squeeze(2)
