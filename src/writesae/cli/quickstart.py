"""`writesae quickstart`"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from writesae.cli.options import Flat, Running, console
from writesae.quickstart import QuickstartConfig


@dataclass(frozen=True)
class Command:
    """Audit an embedded host, capture what it writes, train a dictionary on its states and one on its writes, test
    whether one atom can stand in for one write, and write report.html. Run it again to resume or to reuse."""

    out: Path = Path("quickstart")
    """Folder for everything that the run makes."""
    config: Flat[QuickstartConfig] = field(default_factory=QuickstartConfig)
    """Its settings."""
    running: Flat[Running] = field(default_factory=Running)
    """How the host runs."""


def run(command: Command) -> None:
    """Run the chain."""
    from writesae.disk import check_place

    check_place(command.out)
    host = command.running.open(command.config.host)
    from writesae.quickstart.run import quickstart

    quickstart(command.out, command.config, host, console())
