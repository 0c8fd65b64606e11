"""One head's native writes in a native run, in the form that dictionaries read."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from writesae.errors import InputError
from writesae.hosts.fork import NativeRun
from writesae.recurrence import Stream, delta_values
from writesae.recurrence.written import Written
from writesae.types import NativeWrite as NativeWrite


class HeadWrites(NamedTuple):
    """The writes of one head over all passages of a native run."""

    written: Written
    """`[B, T, d]`."""
    value: Tensor
    """Value side of the native write in its value form, `b v`, `[B, T, V]`."""

    rank_one: bool = True
    """Whether a token adds one rank-1 matrix. If not (RWKV-7), `written` holds the native writes alone, which is all
    that a dictionary of native writes reads."""

    def side(self, form: NativeWrite) -> Tensor:
        """Value side of the native write in the form asked for; its key side is `written.key`.

        Raises InputError for the delta form of a head that adds two rank-1 matrices a token.
        """
        if form == "delta" and not self.rank_one:
            raise InputError(
                'a head of RWKV-7 adds two rank-1 matrices a token, so it has no delta write: use native_write="value"'
            )
        return self.written.update if form == "delta" else self.value


def head_writes(run: NativeRun, head: int, layer: int | None = None) -> HeadWrites:
    """Read one head's writes off a native run, at its lowest layer if none is named."""
    return stream_writes(run.streams[run.layer if layer is None else layer].heads(head))


def stream_writes(stream: Stream) -> HeadWrites:
    """The writes of a stream of one head, `[B, T, 1, d]`, from the texts' first tokens on."""
    value = stream.value[:, :, 0]
    update = delta_values(stream)[0][:, :, 0] if stream.rank_one else value
    gate = None if stream.erase_gate is None else stream.erase_gate[:, :, 0]
    return HeadWrites(Written(stream.key[:, :, 0], update, stream.log_decay[:, :, 0], gate), value, stream.rank_one)
