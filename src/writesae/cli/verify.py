"""`writesae verify`"""

from __future__ import annotations

from dataclasses import dataclass

from tyro.conf import Positional


@dataclass(frozen=True)
class Command:
    """Check a dictionary, a collection, a stream store or a folder of results down to every hash, shape, dtype, number
    and index, and say what is wrong with which file. Exits with 2 where something is."""

    path: Positional[str]
    """What to check; a store may be at an address like s3://BUCKET/NAME.zarr."""


def run(command: Command) -> None:
    """Check and print one line a problem."""
    from writesae.disk import check_there
    from writesae.errors import DataError

    check_there(command.path)
    from writesae.artifacts.verify import verify

    done = verify(command.path)
    for finding in done.findings:
        print(finding)
    if done.findings:
        raise DataError(f"{command.path} ({done.kind}): {len(done.findings)} problems in {len(done.checked)} items")
    print(f"{command.path} ({done.kind}): all {len(done.checked)} items are as they should be")
