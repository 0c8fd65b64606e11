"""`writesae list`"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional


@dataclass(frozen=True)
class Command:
    """List the dictionaries of a folder or of a Hub repository, or those that ship with writesae."""

    source: Positional[str | None] = None
    """A dictionary, a collection, what `train` wrote, or a Hub id (user/repo); what ships with writesae if not said."""
    revision: str | None = None
    """Commit, branch or tag on the Hub."""
    cache_dir: Path | None = None
    """The Hub's cache, if not in its usual place."""
    offline: bool = False
    """Use the cache alone."""


def run(command: Command) -> None:
    """Print a table."""
    from writesae.disk import check_there

    if command.source is not None:
        check_there(Path(command.source), hub=True)
    from rich.table import Table

    from writesae.artifacts.hub import list_cells
    from writesae.artifacts.shipped import SHIPPED
    from writesae.cli.options import console

    source = SHIPPED if command.source is None else command.source
    cells = list_cells(source, revision=command.revision, cache_dir=command.cache_dir, offline=command.offline)
    table = Table()
    for name in ("host", "site", "variant", "seed", "target", "features", "folder"):
        table.add_column(name, overflow="fold")
    for cell in cells:
        row = (cell.host, cell.site, cell.variant, cell.seed, cell.target, f"{cell.features:,}", cell.path)
        table.add_row(*("" if value is None else str(value) for value in row))
    console().print(table)
