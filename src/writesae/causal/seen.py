"""What an edit can see: the tokens of a pass, and what happens at one of them in one head of the edited run."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from writesae.causal.writes import no_delta_write, raised
from writesae.sae import SAE, Codes
from writesae.types import NativeWrite, ReadAs, Reading


@dataclass(frozen=True)
class Tokens:
    """The tokens of one forward pass, which may continue a cache; `B` rows."""

    ids: Tensor
    """`[B, T]`."""
    position: Tensor
    """`[B, T]`, counted from each row's first real token; -1 in left padding."""
    prompt: Tensor
    """Length of each row's prompt, `[B]`."""
    row: Tensor
    """Which row of what was given each row continues, `[B]`: several beams or samples continue one."""

    def to(self, device: torch.device) -> Tokens:
        """The same there."""
        return Tokens(*(x.to(device) for x in (self.ids, self.position, self.prompt, self.row)))


@dataclass(frozen=True)
class Seen:
    """One token of one head; `B` rows. States and writes are those of the run as edited so far."""

    key: Tensor
    """`k_t`, `[B, K]`."""
    value: Tensor
    """Value side of the native write in its value form, `[B, V]`."""
    update: Tensor | None
    """`u_t`, `[B, V]`: what the token adds along `k_t`, given the edits before it; None for RWKV-7."""
    state: Tensor
    """The state after the token and after the edits made to it so far, `[B, K, V]`."""
    token: Tensor
    """Token ids, `[B]`; with `position`, `prompt` and `row`, `[B]` each, as in `Tokens`."""
    position: Tensor
    prompt: Tensor
    row: Tensor

    def side(self, native_write: NativeWrite) -> Tensor:
        """Value side of the native write, `[B, V]`. Raises InputError for a delta write that is not rank 1."""
        if native_write == "value":
            return self.value
        if self.update is None:
            raise no_delta_write()
        return self.update

    def write(self, native_write: NativeWrite) -> Tensor:
        """The native write, `[B, K, V]`."""
        return self.key[:, :, None] * self.side(native_write)[:, None, :]

    def write_norm(self, native_write: NativeWrite) -> Tensor:
        """Frobenius norm of the native write, `[B]`."""
        norm: Tensor = self.key.norm(dim=-1) * self.side(native_write).norm(dim=-1)
        return norm

    def codes(self, sae: SAE) -> Codes:
        """What a dictionary of this head reads here, `[B, J]`: in the state or in the write, as it was trained."""
        modelled: NativeWrite = "delta" if sae.config.target == "write-delta" else "value"
        codes: Codes = sae.encode(self.state if sae.config.target == "state" else self.write(modelled))
        return codes

    def amounts(self, sae: SAE, reading: ReadAs, native_write: NativeWrite) -> Tensor:
        """Every feature's coefficient, `[B, N]`; by increment, of a dictionary of states, how much the token's write in
        this form raises it."""
        if reading == "increment" and sae.config.target == "state":
            return sae.increments(self.key, self.side(native_write))
        dense: Tensor = self.codes(sae).dense(sae.config.features)
        return dense

    def read(self, sae: SAE, reading: ReadAs, native_write: NativeWrite) -> Codes:
        """`codes`; by increment, of a dictionary of states, `writes.raised` by the token's write in this form."""
        codes = self.codes(sae)
        increment = reading == "increment" and sae.config.target == "state"
        return raised(sae, self.key, self.side(native_write), codes) if increment else codes

    def coefficients(
        self, sae: SAE, features: tuple[int, ...], reading: Reading = "state", native_write: NativeWrite = "delta"
    ) -> Tensor:
        """Coefficients of some features, `[B, len(features)]`."""
        dense: Tensor = self.read(sae, reading, native_write).dense(sae.config.features)
        return dense[:, list(features)]
