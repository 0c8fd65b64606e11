"""Several runs at a time, each in a process of its own.

A process trains one run after another and says what it records; results are read from the runs' folders. Processes
are started without multiprocessing, which would run the caller's script again where that has no `__main__` guard.
"""

from __future__ import annotations

import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from writesae.errors import WritesaeError
from writesae.store import StreamStore
from writesae.training.config import TrainConfig
from writesae.training.log import StepRecord
from writesae.training.process import interrupts

_CHILD = (
    "import signal; signal.signal(signal.SIGINT, signal.SIG_DFL); "
    "from writesae.training.side_by_side import serve; serve()"
)


class Job(NamedTuple):
    """One run."""

    name: str
    config: TrainConfig
    out: Path


_Said = StepRecord | WritesaeError | None
"""What a process says: a record, why its run has ended, or None where the run is finished."""
_Waiting = queue.SimpleQueue[tuple[int, bytes]]
_Heard = queue.SimpleQueue[tuple[int, _Said] | None]
"""A job's number and what was said of it; None where a process has ended."""


def run_side_by_side(
    store: StreamStore, jobs: Sequence[Job], workers: int, record: Callable[[int, StepRecord], None]
) -> None:
    """Train every job, `workers` at a time; `record` gets a job's number and what its run records.

    An error in one run, or a process that was killed, stops the others, which save; it is raised with the run's name.
    The same call goes on from the checkpoints. The store is pickled.
    """
    waiting, heard = _Waiting(), _Heard()
    for number, job in enumerate(jobs):
        waiting.put((number, pickle.dumps((store, job.config, job.out))))
    processes = [_start() for _ in range(min(workers, len(jobs)))]
    threads = [threading.Thread(target=_feed, args=(process, waiting, heard), daemon=True) for process in processes]
    for thread in threads:
        thread.start()
    failure: WritesaeError | None = None
    running, stopped = len(threads), False
    try:
        with interrupts() as interrupted:
            while running:
                with suppress(queue.Empty):
                    one = heard.get(timeout=0.2)
                    if one is None:
                        running -= 1
                    elif isinstance(one[1], StepRecord):
                        record(one[0], one[1])
                    elif one[1] is not None and not stopped:
                        failure = failure or type(one[1])(f"{jobs[one[0]].name}: {one[1]}")
                if (failure or interrupted.is_set()) and not stopped:
                    stopped = True
                    _stop(processes, waiting)
    finally:
        for process in processes:
            process.kill()  # only what is left by a second Ctrl-C, or by an error in `record`
        for thread in threads:
            thread.join()
    if failure is not None:
        raise failure
    if stopped:
        raise KeyboardInterrupt("the runs stopped and are saved; the same command goes on from there")


def _start() -> subprocess.Popen[bytes]:
    """A process that waits for runs. Ctrl-C in the terminal reaches it through its parent only."""
    path = os.pathsep.join(place for place in sys.path if place)
    return subprocess.Popen(
        [sys.executable, "-c", _CHILD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": path},
        start_new_session=True,
    )


def _stop(processes: Sequence[subprocess.Popen[bytes]], waiting: _Waiting) -> None:
    """Begin no more runs, and let those that are on save and end."""
    with suppress(queue.Empty):
        while True:
            waiting.get_nowait()
    for process in processes:
        process.send_signal(signal.SIGINT)


def _feed(process: subprocess.Popen[bytes], waiting: _Waiting, heard: _Heard) -> None:
    """Hand a process one run after another and pass on what it says of each."""
    assert process.stdin is not None
    assert process.stdout is not None
    with suppress(queue.Empty, BrokenPipeError), process:  # which closes its pipes, and waits for it
        while True:
            number, job = waiting.get_nowait()
            try:
                process.stdin.write(job)
                process.stdin.flush()
                while isinstance(said := pickle.load(process.stdout), StepRecord):
                    heard.put((number, said))
            except (EOFError, BrokenPipeError, pickle.UnpicklingError):  # cut short
                heard.put((number, _death(process.wait())))
                break
            heard.put((number, said))
    heard.put(None)


def _death(code: int) -> WritesaeError:
    how = f"was killed by signal {-code}" if code < 0 else f"ended with status {code}, see what it said above"
    memory = "; if memory ran out, train fewer at a time" if code == -signal.SIGKILL else ""
    return WritesaeError(f"its process {how}{memory}. The same call goes on from the last checkpoint")


def serve() -> None:
    """What such a process does: train what comes in and say how it goes, until nothing more comes."""
    from writesae.training.many import train  # which imports this module

    told, tell = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints must not come between

    class Tell:
        def record(self, said: _Said) -> None:
            try:
                tell.write(pickle.dumps(said))
                tell.flush()
            except BrokenPipeError:  # nobody listens any more; the last checkpoint stays
                os._exit(1)

        def close(self) -> None:
            """It is needed for the next run."""

    with suppress(EOFError):
        while True:
            store, config, out = pickle.load(told)
            said: _Said = None
            try:
                train(store, config, out, [Tell()])
            except WritesaeError as error:
                said = error
            except KeyboardInterrupt as error:
                said = WritesaeError(str(error))
            Tell().record(said)
