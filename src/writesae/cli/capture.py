"""`writesae capture`: record what a host writes into a stream store."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from writesae.cli.options import Flat, HostOptions, Spread, TextOptions


@dataclass(frozen=True)
class Command:
    """Run a host over text and store the streams of its recurrent layers.

    A capture that was stopped goes on where it was when the same command is given again.
    """

    out: str
    """Folder of the new store, NAME.zarr by convention, or its address in object storage: s3://BUCKET/NAME.zarr."""
    host: Flat[HostOptions] = field(default_factory=HostOptions)
    layers: str = "all"
    """Recurrent layers by model index: "4", "4,5", or "all"."""
    text: Flat[TextOptions] = field(default_factory=lambda: TextOptions(part="train"))
    tokens: int | None = None
    """How many tokens to capture, rounded up to whole sequences and spread over the documents; all that the corpus
    gives if not said."""
    length: int = 256
    """Tokens a sequence."""
    boundaries: Literal["separate", "padded", "packed"] = "separate"
    """separate: a sequence belongs to one document, short tails are dropped; padded: tails are kept, padded on
    the left; packed: documents follow each other within a sequence."""
    store_dtype: Literal["float16", "float32"] = "float16"
    """Precision of stored keys and updates."""
    batch: int = 16
    """Sequences a forward pass, and a file of the store."""
    workers: int = 1
    """Processes that capture, each with the host in it, by Ray: on this machine, or where --ray says."""
    spread: Flat[Spread] = field(default_factory=Spread)
    """Over which machines."""


def parse_layers(text: str) -> list[int] | Literal["all"]:
    """`"4,5"` -> [4, 5]; `"all"` stays. Raises InputError for anything else."""
    from writesae.errors import InputError

    if text == "all":
        return "all"
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise InputError(f'layers {text!r} are not written like "4", "4,5" or "all"')
    return [int(part) for part in parts]


def run(command: Command) -> None:
    """Capture, then print what the store holds. What is wrong is said before the host is loaded, where it can be."""
    from writesae.cluster import Cluster
    from writesae.errors import InputError
    from writesae.store import capture, check_request

    layers = parse_layers(command.layers)
    if command.length < 1:
        raise InputError(f"sequences of {command.length} tokens hold no text: give at least 1")
    check_request(command.out, command.tokens, command.batch)
    command.text.check()
    cluster = command.spread.cluster(command.workers)
    if cluster is None and command.workers != 1:
        cluster = Cluster(workers=command.workers)
    host = command.host.open()
    store = capture(
        host,
        command.text.open(host, command.length),
        layers,
        command.out,
        tokens=command.tokens,
        boundaries=command.boundaries,
        store_dtype=command.store_dtype,
        batch=command.batch,
        cluster=cluster,
    )
    print(store)
    if command.out.startswith("memory://"):
        print(
            "It is in this process's memory, and gone now: for a store to keep, give a folder or s3://BUCKET/NAME.zarr"
        )
