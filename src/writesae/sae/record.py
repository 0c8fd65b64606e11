"""Where a dictionary comes from: carried by it in memory, written beside it on disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from writesae.config import Json
from writesae.corpus import Fingerprint
from writesae.types import Site


@dataclass(frozen=True)
class Record:
    """Where a dictionary comes from and what was measured of it. Unknown facts are None or empty."""

    host: str | None = None
    """Id of the host model, `tiny-gdn` or `Qwen/Qwen3.5-0.8B`."""
    host_revision: str | None = None
    """Revision or content hash of the host's weights."""
    site: Site | None = None
    """The recurrent head that the dictionary models."""
    variant: str | None = None
    """Name of the composition, `writesae` or `flat`."""
    seed: int | None = None
    """Seed of the training run."""
    corpus_hash: str | None = None
    """SHA-256 over the tokens that were captured."""
    corpus: str | None = None
    """Name and part of the text that was captured: `sample, train of 0.8`."""
    store_hash: str | None = None
    """Hash of the stream store that it was trained on."""
    training: Mapping[str, Json] = field(default_factory=dict)
    """The training configuration and what happened: steps, seconds, losses."""
    metrics: Mapping[str, Json] = field(default_factory=dict)
    """Measured numbers: explained variance, MSE, alive features, evaluation summaries."""
    source: Mapping[str, Json] = field(default_factory=dict)
    """For a converted file: its name, its SHA-256 and the facts it carried."""
    text: Fingerprint | None = None
    """Which token windows it was trained on: a file of its own on disk, so not in what is read of a manifest alone."""
