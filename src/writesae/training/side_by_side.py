"""Several runs at a time, each in a process that has no other meanwhile and says what it records; results lie in the
runs' folders. A process whose run is finished takes the next one: to start one costs seconds.

Processes are started without multiprocessing, which would run the caller's script again where that has no `__main__`
guard.
"""

from __future__ import annotations

import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from writesae.errors import WritesaeError
from writesae.store import StreamStore
from writesae.training.config import TrainConfig
from writesae.training.log import StepRecord
from writesae.training.process import interrupts

_CHILD = (
    "import signal; signal.signal(signal.SIGINT, signal.SIG_DFL); "
    "from writesae.training.side_by_side import serve; serve()"
)
Said = StepRecord | WritesaeError | None
"""What a process says: a record, why its run has ended, or None where the run is finished."""
_Heard = queue.SimpleQueue[tuple[int, Said]]


def run_side_by_side(
    store: StreamStore, jobs: Mapping[int, tuple[TrainConfig, Path]], workers: int, hear: Callable[[int, Said], None]
) -> None:
    """Train every job, a configuration and its folder, `workers` at a time; `hear` gets its number and what is said.

    A run that fails, or whose process is killed, says so last, and the others go on. The store is pickled. Raises
    KeyboardInterrupt after an interrupt, when all have saved.
    """
    waiting, running, idle, heard = (
        list(jobs),
        dict[int, subprocess.Popen[bytes]](),
        list[subprocess.Popen[bytes]](),
        _Heard(),
    )
    stopped = False
    with interrupts() as interrupted:
        try:
            while running or (waiting and not stopped):
                while waiting and len(running) < workers and not stopped:
                    number = waiting.pop(0)
                    process = running[number] = idle.pop() if idle else _start()
                    job = pickle.dumps((store, *jobs[number]))
                    threading.Thread(target=_listen, args=(number, process, job, heard), daemon=True).start()
                with suppress(queue.Empty):
                    number, said = heard.get(timeout=0.2)
                    if said is None:
                        idle.append(running.pop(number))
                    elif not isinstance(said, StepRecord):
                        _end(running.pop(number))
                    if isinstance(said, StepRecord | None) or not stopped:
                        hear(number, said)
                if interrupted.is_set() and not stopped:
                    stopped = True
                    for process in running.values():
                        process.send_signal(signal.SIGINT)
        finally:
            for process in idle:
                _end(process)
            for process in running.values():
                process.kill()  # only what is left by a second Ctrl-C, or by an error in `hear`
                _end(process)
    if stopped:
        raise KeyboardInterrupt("the runs stopped and are saved; the same command goes on from there")


def _start() -> subprocess.Popen[bytes]:
    """A process that waits for a run. Ctrl-C in the terminal reaches it through its parent only."""
    path = os.pathsep.join(place for place in sys.path if place)
    return subprocess.Popen(
        [sys.executable, "-c", _CHILD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": path},
        start_new_session=True,
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    """Let a process go that has no run."""
    for pipe in (process.stdin, process.stdout):
        assert pipe is not None
        with suppress(BrokenPipeError):
            pipe.close()
    process.wait()


def _listen(number: int, process: subprocess.Popen[bytes], job: bytes, heard: _Heard) -> None:
    """Hand a process its run and pass on what it says of it."""
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(job)
        process.stdin.flush()
        while isinstance(said := pickle.load(process.stdout), StepRecord):
            heard.put((number, said))
    except (EOFError, BrokenPipeError, pickle.UnpicklingError):  # cut short
        said = _death(process.wait())
    heard.put((number, said))


def _death(code: int) -> WritesaeError:
    how = f"was killed by signal {-code}" if code < 0 else f"ended with status {code}, see what it said above"
    memory = "; if memory ran out, train fewer at a time" if code == -signal.SIGKILL else ""
    return WritesaeError(f"its process {how}{memory}. The same call goes on from the last checkpoint")


def serve() -> None:
    """What such a process does: train what comes in, one run after another, and say how it goes."""
    from writesae.training.many import train  # which imports this module

    tell = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints must not come between

    class Tell:
        def record(self, said: Said) -> None:
            try:
                tell.write(pickle.dumps(said))
                tell.flush()
            except BrokenPipeError:  # nobody listens any more; the last checkpoint stays
                os._exit(1)

        def close(self) -> None:
            """The run has yet to say how it ended."""

    said: Said = None
    while said is None:
        try:
            store, config, out = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        try:
            train(store, config, out, [Tell()])
        except WritesaeError as error:
            said = error
        except KeyboardInterrupt as error:
            said = WritesaeError(str(error))
        Tell().record(said)
