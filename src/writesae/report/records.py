"""The shapes of a run folder's result files, as frozen dataclasses.

Unknown keys are left alone: a run may say more than this page shows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Interval = tuple[float, float]

CONDITIONS = ("atom", "atom_norm", "delete", "random", "random_norm")
"""What stands in for the native write; the order of every ladder."""


@dataclass(frozen=True)
class HostRecord:
    """The model that was recorded."""

    name: str
    revision: str = "not recorded"


@dataclass(frozen=True)
class MedianKL:
    """Median KL in nats at the next-token distribution, by what replaced the write; None where nothing was scored."""

    atom: float | None = None
    atom_norm: float | None = None
    delete: float | None = None
    random: float | None = None
    random_norm: float | None = None

    def items(self) -> list[tuple[str, float | None]]:
        """(condition, median) in the order of CONDITIONS."""
        return [(name, getattr(self, name)) for name in CONDITIONS]


@dataclass(frozen=True)
class Outcome:
    """The substitution test of one dictionary under one protocol."""

    n: int
    """Firings scored."""
    attempted: int
    """Firings drawn; attempted = n + refused."""
    refused: dict[str, int]
    """How many firings were refused, by reason."""
    win_rate: float | None
    """Share of firings where the atom at its coefficient has a strictly smaller KL than deletion."""
    interval: Interval | None
    """95 % Wilson interval of `win_rate`."""
    median_kl: MedianKL
    interval_clustered: Interval | None = None
    """95 % bootstrap interval of `win_rate`, resampling passages."""
    win_rate_norm: float | None = None
    """As `win_rate`, for the atom rescaled to the native write's Frobenius norm."""
    interval_norm: Interval | None = None
    strict_chain: float | None = None
    """Share of firings with KL atom < KL delete < KL random."""
    median_cosine: float | None = None
    """Median cosine of the atom to the native write at its firings."""


@dataclass(frozen=True)
class Substitution(Outcome):
    """The result under the main protocol, and beside it the result under each protocol."""

    protocol: str = "after_token"
    by_protocol: dict[str, Outcome] = field(default_factory=dict)

    def outcomes(self) -> dict[str, Outcome]:
        """Every protocol's outcome, the main one first."""
        return {self.protocol: self} | {k: v for k, v in self.by_protocol.items() if k != self.protocol}


@dataclass(frozen=True)
class Summary:
    """summary.json"""

    host: HostRecord
    site: str
    tokens: int
    """Training tokens captured."""
    features: int
    k: int
    alive: dict[str, int]
    explained_variance: dict[str, float | None]
    substitution: dict[str, Substitution]
    protocol: dict[str, object] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    seed: int | None = None
    versions: dict[str, str] = field(default_factory=dict)
    hashes: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class HeadRow:
    """One head of spectrum.parquet."""

    layer: int
    head: int
    decay: float | None
    write_share: float | None
    stable_rank: float | None
    delete_kl: float | None
    chosen: bool


@dataclass(frozen=True)
class HistoryRow:
    """One record of train/<target>/history.jsonl."""

    step: int
    tokens: int
    loss: float | None
    explained_variance: float | None
    """On the training batch."""
    alive: int | None
    held_out: float | None = None
    """Explained variance on held-out sequences, where this step measured it."""


@dataclass(frozen=True)
class Firings:
    """The rows of substitution/<target>.parquet under one protocol: columns of equal length n."""

    kl: Mapping[str, Floats]
    """Condition -> KL in nats [n]."""
    feature: npt.NDArray[np.int64]
    coefficient: Floats
    cosine: Floats
    """Cosine between the atom and the native write [n]."""
    token: list[str]
    """The firing token's text (column `token_text`), empty where the run recorded only its id."""
    context: list[str]
    """Text up to and including the token."""

    def __len__(self) -> int:
        return len(self.token)


@dataclass(frozen=True)
class Context:
    """A firing in real text."""

    before: str
    token: str
    after: str
    coefficient: float


@dataclass(frozen=True)
class ScoredToken:
    """A vocabulary token and how much the atom moves its logit."""

    token: str
    score: float


@dataclass(frozen=True)
class AtomKL:
    """Median KLs over one atom's scored firings; None where none was scored."""

    atom: float | None = None
    delete: float | None = None
    random: float | None = None


@dataclass(frozen=True)
class Atom:
    """One entry of atoms/<target>.json: a dictionary atom `v w^T` as it fires on held-out text."""

    feature: int
    firings: int
    frequency: float
    """Firings a token."""
    mean_coefficient: float
    cosine: float | None
    """Median cosine between the atom and the native write at its firings."""
    v: list[float]
    """Key side [K]."""
    w: list[float]
    """Value side [V]."""
    contexts: list[Context]
    kl: AtomKL = field(default_factory=AtomKL)
    win_rate: float | None = None
    scored: int | None = None
    """Firings behind `cosine`, `kl` and `win_rate`."""
    promotes: list[ScoredToken] = field(default_factory=list)
    suppresses: list[ScoredToken] = field(default_factory=list)


@dataclass(frozen=True)
class TargetRun:
    """Everything about the dictionary of one target (`state` or `write`)."""

    name: str
    substitution: Substitution
    history: list[HistoryRow]
    firings: dict[str, Firings]
    """Protocol -> scored firings."""
    atoms: list[Atom]


@dataclass(frozen=True)
class Run:
    """A finished run, read from its folder."""

    summary: Summary
    heads: list[HeadRow]
    targets: list[TargetRun]
    """In the order of the summary."""
