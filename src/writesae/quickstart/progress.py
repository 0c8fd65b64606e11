"""Progress bars: one a part of the run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from writesae.training import StepRecord

Ticker = Callable[[int, int], None]
"""Called with (done, in all)."""


@dataclass(frozen=True)
class Bar:
    """Shows a training run's records as progress."""

    tick: Ticker
    steps: int

    def record(self, record: StepRecord) -> None:
        self.tick(record.step, self.steps)

    def close(self) -> None:
        self.tick(self.steps, self.steps)


@contextmanager
def bars_on(console: Console) -> Iterator[Callable[[str], Ticker]]:
    """One bar a part: `bars(title)` is a callback of (done, total); a part that is read has none."""
    columns = (
        SpinnerColumn(), TextColumn("{task.description:<24}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console) as bars:

        def start(title: str) -> Ticker:
            tasks: list[TaskID] = []

            def show(done: int, total: int) -> None:
                if not tasks:
                    tasks.append(bars.add_task(title, total=total))
                bars.update(tasks[0], completed=done, total=total)

            return show

        yield start
