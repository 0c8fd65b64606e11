"""`writesae report FOLDER`."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro


@dataclass(frozen=True)
class Command:
    """Write report.html from all results under a folder; needs no model and no network.

    A section for every evaluation found, at any depth; for a quickstart's folder its own page, with those of its
    evaluations and any others in the folder.
    """

    folder: Annotated[Path, tyro.conf.Positional]
    """A quickstart's folder, one result's, or one that holds several results."""
    recompute: bool = False
    """First compute every summary anew from its records, as after an update of this library."""


def run(command: Command) -> None:
    """Write the page and print where it is."""
    from writesae.disk import check_place, check_there

    check_there(command.folder, "give a folder with results of `writesae eval` or `quickstart`")
    check_place(command.folder / "report.html", file=True)
    from writesae.page.find import recompute
    from writesae.page.write import write_page

    if command.recompute:
        for place in recompute(command.folder):
            print(f"computed anew: {place}")
    path, unreadable = write_page(command.folder)
    print(path)
    for one in unreadable:
        print(f"left out: {one.place}: {one.reason}", file=sys.stderr)
