"""SIGTERM, which a scheduler sends before it takes a machine away, does what Ctrl-C does: work is saved and stops.

Whatever handles SIGINT at that moment is called, so a part that answers Ctrl-C need not know of SIGTERM.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType

_last = signal.SIGINT


def heed_sigterm() -> None:
    """Do so from now on, unless the program around has a handler of its own. Only the main thread can."""
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _as_interrupt)


def exit_code() -> int:
    """Of a program that was interrupted: 130 after Ctrl-C, 143 after SIGTERM."""
    return 128 + _last


def _as_interrupt(number: int, frame: FrameType | None) -> None:
    global _last
    _last = signal.SIGTERM
    handler = signal.getsignal(signal.SIGINT)
    if not callable(handler):
        raise KeyboardInterrupt
    handler(number, frame)
