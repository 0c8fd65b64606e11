"""What an edit can see at one token of one head, for all rows of a batch."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from writesae.errors import InputError
from writesae.sae import SAE, Codes
from writesae.types import NativeWrite


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
    """Token ids, `[B]`."""
    position: Tensor
    """`[B]`, counted from each row's first real token; -1 in left padding."""
    prompt: Tensor
    """Length of each row's prompt, `[B]`."""
    row: Tensor
    """Which row of the batch that was given each row continues, `[B]`: several beams or samples continue one."""

    def side(self, form: NativeWrite) -> Tensor:
        """Value side of the native write, `[B, V]`. Raises InputError for a delta write that is not rank 1."""
        if form == "value":
            return self.value
        if self.update is None:
            raise InputError(
                'this head adds two rank-1 pieces a token (RWKV-7), so its delta write is no k u^T: use form="value"'
            )
        return self.update

    def write(self, form: NativeWrite) -> Tensor:
        """The native write, `[B, K, V]`."""
        return self.key[:, :, None] * self.side(form)[:, None, :]

    def write_norm(self, form: NativeWrite) -> Tensor:
        """Frobenius norm of the native write, `[B]`."""
        norm: Tensor = self.key.norm(dim=-1) * self.side(form).norm(dim=-1)
        return norm

    def codes(self, sae: SAE) -> Codes:
        """What a dictionary of this head reads here, `[B, J]`: in the state or in the write, as it was trained."""
        form: NativeWrite = "delta" if sae.config.target == "write-delta" else "value"
        codes: Codes = sae.encode(self.state if sae.config.target == "state" else self.write(form))
        return codes

    def coefficients(self, sae: SAE, features: tuple[int, ...]) -> Tensor:
        """Coefficients of some features, `[B, len(features)]`."""
        dense: Tensor = self.codes(sae).dense(sae.config.features)
        return dense[:, list(features)]
