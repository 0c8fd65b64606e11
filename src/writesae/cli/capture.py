"""`writesae capture`: record what a host writes into a stream store."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class Command:
    """Run a host over text and store the streams of its recurrent layers.

    A capture that was stopped goes on where it was when the same command is given again.
    """

    out: Path
    """Folder of the new store, NAME.zarr by convention."""
    host: str = "tiny-gdn"
    """An embedded host, a local folder, or a Hub id."""
    layers: str = "all"
    """Recurrent layers by model index: "4", "4,5", or "all"."""
    corpus: str = "sample"
    """The embedded held-out "sample", a file or folder of text, JSONL or Parquet (also .gz, .xz, .zst),
    or hf:user/name?split=train&column=text for a data set on the Hub."""
    tokens: int | None = None
    """How many tokens to capture, rounded up to whole sequences; all that the corpus gives if not said."""
    length: int = 256
    """Tokens a sequence."""
    boundaries: Literal["separate", "padded", "packed"] = "separate"
    """separate: a sequence belongs to one document, short tails are dropped; padded: tails are kept, padded on
    the left; packed: documents follow each other within a sequence."""
    bos: bool = False
    """Start every sequence with the tokenizer's beginning-of-text token."""
    dtype: Literal["float16", "float32"] = "float16"
    """Precision of stored keys and updates."""
    batch: int = 16
    """Sequences a forward pass, and a file of the store."""
    host_dtype: Literal["float32", "bfloat16", "float16", "auto"] = "float32"
    """Precision in which the host runs; "auto" is the checkpoint's own."""
    device: str | None = None
    """Where the host runs: "cpu", "cuda", "cuda:1"."""
    revision: str | None = None
    """Commit, branch or tag of a host on the Hub."""
    trust_remote_code: bool = False
    """Let a Hub host run code of its own."""


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
    """Capture, then print what the store holds."""
    from writesae.corpus import read_documents, token_blocks
    from writesae.errors import InputError
    from writesae.hosts import load
    from writesae.store import CaptureConfig, capture

    layers = parse_layers(command.layers)
    config = CaptureConfig(command.dtype, command.batch)
    if command.length < 1 or (command.tokens is not None and command.tokens < 1):
        raise InputError(f"cannot capture {command.tokens} tokens in sequences of {command.length}: give at least 1")
    documents = read_documents(command.corpus)
    host = load(
        command.host,
        dtype=command.host_dtype,
        device=command.device,
        revision=command.revision,
        trust_remote_code=command.trust_remote_code,
    )
    bos = host.tokenizer.bos_token_id if command.bos else None
    if command.bos and bos is None:
        raise InputError(f"the tokenizer of {host.name} has no beginning-of-text token: leave out --bos")
    count = None if command.tokens is None else -(-command.tokens // command.length)
    blocks = token_blocks(documents, host.tokenizer, command.length, count, bos, command.boundaries)
    print(capture(host, blocks, layers, command.out, config))
