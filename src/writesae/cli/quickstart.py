"""`writesae quickstart`"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from writesae.quickstart import QuickstartConfig
from writesae.types import Site


@dataclass(frozen=True)
class Command:
    """Audit an embedded host, capture what it writes, train a dictionary on its states and one on its writes, test
    whether one atom can stand in for one write, and write report.html. Run it again to resume or to reuse."""

    out: Path = Path("quickstart")
    """Folder for everything that the run makes."""
    seed: int = QuickstartConfig.seed
    """Of everything random."""
    site: str | None = None
    """Head to train on, like L5.H0; by default the audit chooses."""
    host: str = QuickstartConfig.host
    """An embedded host's name, a folder, or a Hub id."""
    tokens: int = QuickstartConfig.tokens
    """Tokens to capture."""
    features: int = QuickstartConfig.features
    """Atoms a dictionary."""
    k: int = QuickstartConfig.k
    """Active atoms a token."""
    firings: int = QuickstartConfig.firings
    """Writes to replace, a dictionary."""
    passages: int = QuickstartConfig.passages
    """Held-out sequences from which they are drawn."""
    train_tokens: int = QuickstartConfig.train_tokens
    """Tokens seen in training, with repetition, a dictionary."""


def run(command: Command) -> None:
    """Run the chain."""
    site = None if command.site is None else Site.parse(command.site)
    config = QuickstartConfig(
        host=command.host,
        site=site,
        seed=command.seed,
        tokens=command.tokens,
        features=command.features,
        k=command.k,
        firings=command.firings,
        passages=command.passages,
        train_tokens=command.train_tokens,
    )
    from writesae.quickstart.run import quickstart

    quickstart(command.out, config)
