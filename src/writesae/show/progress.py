"""Progress bars: one a part of the run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

Ticker = Callable[[int, int], None]
"""Called with (done, in all)."""


@contextmanager
def bars_on(console: Console, of: str = "") -> Iterator[Callable[[str], Ticker]]:
    """One bar a part: `bars(title)` is a callback of (done, total); a part that is read has none. `of` stands before
    every title."""
    named = TextColumn(f"{{task.description:<{24 + len(of)}}}")
    columns = (SpinnerColumn(), named, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as bars:

        def start(title: str) -> Ticker:
            tasks: list[TaskID] = []

            def show(done: int, total: int) -> None:
                if not tasks:
                    tasks.append(bars.add_task(of + title, total=total))
                bars.update(tasks[0], completed=done, total=total)

            return show

        yield start
