"""`writesae reproduce`"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from writesae.cli.options import Flat, console
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


def run(command: Command) -> None:
    """Run it, print the table."""
    from writesae.disk import check_place

    check_place(command.out)
    if command.register:
        from writesae.reproduce.registration import register

        print(f"registered in {command.out}: {register(command.config, command.out)}")
        return
    from rich.table import Table

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
    plan = kept(command.config, command.out)
    if plan is not None:
        said = "was kept" if plan["kept"] else "was NOT kept: this run is of other settings or of another version"
        terminal.print(f"The plan that was registered ({str(plan['sha256'])[:12]}) {said}.")
    settings = "quick" if command.config.quick else command.config.preset
    terminal.print(f"Page: [bold]{write_page(command.out, rows, f'{settings} sizes')}[/bold]")
