"""Whole sequences of a head's writes, read from a store: what training begins with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from writesae.errors import DataError, InputError
from writesae.recurrence.written import Written
from writesae.store import StreamStore
from writesae.training.config import TrainConfig
from writesae.types import Site

MOST = 64
"""Most sequences that are read at once."""
GAP = 8
"""Unwanted sequences between two wanted ones that are read along: a store's chunks hold several."""


class Split(NamedTuple):
    """Sequence numbers on each side of the validation split."""

    train: list[int]
    """Trained on, rising."""
    held_out: list[int]
    """Held out, rising."""


def head_shape(store: StreamStore, site: Site) -> tuple[int, int]:
    """`(d_k, d_v)` of a site; raises InputError if the store does not hold it."""
    layer = store.layers.get(site.layer)
    if layer is None or not 0 <= site.head < layer.heads:
        held = ", ".join(f"L{i} ({x.heads} heads)" for i, x in sorted(store.layers.items()))
        raise InputError(f"the store holds no site {site}; it holds {held}")
    return layer.d_k, layer.d_v


def split_sequences(store: StreamStore, config: TrainConfig) -> Split:
    """Hold out a random share of the sequences; raises InputError if there are fewer than 2."""
    if store.sequences < 2:
        raise InputError(f"training needs at least 2 sequences (one is held out); the store has {store.sequences}")
    order = torch.randperm(store.sequences, generator=torch.Generator().manual_seed(config.seed))
    held = min(max(1, round(config.validation * store.sequences)), store.sequences - 1)
    return Split(sorted(order[held:].tolist()), sorted(order[:held].tolist()))


@dataclass(frozen=True)
class Sequences:
    """The writes of `S` whole sequences of `T` tokens, each from the empty state on."""

    written: Written
    """`[S, T, ..]`; `update` is the native value for the target `write-value`. Where `pairs`, `[S, 2 T, ..]`."""
    padding: Tensor
    """Tokens at each sequence's start where nothing is written, `[S]` on the CPU: never trained or measured on."""
    pairs: bool = False
    """Whether a token writes two matrices, the erased one first: the state is that after the second."""

    @property
    def length(self) -> int:
        """Tokens a sequence."""
        return self.written.key.shape[1] // (2 if self.pairs else 1)

    def pick(self, places: list[int]) -> Sequences:
        """Some of the sequences, by place."""
        some = (None if x is None else x[places] for x in self.written)
        return Sequences(Written(*some), self.padding[places], self.pairs)  # type: ignore[arg-type]

    def to(self, device: torch.device) -> Sequences:
        """The same on another device."""
        return Sequences(self.written.to(device), self.padding, self.pairs)

    def unpadded(self) -> Iterator[Written]:
        """Sequences of one padding at a time, rising, without it. Nothing is copied where none is padded."""
        per_token = 2 if self.pairs else 1
        for padding in sorted(set(self.padding.tolist())):
            places = (self.padding == padding).nonzero().squeeze(1).tolist()
            some = self.written if len(places) == len(self.padding) else self.pick(places).written
            yield some.tokens(per_token * padding, some.key.shape[1])


def read_sequences(store: StreamStore, config: TrainConfig, numbers: Sequence[int]) -> Sequences:
    """These sequences (rising), read in groups.

    Raises InputError for a target that the family does not have, DataError naming site, sequence and token where a
    number is not finite.
    """
    site, target = config.site, config.target
    pairs = check_target(store, config)
    parts: list[Written] = []
    for wanted in _groups(numbers):
        start, stop = wanted[0], wanted[-1] + 1
        if target == "write-value":
            keys = store.keys(site, start, stop)
            part = Written(keys, store.native(site, start, stop), keys.new_zeros(*keys.shape[:2], 1))
        else:
            part = store.pairs(site, start, stop) if pairs else store.read(site, start, stop)
        rows = [number - start for number in wanted]
        whole = len(rows) == stop - start
        part = Written(*(x if whole else x[rows] for x in (part.key, part.update, part.log_decay)))
        _check_finite(part, site, wanted, 2 if pairs else 1)
        parts.append(part)
    joined = Written(*(torch.cat(x) if len(x) > 1 else x[0] for x in zip(*(p[:3] for p in parts), strict=True)))
    return Sequences(joined, torch.from_numpy(store.padding()[list(numbers)]), pairs)


def check_target(store: StreamStore, config: TrainConfig) -> bool:
    """Whether the target is the state of a family with two writes a token.

    Raises InputError for `write-delta` on such a family: what a token adds is not one rank-1 matrix there.
    """
    layer = store.layers[config.site.layer]
    if layer.erase == "own" and config.target == "write-delta":
        raise InputError(
            f"{config.site} ({layer.family}) adds two rank-1 matrices a token, so it has no delta write; "
            "its targets are `state` and `write-value`"
        )
    return layer.erase == "own" and config.target == "state"


def _groups(numbers: Sequence[int]) -> Iterator[list[int]]:
    """Numbers that are read together: near each other and not too many."""
    group: list[int] = []
    for number in numbers:
        if group and (number - group[-1] > GAP or number - group[0] >= MOST):
            yield group
            group = []
        group.append(number)
    if group:
        yield group


def _check_finite(part: Written, site: Site, numbers: list[int], per_token: int) -> None:
    for name, values in zip(("key", "update", "log_decay"), part[:3], strict=True):
        assert values is not None
        bad = values.isnan() | values.isposinf() if name == "log_decay" else ~values.isfinite()
        if bad.any():
            row, place, channel = bad.nonzero()[0].tolist()
            raise DataError(
                f"training data of {site}, sequence {numbers[row]}, token {place // per_token}: "
                f"{name} is {float(values[row, place, channel])}; "
                "run `writesae verify` on the store, or capture it again"
            )
