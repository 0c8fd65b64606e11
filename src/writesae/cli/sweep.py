"""`writesae sweep`"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from writesae.cli.options import Flat, Spread, console

if TYPE_CHECKING:
    from writesae.sweep import Sweep


@dataclass(frozen=True)
class Command:
    """Train and test a grid of dictionaries: every combination of the values in a file, each host run over the text
    once. One table, one page. A sweep that was stopped goes on where it was when the same command is given again."""

    sweep: Annotated[str, tyro.conf.Positional]
    """A TOML file, or a sweep that comes with the package: small (24 runs, minutes), matched (the paper's 720)."""
    out: Path | None = None
    """Folder for everything that the sweep makes; a plan needs none."""
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
    from writesae.config import at_least
    from writesae.disk import check_place
    from writesae.errors import InputError, WritesaeError
    from writesae.sweep import read_sweep

    at_least(command, workers=1)
    if not command.memory > 0:
        raise InputError(f"--memory {command.memory:g} cannot be: give GiB above 0")
    plan = read_sweep(command.sweep)
    if command.plan:
        _print_plan(command, plan)
        return
    if command.out is None:
        raise InputError("a sweep needs a folder for what it makes: give --out (or --plan, which makes nothing)")
    check_place(command.out)
    cluster = command.spread.cluster(command.workers)
    from writesae.sweep.page import PAGE
    from writesae.sweep.run import TABLE, failures, refusals, sweep, unmeasured

    terminal = console()
    table = sweep(plan, command.out, command.workers, command.device, command.memory, terminal, cluster)
    wrong = failures(table)
    whole = len(table) - len(wrong)
    terminal.print(f"{whole} of {len(table)} runs are whole: {command.out / TABLE}", highlight=False)
    for reason in refusals(table):
        terminal.print(f"not measured: {reason}", highlight=False)
    terminal.print(f"Page: [bold]{command.out / PAGE}[/bold]")
    if nothing := unmeasured(plan, table):
        raise WritesaeError(f"{', '.join(nothing)} measured none of the {len(table)} runs, see the reasons above")
    if wrong:
        raise WritesaeError(
            f"{len(wrong)} runs are not whole, and are tried again by the same command: {'; '.join(wrong)}"
        )


def _print_plan(command: Command, plan: Sweep) -> None:
    from rich.table import Table

    from writesae.show.words import duration
    from writesae.sweep.plan import costs, machine, total

    found, on = costs(plan, command.device), machine(command.device)
    table = Table("host", "runs", "layers", "tokens", "store", "seen in training", "capture", "training")
    for one in found:
        numbers = f"{one.runs:,}", str(one.layers), f"{one.tokens:,}", f"{one.bytes / 1e9:,.1f} GB", f"{one.seen:,.0f}"
        table.add_row(one.host, *numbers, duration(one.capture), duration(one.train))
    terminal = console()
    terminal.print(table)
    hours = duration(total(found) / command.workers)
    assumed = f" ({on.assumed}: assumed, not measured)" if on.assumed else ""
    unit = "cards" if on.assumed else "cores"
    each = f"{command.workers} {unit}, if the runs divide evenly" if command.workers > 1 else f"one of these {unit}"
    terminal.print(
        f"{sum(one.runs for one in found):,} runs: {hours} on {each}; by the rates of {on.name}{assumed}. "
        f"Evaluations are not counted. Nothing was run.",
        highlight=False,
    )
