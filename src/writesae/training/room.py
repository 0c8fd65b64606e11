"""How much memory runs will take, told before any of it is taken."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

from writesae.devices import choose_device
from writesae.memory import refuse_unless_free
from writesae.sae.config import BatchTopK, Bilinear, Factored, TopK
from writesae.sae.sparse_loss import BLOCK_NUMBERS
from writesae.store import StreamStore
from writesae.training.chunks import chunk_length
from writesae.training.config import TrainConfig
from writesae.training.data import numbers_a_sequence, pool_size
from writesae.training.sequences import head_shape

FLOAT = 4
GIB = 2**30


class Room(NamedTuple):
    """Bytes of one run at its largest, each from below: what surely is taken."""

    dictionary: float
    """Parameters, their gradients and Adam's two moments."""
    step: float
    """Pre-activations and what comes of them."""
    data: float
    """Writes and chunk-start states."""


def room(store: StreamStore, config: TrainConfig) -> Room:
    """What a run takes. Raises InputError for a site that the store does not hold, ConfigError for no dictionary."""
    sae = config.sae(*head_shape(store, config.site))
    features, rank = sae.features, sae.encoder.rank if isinstance(sae.encoder, Bilinear) else 1
    length = chunk_length(config, sae.d_k, sae.d_v, store.length) if config.target == "state" else 1
    tokens = max(config.batch, length)
    if isinstance(config.sparsity, TopK | BatchTopK):
        block = min(tokens, max(length, BLOCK_NUMBERS // max(features, 1)))
        step = (3 * rank + 2) * block * features + (
            2 * tokens * features if isinstance(config.sparsity, BatchTopK) else 0
        )
    else:
        gram = isinstance(sae.encoder, Bilinear) and isinstance(sae.decoder, Factored)
        step = 8 * tokens * features + (10 * features**2 if gram else 0)
    sequences = store.sequences - max(1, round(config.validation * store.sequences))
    held = pool_size(store, config, sequences)
    return Room(4 * FLOAT * sae.numbers, FLOAT * step, FLOAT * held * numbers_a_sequence(store, config))


def at_once(store: StreamStore, configs: Sequence[TrainConfig], most: int) -> int:
    """How many of these runs, at most `most`, are at work at one time: their data together keep within the largest
    `memory` that one of them asks for. Raises InputError where so many do not fit in what is free."""
    rooms = sorted(((config, room(store, config)) for config in configs), key=lambda one: -sum(one[1]))
    held = accumulate(sorted((one.data for _, one in rooms), reverse=True)[:most])
    count = max(1, sum(data <= GIB * max(config.memory for config in configs) for data in held))
    config, largest = rooms[0]
    parts = ", ".join(f"{name} {size / GIB:.2f} GiB" for name, size in largest._asdict().items())
    beside = f" and {count - 1} run(s) beside it" if count > 1 else ""
    refuse_unless_free(
        sum(sum(one) for _, one in rooms[:count]),
        choose_device(config.device),
        f"{config.features:,} features at {config.site} ({parts}){beside}",
        "take fewer features, a smaller batch, a smaller `memory` for data, or fewer runs at a time",
    )
    return count
