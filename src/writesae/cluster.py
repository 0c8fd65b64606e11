"""Work spread over processes and machines by Ray, an extra: the one file that imports it.

A job is a call of a function of this library with what it is about; what it makes lies where all machines see it (a
shared folder, an object storage), so that nothing large is sent back, and a job that is done again finds what is done.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from types import ModuleType
from typing import Any, TypeVar

from writesae.errors import ConfigError, InputError, WritesaeError

T = TypeVar("T")
AGAIN = 3
"""Times that a job is done again whose worker was lost."""


@dataclass(frozen=True)
class Cluster:
    """Workers of a Ray cluster. Raises InputError where Ray is not installed."""

    address: str = "local"
    """`local` starts workers here; `auto` finds the cluster that this machine belongs to; or `ray://HOST:PORT`."""
    workers: int = 1
    """Jobs at one time."""
    gpus: float = 0.0
    """Of each job; a part of one lets several share a card."""

    def __post_init__(self) -> None:
        if self.workers < 1 or not 0 <= self.gpus < 1000:
            told = f"{self.workers} workers of {self.gpus} GPUs each"
            raise ConfigError(f"{told} cannot be: give 1 worker or more, and 0 GPUs or more")
        if find_spec("ray") is None:
            raise InputError("workers of a cluster need Ray: pip install 'writesae[ray]'")

    def each(
        self, function: Callable[..., T], jobs: Mapping[int, tuple[object, ...]], *shared: object
    ) -> Iterator[tuple[int, T | WritesaeError]]:
        """`function(*shared, *job)` of every job, in the order in which they end: its number, and its value or why
        there is none. What is shared is sent once to each machine.

        A lost worker's job is done again, `AGAIN` times. Raises InputError where the cluster does not answer,
        KeyboardInterrupt after an interrupt, when every job was told to stop.
        """
        with _connected(self) as ray:
            once = [ray.put(value) for value in shared]
            task = ray.remote(_answer).options(num_cpus=1, num_gpus=self.gpus, max_retries=AGAIN)
            waiting, running = list(jobs), dict[object, int]()
            try:
                while waiting or running:
                    while waiting and len(running) < self.workers:
                        number = waiting.pop(0)
                        running[task.remote(function, *once, *jobs[number])] = number
                    ended, _ = ray.wait(list(running), timeout=1.0)
                    for one in ended:
                        yield running.pop(one), _value(ray, one)
            except KeyboardInterrupt:
                for one in running:
                    ray.cancel(one)
                if running:
                    ray.wait(list(running), num_returns=len(running), timeout=60.0)
                raise


def _answer(function: Callable[..., T], *given: object) -> T | WritesaeError:
    """In a worker: a value, or what we say ourselves; what nobody foresaw is raised."""
    try:
        return function(*given)
    except WritesaeError as error:
        return error


def _value(ray: ModuleType, reference: object) -> Any:
    lost = (ray.exceptions.WorkerCrashedError, ray.exceptions.NodeDiedError, ray.exceptions.OutOfMemoryError)
    try:
        return ray.get(reference)
    except lost as error:
        reason = str(error).splitlines()[0]
        return WritesaeError(f"its worker was lost {AGAIN + 1} times ({type(error).__name__}: {reason})")


@contextmanager
def _connected(cluster: Cluster) -> Iterator[ModuleType]:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    if ray.is_initialized():  # by the caller, who ends it
        yield ray
        return
    here = {"num_cpus": cluster.workers, "include_dashboard": False} if cluster.address == "local" else {}
    try:
        ray.init(address=cluster.address, logging_level="error", log_to_driver=False, **here)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise InputError(f"no Ray cluster answers at {cluster.address}: {str(error).splitlines()[0]}") from error
    try:
        yield ray
    finally:
        ray.shutdown()
