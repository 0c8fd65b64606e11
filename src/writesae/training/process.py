"""What a run asks of the process around it: threads, the precision of products, and a say in Ctrl-C and SIGTERM."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import torch

from writesae.signals import heed_sigterm
from writesae.training.config import Precision


@contextmanager
def cpu_threads(count: int) -> Iterator[None]:
    """Torch's CPU threads for a while; 0 leaves them as they are."""
    before = torch.get_num_threads()
    if count > 0:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def products(precision: Precision) -> Iterator[bool]:
    """Let CUDA devices use TF32 unless all is `float32`; yields whether features are picked in bfloat16."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest" if precision == "float32" else "high")
    try:
        yield precision == "bfloat16"
    finally:
        torch.set_float32_matmul_precision(before)


@contextmanager
def interrupts() -> Iterator[threading.Event]:
    """Turn the first Ctrl-C, or SIGTERM of a machine that is taken away, into an event; a second one stops at once.

    Only the main thread can do this.
    """
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if event.is_set():
            raise KeyboardInterrupt
        event.set()

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, handle)
    heed_sigterm()
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
