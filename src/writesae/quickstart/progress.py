"""Training runs as progress."""

from __future__ import annotations

from dataclasses import dataclass

from writesae.show.progress import Ticker
from writesae.training import StepRecord


@dataclass(frozen=True)
class Bar:
    """Shows a training run's records as progress."""

    tick: Ticker
    steps: int

    def record(self, record: StepRecord) -> None:
        self.tick(record.step, self.steps)

    def close(self) -> None:
        self.tick(self.steps, self.steps)
