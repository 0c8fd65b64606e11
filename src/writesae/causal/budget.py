"""How much runs at once: a fixed budget of memory, so that batches are the same on every machine.

Batches change the rounding of a result in its last digits, and so the budget is part of what was measured. What is
really free is only used to refuse.
"""

from __future__ import annotations

from torch import Tensor

from writesae.hosts import Host
from writesae.hosts.fork import NativeRun
from writesae.memory import refuse_unless_free

BUDGET = 1.0
"""Memory of a batch of runs, GiB, where no other is asked for."""

ROWS = 128
"""Most edits a batch: beyond that nothing gets faster."""

PASSAGES = 16
"""Most passages a native run, and the size of a finished piece."""

GENERATIONS = 64
"""Most texts that are generated side by side."""


def rows_at_once(run: NativeRun, copies: int, horizon: int, memory: float | None = None) -> int:
    """How many edits share a batch of forked rows: logits, one layer's rebuilt states, keys and values, and the widest
    block. `memory` is a budget in GiB other than `BUDGET`; raises InputError where the batch does not fit in what is
    free."""
    host = run.host
    states = max(layer.heads * layer.d_k * layer.d_v for i, layer in host.layers.items() if i >= run.layer)
    attention = sum(2 * x[0].numel() for (_, what), x in run.memory.series.items() if what in ("keys", "values"))
    steps = horizon if run.forks else run.tokens.shape[1]
    each = copies * (3 * horizon * host.vocabulary + steps * _widths(host) + 2 * attention) + 3 * states
    return _fitting(host, each, ROWS, memory, f"edits with {copies} runs each")


def passages_at_once(
    host: Host,
    length: int,
    layer: int,
    memory: float | None = None,
    read: int = 1,
    graph: bool = False,
    most: int = PASSAGES,
) -> int:
    """How many passages of `length` tokens share a native run from `layer` up, with all that it records and logits of
    `read` positions (and what a backward pass needs, with `graph`): `most` at most. `memory` and errors as for
    `rows_at_once`."""
    above = [i for i in range(len(host.blocks)) if i >= layer]
    recurrent = [host.layers[i] for i in above if i in host.layers]
    kept = sum(5 * found.heads * (found.d_k + found.d_v) for found in recurrent) + 2 * len(above) * _width(host)
    states = sum(found.heads * found.d_k * found.d_v for found in recurrent)
    each = length * (kept + _widths(host) * (len(above) if graph else 1)) + 2 * states + 3 * read * host.vocabulary
    return _fitting(host, each, most, memory, f"passages of {length} tokens")


def positions_read(keep: int | Tensor, length: int) -> int:
    """Of how many positions `Host.run` makes logits, in a text of so many tokens."""
    return keep.shape[-1] if isinstance(keep, Tensor) else keep or length


def generations_at_once(host: Host, length: int) -> int:
    """How many texts are generated side by side, up to `length` tokens each: states, keys and values, and the logits of
    one token. Errors as for `rows_at_once`."""
    states = sum(found.heads * found.d_k * found.d_v for found in host.layers.values())
    attention = 2 * (len(host.blocks) - len(host.layers)) * length * _width(host)
    each = 2 * states + attention + length * _widths(host) + 3 * host.vocabulary
    return _fitting(host, each, GENERATIONS, None, f"generations of {length} tokens")


def _fitting(host: Host, each: int, most: int, memory: float | None, what: str) -> int:
    """How many things of `each` numbers are within the budget: at least 1."""
    budget = BUDGET if memory is None else memory
    size = max(4, host.dtype.itemsize)  # what is computed beside a host's own layers is float32 or wider
    count = max(1, min(most, int(budget * 2**30 / (size * each))))
    advice = "free some, take shorter passages, or use another device"
    refuse_unless_free(size * each * count, host.device, f"{count} {what}", advice)
    return count


def _width(host: Host) -> int:
    return int(getattr(host.config, "hidden_size", 0))


def _widths(host: Host) -> int:
    """Numbers that one token holds while it passes through one block: the widest of them, several times."""
    inner = max(int(getattr(host.config, name, 0) or 0) for name in ("intermediate_size", "hidden_size"))
    heads = max(layer.heads * (2 * layer.d_k + 2 * layer.d_v) for layer in host.layers.values())
    return 4 * inner + 2 * heads
