"""`writesae eval`: one evaluation of a host and its dictionaries."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

if TYPE_CHECKING:
    from torch import Tensor

    from writesae.config import Json
    from writesae.hosts import Host

Name = Literal[
    "substitution", "population", "partition", "logit_shift", "fidelity", "passage_loss", "quality", "seeds",
    "spectrum", "selectivity", "readers", "boundary",
]  # fmt: skip


@dataclass(frozen=True)
class Command:
    """Run one evaluation and write summary.json and its records as Parquet.

    An evaluation that was stopped goes on where it was when the same command is given again (substitution,
    population). Every setting of its protocol can be given with --set; all are written to summary.json.
    """

    name: Annotated[Name, tyro.conf.Positional]
    """Which evaluation."""
    out: Path
    """Folder of the result."""
    sae: tuple[str, ...] = ()
    """Dictionaries: folders or Hub repositories. Several for fidelity (heads of one layer) and for seeds (of one
    head); a flat one after the first for substitution's control flat_svd; none for spectrum."""
    site: str | None = None
    """Head of the dictionaries, "L5.H0", where they do not say it themselves."""
    host: str = "tiny-gdn"
    """An embedded host, a local folder, or a Hub id."""
    corpus: str = "sample"
    """The embedded "sample", a file or folder of text, JSONL or Parquet, or hf:user/name?split=train&column=text."""
    passages: int = 64
    """Passages, drawn at random over all documents."""
    length: int = 128
    """Tokens a passage."""
    held_out: float = 0.2
    """Share of every document, at its end, that passages are drawn from."""
    seed: int = 0
    """Of the passages; the protocol's own seed is --set seed=N."""
    set: tuple[str, ...] = ()
    """Settings of the protocol: firings=500 horizon=4 'controls=["pca", "orthogonal"]'."""
    device: str | None = None
    """Where the host runs: "cpu", "cuda", "cuda:1"."""
    revision: str | None = None
    """Commit, branch or tag of a host on the Hub."""


def parse_settings(settings: tuple[str, ...]) -> dict[str, Json]:
    """`("firings=500",)` -> {"firings": 500}; values are JSON, or plain words. Raises ConfigError without a "="."""
    import json

    from writesae.errors import ConfigError

    found: dict[str, Json] = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals or not key:
            raise ConfigError(f"setting {setting!r} is not written like firings=500")
        try:
            found[key] = json.loads(value)
        except json.JSONDecodeError:
            found[key] = value
    return found


def held_out_passages(host: Host, command: Command) -> Tensor:
    """Passages `[B, T]` from the ends of the documents; raises InputError where the corpus is too short."""
    import numpy as np
    import torch

    from writesae.corpus import read_documents, token_blocks
    from writesae.errors import InputError

    if command.passages < 1 or command.length < 4 or not 0 < command.held_out <= 1:
        raise InputError(
            f"cannot draw {command.passages} passages of {command.length} tokens from {command.held_out:.0%} of each "
            "document: give at least 1 passage of 4 tokens, and a share above 0 and up to 1"
        )
    blocks = token_blocks(read_documents(command.corpus), host.tokenizer, command.length)
    rank = np.concatenate([np.arange(n) / n for n in np.unique(blocks.document, return_counts=True)[1]])
    usable = np.flatnonzero(rank >= 1 - command.held_out)
    if len(usable) < command.passages:
        raise InputError(
            f"the last {command.held_out:.0%} of the documents hold {len(usable)} passages of {command.length} tokens, "
            f"{command.passages} were asked for: ask for fewer or shorter ones, or a larger --held-out"
        )
    chosen = np.random.default_rng(command.seed).permutation(usable)[: command.passages]
    return torch.from_numpy(blocks.tokens[np.sort(chosen)])


def run(command: Command) -> None:
    """Evaluate, write the folder, print where it is."""
    from writesae.artifacts import load_sae
    from writesae.artifacts.manifest import MANIFEST, read_manifest
    from writesae.errors import InputError
    from writesae.evals.catalogue import Inputs, configure, run_evaluation
    from writesae.hosts import load_host
    from writesae.types import Site

    config = configure(command.name, parse_settings(command.set))
    saes = []
    for source in command.sae:
        own = read_manifest(Path(source)).record.site if (Path(source) / MANIFEST).exists() else None
        site = Site.parse(command.site) if command.site else own
        if site is None:
            raise InputError(f"{source} does not say which head it belongs to: give --site")
        saes.append((site, load_sae(source, site=None if (Path(source) / MANIFEST).exists() else site)))
    host = load_host(command.host, device=command.device, revision=command.revision)
    tokens = held_out_passages(host, command)
    result = run_evaluation(command.name, Inputs(host, tuple(saes), tokens, command.out / "parts"), config)
    result.write(command.out)
    refused = "".join(f"; {n} refused: {reason}" for reason, n in result.refused.items())
    print(f"{command.name}: {result.n} of {result.attempted} scored{refused}; {command.out / 'summary.json'}")
