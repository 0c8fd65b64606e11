"""Native runs of passages, as many at a time as the budget holds; where they are shared, each is made once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import fields

from torch import Tensor

from writesae.causal.budget import BUDGET, passages_at_once
from writesae.hosts import Host
from writesae.hosts.fork import NativeRun, native_run

_Runs = dict[tuple[int, int, bytes], NativeRun]
_shared: ContextVar[_Runs | None] = ContextVar("shared native runs", default=None)


@contextmanager
def shared_runs() -> Iterator[None]:
    """Inside, the same passages are run through the same host once: its weights must not change meanwhile. The newest
    runs are held, `BUDGET` GiB of them."""
    token = None if _shared.get() is not None else _shared.set({})
    try:
        yield
    finally:
        if token is not None:
            _shared.reset(token)


def run_natively(host: Host, tokens: Tensor, layer: int) -> NativeRun:
    """`native_run`, or the shared one of these passages `[B, T]`."""
    held = _shared.get()
    if held is None:
        return native_run(host, tokens, layer)
    key = (id(host), layer, repr(tuple(tokens.shape)).encode() + tokens.cpu().numpy().tobytes())
    run = held.pop(key, None) or native_run(host, tokens, layer)
    held[key] = run
    while len(held) > 1 and sum(map(_bytes, held.values())) > BUDGET * 2**30:
        del held[next(iter(held))]
    return run


def _bytes(run: NativeRun) -> int:
    recorded = [run.left, *run.entered.values(), *run.memory.series.values(), *(x for _, x in run.checkpoints.values())]
    for stream in run.streams.values():
        recorded += [x for part in fields(stream) if (x := getattr(stream, part.name)) is not None]
    return sum(x.numel() * x.itemsize for x in recorded)


def native_runs(host: Host, tokens: Tensor, layer: int, memory: float | None = None) -> Iterator[tuple[int, NativeRun]]:
    """Passages `[B, T]` run as many at a time as the budget holds: (number of the first one, their run)."""
    at_once = passages_at_once(host, tokens.shape[1], layer, memory)
    for begin in range(0, len(tokens), at_once):
        yield begin, run_natively(host, tokens[begin : begin + at_once], layer)
