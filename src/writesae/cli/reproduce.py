"""`writesae reproduce`"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from writesae.cli.options import Flat, console
from writesae.errors import InputError
from writesae.reproduce import ReproduceConfig


@dataclass(frozen=True)
class Command:
    """Measure every published claim here, and set each beside its published number: capture, train what claims need,
    evaluate, one table and one page. Run it again to resume."""

    out: Path = Path("reproduction")
    """Folder for everything that the run makes."""
    config: Flat[ReproduceConfig] = field(default_factory=ReproduceConfig)
    """Its settings."""
    register: bool = False
    """Only write down what will be measured and what would count, with its hash, in a new folder. The same command
    without this flag then runs it there, and says whether the plan was kept."""
    release: Path | None = None
    """Beside it, write the tree of a release into this new folder: dictionaries, results, cards, a manifest."""
    plan: bool = False
    """Only print what it would cost: tokens, bytes, hours. Nothing is run, written or fetched."""


def run(command: Command) -> None:
    """Run it, print the table."""
    if command.plan:
        if command.register or command.release:
            raise InputError(f"--plan only prints: leave out --{'register' if command.register else 'release'}")
        _print_plan(command.config)
        return
    from writesae.disk import check_place

    for place in filter(None, (command.out, command.release)):
        check_place(place)
    if command.register:
        from writesae.reproduce.registration import register

        print(f"registered in {command.out}: {register(command.config, command.out)}")
        return
    from rich.table import Table

    from writesae.reproduce import plainly
    from writesae.reproduce.page import headline, line, write_page
    from writesae.reproduce.registration import kept
    from writesae.reproduce.run import reproduce

    terminal = console()
    rows = reproduce(command.config, command.out, terminal)
    table = Table()
    for name in ("claim", "host", "which", "published", "here", "95 % interval", "n", "verdict"):
        table.add_column(name, overflow="fold")
    for one in map(line, headline(rows)):
        row = one.row
        published = "" if row.published is None else f"{row.published:g}"
        why = row.differs if row.verdict == "not comparable" else ""
        verdict = f"{row.verdict}: {why}" if why else str(row.verdict or "")
        table.add_row(row.claim, row.host, row.what, published, one.number, one.bounds, str(row.n or ""), verdict)
    terminal.print(table)
    for sentence in plainly.headline(rows):
        terminal.print(sentence)
    plan = kept(command.config, command.out)
    if plan is not None:
        said = "was kept" if plan["kept"] else "was NOT kept: this run is of other settings or of another version"
        terminal.print(f"The plan that was registered ({str(plan['sha256'])[:12]}) {said}.")
    if command.release is not None:
        from writesae.reproduce.release import release

        terminal.print(f"Release: [bold]{release(command.config, command.out, command.release, rows)}[/bold]")
    settings = "quick" if command.config.quick else command.config.preset
    terminal.print(f"Page: [bold]{write_page(command.out, rows, f'{settings} sizes')}[/bold]")


def _print_plan(config: ReproduceConfig) -> None:
    from rich.filesize import decimal
    from rich.table import Table

    from writesae.reproduce.plan import MACHINES, plan

    table, costs = Table(), plan(config)
    for name in ("host", "part", "what", "tokens", "disk", *(f"hours, {machine}" for machine in MACHINES)):
        table.add_column(name, overflow="fold", justify="right" if name.startswith(("tokens", "disk", "h")) else "left")
    for one in costs:
        hours = (f"{one.hours[machine]:.2g}" for machine in MACHINES)
        disk = decimal(one.size) if one.size else ""
        table.add_row(one.host, one.part, one.amount, f"{one.tokens:,}", disk, *hours)
    hours = (f"{sum(one.hours[machine] for one in costs):.2g}" for machine in MACHINES)
    total = f"{sum(one.tokens for one in costs):,}", decimal(sum(one.size for one in costs))
    table.add_row("all", "", "", *total, *hours, style="bold")
    console().print(table)
    console().print("Hours are estimates by the rates in writesae.training.costs, good to a factor of two or so.")
