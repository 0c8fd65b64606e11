"""`writesae pull`"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional


@dataclass(frozen=True)
class Command:
    """Download dictionaries from the Hub into a new folder, verified. Only JSON and safetensors files are fetched."""

    repo: Positional[str]
    """Hub id, user/repo."""
    out: Positional[Path]
    """A folder to be made."""
    site: str | None = None
    """Only this head, like L9.H4."""
    variant: str | None = None
    """Only this variant."""
    host: str | None = None
    """Only dictionaries of this host model."""
    seed: int | None = None
    """Only this seed."""
    revision: str | None = None
    """Commit, branch or tag."""
    cache_dir: Path | None = None
    """The Hub's cache, if not in its usual place."""
    offline: bool = False
    """Use the cache alone."""


def run(command: Command) -> None:
    """Download and print what came."""
    from writesae.disk import check_place
    from writesae.errors import InputError
    from writesae.hub import is_hub_id

    if not is_hub_id(command.repo):
        raise InputError(f"{command.repo!r} is not written like a repository on the Hub, user/name")
    check_place(command.out)
    from writesae.artifacts.hub import pull

    which = {name: value for name, value in vars(command).items() if name not in ("repo", "out")}
    for cell in pull(command.repo, command.out, **which):
        print(f"{command.out / cell.path}: {cell}")
