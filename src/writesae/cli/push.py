"""`writesae push`"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional


@dataclass(frozen=True)
class Command:
    """Upload a dictionary or a collection to the Hub, verified first. Cells join a collection that is there."""

    path: Positional[Path]
    """A dictionary, a collection, or what `train` wrote."""
    repo: Positional[str]
    """Hub id, user/repo; made if it does not exist."""
    private: bool = False
    """Make a new repository private."""
    revision: str | None = None
    """Branch to commit to."""
    message: str | None = None
    """Commit message."""
    as_cell: bool = False
    """Make a single dictionary a cell of a collection, also in an empty repository."""


def run(command: Command) -> None:
    """Upload and print the commit's address."""
    from writesae.disk import check_there

    check_there(command.path)
    from writesae.artifacts.hub import push

    how = {name: value for name, value in vars(command).items() if name not in ("path", "repo")}
    print(push(command.path, command.repo, **how))
