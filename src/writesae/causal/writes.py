"""One head's native writes in a native run, in the form that dictionaries read."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from writesae.errors import InputError
from writesae.hosts.fork import NativeRun
from writesae.recurrence import Stream, delta_values
from writesae.recurrence.written import Written
from writesae.sae import SAE, Codes
from writesae.store.erased import erased_values
from writesae.types import NativeWrite, Reading


def no_delta_write() -> InputError:
    """What to raise where a delta write was asked for of a head whose erase has a direction of its own."""
    return InputError(
        "a head of RWKV-7 or Gated DeltaNet 2 adds two rank-1 matrices a token, so it has no delta write: use "
        'native_write="value"'
    )


class TopCode(NamedTuple):
    """The strongest feature at each of some places; coefficient 0 where none fires."""

    feature: Tensor
    value: Tensor


def raised(sae: SAE, key: Tensor, value: Tensor, codes: Codes) -> Codes:
    """The features of a dictionary of states that writes `[n, K]`, `[n, V]` raise most, by how much, largest first: as
    many as are active in these codes `[n, J]` of their places, one at least, `[n, J]`."""
    amount, feature = sae.increments(key, value).topk(min(codes.value.shape[-1], sae.config.features), -1)
    active = (codes.value > 0).sum(-1, keepdim=True).clamp_min(1)
    among = torch.arange(amount.shape[-1], device=amount.device) < active
    return Codes(feature, torch.where(among & (amount > 0), amount, 0))


class HeadWrites(NamedTuple):
    """The writes of one head over all passages of a native run."""

    written: Written
    """`[B, T, d]`."""
    value: Tensor
    """Value side of the native write in its value form, `b v`, `[B, T, V]`."""

    pairs: Written | None = None
    """Where a token adds two rank-1 matrices (RWKV-7): minus what is erased and then the native write, `[B, 2 T, d]`;
    the token's state is that after the second. `written` then holds the native writes alone. Else None."""

    def encode(self, sae: SAE) -> Codes:
        """Codes `[B, T, J]` of what the dictionary models. Raises InputError for delta writes where there are none."""
        if self.pairs is None or sae.config.target == "write-value":
            return sae.encode_written(self.written)
        if sae.config.target == "write-delta":
            raise no_delta_write()
        codes = sae.encode_written(self.pairs)
        return Codes(codes.index[:, 1::2], codes.value[:, 1::2])

    def at(self, sae: SAE, passage: Tensor, position: Tensor) -> Codes:
        """Codes at some places, `[n, J]`. Raises InputError as `encode` does."""
        if sae.config.target == "write-delta" and self.pairs is None:  # read off the token's own write alone
            key, update, decay = (x[passage, position].unsqueeze(0) for x in self.written[:3])
            return Codes(*(x[0] for x in sae.encode_written(Written(key, update, decay))))
        return Codes(*(x[passage, position] for x in self.encode(sae)))

    def raised(self, sae: SAE, native_write: NativeWrite, passage: Tensor, position: Tensor, codes: Codes) -> Codes:
        """`raised` of the writes at some places `[n]`, which have these codes `[n, J]`."""
        return raised(sae, self.written.key[passage, position], self.side(native_write)[passage, position], codes)

    def read(self, sae: SAE, reading: Reading, native_write: NativeWrite) -> Codes:
        """Codes `[B, T, J]`; by increment, of a dictionary of states, those of `raised` by this form of the write."""
        codes = self.encode(sae)
        if reading == "state" or sae.config.target != "state":
            return codes
        sides = zip(self.written.key, self.side(native_write), *codes, strict=True)
        most = [raised(sae, key, value, Codes(*own)) for key, value, *own in sides]  # one passage's features at once
        return Codes(*(torch.stack(parts) for parts in zip(*most, strict=True)))

    def top(self, sae: SAE, passage: Tensor, position: Tensor) -> TopCode:
        """The strongest feature at some places, `[n]` each. Raises InputError as `encode` does."""
        index, value = self.at(sae, passage, position)
        largest, slot = value.max(-1, keepdim=True)
        return TopCode(index.gather(-1, slot)[:, 0], largest[:, 0])

    def side(self, native_write: NativeWrite) -> Tensor:
        """Value side of the native write; its key side is `written.key`. Raises InputError for the delta write of a
        head that adds two rank-1 matrices a token."""
        if native_write == "delta" and self.pairs is not None:
            raise no_delta_write()
        return self.written.update if native_write == "delta" else self.value


def head_writes(run: NativeRun, head: int, layer: int | None = None) -> HeadWrites:
    """Read one head's writes off a native run, at its lowest layer if none is named."""
    return stream_writes(run.streams[run.layer if layer is None else layer].heads(head))


def stream_writes(stream: Stream) -> HeadWrites:
    """The writes of a stream of one head, `[B, T, 1, d]`, from the texts' first tokens on."""
    value = stream.value[:, :, 0]
    if stream.erase_write is not None:
        native = Written(stream.key[:, :, 0], value, stream.log_decay[:, :, 0])
        erased, along = erased_values(stream)[:, :, 0], stream.erase_write[:, :, 0]
        none = torch.zeros_like(native.log_decay)
        two = ((-along, native.key), (erased, value), (native.log_decay, none))
        return HeadWrites(native, value, Written(*(torch.stack(sides, 2).flatten(1, 2) for sides in two)))
    update = delta_values(stream)[0][:, :, 0]
    gate = None if stream.erase_gate is None else stream.erase_gate[:, :, 0]
    return HeadWrites(Written(stream.key[:, :, 0], update, stream.log_decay[:, :, 0], gate), value)
