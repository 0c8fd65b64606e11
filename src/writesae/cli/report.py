"""`writesae report RUN`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro


@dataclass(frozen=True)
class Command:
    """Write a run's report.html again from its result files; needs no model and no network."""

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of a finished quickstart run."""


def run(command: Command) -> None:
    """Write the page and print where it is."""
    from writesae.report import write_report

    print(write_report(command.run))
