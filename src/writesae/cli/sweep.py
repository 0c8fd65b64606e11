"""`writesae sweep`"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from writesae.cli.options import Flat, Spread, console


@dataclass(frozen=True)
class Command:
    """Train and test a grid of dictionaries: every combination of the values in a file, each host run over the text
    once. One table, one page. A sweep that was stopped goes on where it was when the same command is given again."""

    sweep: Annotated[str, tyro.conf.Positional]
    """A TOML file, or a sweep that comes with the package: small (24 runs, minutes), matched (the paper's 720)."""
    out: Path
    """Folder for everything that the sweep makes."""
    plan: bool = False
    """Only print what it would cost: runs, tokens, bytes, and hours by rates that were measured."""
    workers: int = 1
    """Runs that are trained at a time, each in a process of its own; in a plan, cores or cards."""
    device: str = "cpu"
    """Where: cpu, cuda, cuda:1, or auto."""
    memory: float = 4.0
    """GiB of data that all runs at work at one time hold together."""
    spread: Flat[Spread] = field(default_factory=Spread)
    """Over which machines."""


def run(command: Command) -> None:
    """Run it and print what it found, or what it would cost."""
    from writesae.disk import check_place
    from writesae.errors import InputError, WritesaeError
    from writesae.sweep import read_sweep

    if command.workers < 1:
        raise InputError(f"--workers {command.workers} cannot be: give at least 1")
    check_place(command.out)
    plan = read_sweep(command.sweep)
    if command.plan:
        _print_plan(command, plan)
        return
    from writesae.sweep.page import PAGE
    from writesae.sweep.run import TABLE, failures, refusals, sweep

    terminal = console()
    cluster = command.spread.cluster(command.workers)
    table = sweep(plan, command.out, command.workers, command.device, command.memory, terminal, cluster)
    wrong = failures(table)
    whole = len(table) - len(wrong)
    terminal.print(f"{whole} of {len(table)} runs are whole: {command.out / TABLE}", highlight=False)
    for reason in refusals(table):
        terminal.print(f"not measured: {reason}", highlight=False)
    terminal.print(f"Page: [bold]{command.out / PAGE}[/bold]")
    if wrong:
        raise WritesaeError(
            f"{len(wrong)} runs are not whole, and are tried again by the same command: {'; '.join(wrong)}"
        )


def _print_plan(command: Command, plan: object) -> None:
    from rich.table import Table

    from writesae.show.words import duration
    from writesae.sweep import Sweep
    from writesae.sweep.plan import costs, machine, total

    assert isinstance(plan, Sweep)
    found, on = costs(plan, command.device), machine(command.device)
    table = Table("host", "runs", "layers", "tokens", "store", "seen in training", "capture", "training")
    for one in found:
        numbers = f"{one.runs:,}", str(one.layers), f"{one.tokens:,}", f"{one.bytes / 1e9:,.1f} GB", f"{one.seen:,.0f}"
        table.add_row(one.host, *numbers, duration(one.capture), duration(one.train))
    terminal = console()
    terminal.print(table)
    hours = duration(total(found) / command.workers)
    assumed = f" ({on.assumed}: assumed, not measured)" if on.assumed else ""
    each = f"{command.workers} of them, if the runs divide evenly" if command.workers > 1 else "one"
    terminal.print(
        f"{sum(one.runs for one in found):,} runs: {hours} on {each}; by the rates of {on.name}{assumed}. "
        f"Evaluations are not counted. Nothing was run.",
        highlight=False,
    )
