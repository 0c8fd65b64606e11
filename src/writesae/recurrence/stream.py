"""The factored stream: all that one recurrent layer reads, writes, forgets and erases, token by token."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

from torch import Tensor

from writesae.types import Float


@dataclass(frozen=True)
class Stream:
    """The effective inputs of one layer's recurrence (normalised, scaled, gated, heads repeated).

    All tensors are `[B, T, H, d]`; what `map` cuts out of them may have other axes in the place of the first three.
    `d_t = exp(log_decay_t)`; the erase term is `e_t (f_t^T S_{t-1})` with `f = erase_read` and `e = erase_write`. Where
    the erase runs along the key (the delta family), `erase_gate` holds its strength, `e_t = erase_gate_t k_t`, and
    `erase_write` is None: the token then adds exactly one rank-1 matrix to the decayed state, `k_t u_t^T` (the delta
    write).
    """

    query: Float[Tensor, "*BTH K"]
    """`q_t`, `[B, T, H, K]`."""
    key: Float[Tensor, "*BTH K"]
    """Write key `k_t`, `[B, T, H, K]`."""
    value: Float[Tensor, "*BTH V"]
    """Native write value (`b_t v_t` in the delta family, `dt_t x_t` in Mamba-2), `[B, T, H, V]`."""
    log_decay: Float[Tensor, "*BTH #K"]
    """`log d_t`, `[B, T, H, 1]` (scalar decay) or `[B, T, H, K]` (one a key channel)."""
    erase_read: Float[Tensor, "*BTH K"] | None = None
    """`f_t`, `[B, T, H, K]`; None where nothing is erased."""
    erase_gate: Float[Tensor, "*BTH 1"] | None = None
    """`[B, T, H, 1]` with `e_t = erase_gate_t k_t`; None unless the erase runs along the key."""
    erase_write: Float[Tensor, "*BTH K"] | None = None
    """`e_t`, `[B, T, H, K]`; None unless the erase has a direction of its own (RWKV-7, GDN-2)."""

    def __post_init__(self) -> None:
        along_key, own = self.erase_gate is not None, self.erase_write is not None
        if (self.erase_read is None) == (along_key or own) or (along_key and own):
            raise ValueError("an erase needs `erase_read` and exactly one of `erase_gate` and `erase_write`")

    @property
    def scalar_decay(self) -> bool:
        """Whether one number a head forgets all channels alike."""
        return self.log_decay.shape[-1] == 1

    @property
    def rank_one(self) -> bool:
        """Whether each token adds one rank-1 matrix `k_t u_t^T` (not RWKV-7 and Gated DeltaNet 2)."""
        return self.erase_write is None

    @property
    def erase(self) -> tuple[Float[Tensor, "*BTH K"], Float[Tensor, "*BTH K"]] | None:
        """`(e, f)`, each `[B, T, H, K]`, or None where nothing is erased."""
        if self.erase_read is None:
            return None
        write = self.erase_write if self.erase_gate is None else self.erase_gate * self.key
        assert write is not None
        return write, self.erase_read

    def map(self, change: Callable[[Tensor], Tensor]) -> Stream:
        """The stream with `change` applied to every tensor: a slice of batch, time or heads, a dtype, a device."""
        present = {f.name: change(x) for f in fields(self) if (x := getattr(self, f.name)) is not None}
        return Stream(**present)

    def heads(self, heads: list[int] | int) -> Stream:
        """Only these heads, in this order (the head axis stays)."""
        index = [heads] if isinstance(heads, int) else heads
        return self.map(lambda x: x[:, :, index])


def finite(x: Tensor) -> bool:
    """Whether no number is NaN or infinite. Their sum tells without a copy; only where it is not finite, or overflows,
    each is looked at."""
    return bool(x.detach().sum().isfinite()) or bool(x.isfinite().all())
