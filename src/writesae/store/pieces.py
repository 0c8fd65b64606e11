"""From a recorded stream to the arrays that are stored, with every value checked."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from writesae.errors import DataError, HostError
from writesae.recurrence import Stream, delta_values, finite
from writesae.store.erased import erased_values
from writesae.store.layout import Precision, StoredLayer, layer_arrays

ROUNDING = 2.0**-10
"""Relative error of a head at which float16 is refused: rounding alone stays below 2^-11, only underflow passes it."""


def layer_of(stream: Stream, family: str) -> StoredLayer:
    """The layer that a stream belongs to, as it will be stored."""
    _, _, heads, d_k = stream.key.shape
    erase = "none" if stream.erase_read is None else "key" if stream.rank_one else "own"
    return StoredLayer(heads, d_k, stream.value.shape[-1], family, not stream.scalar_decay, erase)  # type: ignore[arg-type]


def stored_arrays(
    stream: Stream, layer: StoredLayer, dtype: Precision, where: str, first: int
) -> dict[str, NDArray[np.generic]]:
    """The arrays of one layer for one batch, `[B, T, H, width]` each, by name.

    `update` is `u_t` of the delta-value form (MATH.md section 1); a family with an erase direction of its own
    keeps its value there and its erased vectors beside it. `where` names host and layer and `first` is the first
    sequence, for messages. Raises DataError with layer, sequence and position for a value that is not finite,
    or that float16 cannot hold.
    """
    values: dict[str, Tensor] = {"key": stream.key, "log_decay": stream.log_decay}
    for name, tensor in (*values.items(), ("value", stream.value), ("erase gate", stream.erase_gate)):
        if tensor is not None:
            _check_finite(tensor, name, where, first)
    if stream.rank_one:
        values["update"] = delta_values(stream)[0]
    else:
        values["update"] = stream.value
    if stream.erase_gate is not None:
        _check_erase_reads_key(stream, where)
        values["erase_gate"] = stream.erase_gate
    if stream.erase_write is not None:
        values["erase_write"], values["erased"] = stream.erase_write, erased_values(stream)
    arrays = {}
    for spec in layer_arrays(layer, dtype):
        exact = values[spec.name]
        _check_finite(exact, spec.name, where, first)
        if spec.dtype == "float16":
            arrays[spec.name] = _half(exact, spec.name, where, first).cpu().numpy()
        else:
            arrays[spec.name] = exact.float().cpu().numpy()
    return arrays


def check_padding(stream: Stream, mask: Tensor, where: str, first: int) -> None:
    """Raise HostError where a host writes something at a position that the mask (`[B, T]`) hides."""
    hidden = (mask == 0).to(stream.key.device)
    wrote = stream.key.abs().amax(-1) * stream.value.abs().amax(-1) * hidden.unsqueeze(-1)
    if wrote.any():
        raise HostError(
            f"{where} writes into its state at padding ({_place(wrote.unsqueeze(-1) > 0, first)}), so padded "
            "sequences cannot be captured; use separate or packed boundaries"
        )


def _place(bad: Tensor, first: int) -> str:
    sequence, position, head, _ = torch.nonzero(bad)[0].tolist()
    return f"sequence {first + sequence}, position {position}, head {head}"


def _check_finite(x: Tensor, name: str, where: str, first: int) -> None:
    if not finite(x):
        place = _place(~x.isfinite(), first)
        raise DataError(
            f"{where} produced a {name} that is NaN or infinite at {place}: the capture stopped before this "
            "batch; check the weights, or run the host in float32"
        )


def _half(exact: Tensor, name: str, where: str, first: int) -> Tensor:
    half = exact.half()
    overflow = half.isinf()
    if overflow.any():
        raise DataError(
            f"{where}: {name} reaches {exact.abs().max():.3g} at {_place(overflow, first)}, beyond float16 "
            "(65,504); capture with dtype float32"
        )
    lost = (half.float() - exact).square().sum((0, 1, 3)) / exact.square().sum((0, 1, 3)).clamp(min=1e-38)
    worst = int(lost.argmax())
    if lost[worst] > ROUNDING**2:
        raise DataError(
            f"{where}: {name} of head {worst} is so small (at most {exact[:, :, worst].abs().max():.3g}) that float16 "
            f"loses {float(lost[worst]) ** 0.5:.2g} of it from sequence {first} on; capture with dtype float32"
        )
    return half


def _check_erase_reads_key(stream: Stream, where: str) -> None:
    """The store keeps no erase direction for the delta family: it must be `k` (scalar) or `d * k` (vector decay)."""
    assert stream.erase_read is not None
    expected = stream.key if stream.scalar_decay else stream.log_decay.exp() * stream.key
    if not torch.allclose(stream.erase_read, expected, rtol=1e-5, atol=1e-7):
        raise HostError(
            f"{where} erases along something other than its key, which a stream with an erase gate cannot hold; "
            "the host's adapter must give `erase_write` instead"
        )
