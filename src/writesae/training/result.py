"""What a finished run is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from writesae.sae.metrics import Metrics
from writesae.sae.model import SAE
from writesae.sae.show import table
from writesae.training.config import TrainConfig
from writesae.training.log import StepRecord


@dataclass(frozen=True, repr=False)
class TrainResult:
    """A finished run."""

    sae: SAE
    """The dictionary, acting on raw matrices."""
    config: TrainConfig
    """How it was trained."""
    metrics: Metrics
    """On held-out sequences."""
    history: list[StepRecord]
    """The training curve."""
    seconds: float
    """Time spent training."""
    folder: Path
    """Where it lies; the dictionary itself is in its `sae` folder."""

    def __repr__(self) -> str:
        return f"{self.config.name}: {', '.join(f'{name} {value}' for name, value in self._facts())}; {self.folder}"

    def _repr_html_(self) -> str:
        return table("writesae.TrainResult", [("run", self.config.name), *self._facts(), ("folder", str(self.folder))])

    def _facts(self) -> list[tuple[str, str]]:
        m = self.metrics
        return [
            ("explained variance", f"{m.explained_variance:.4f}"),
            ("L0", f"{m.l0:.1f}"),
            ("features that fired", f"{m.alive:,} of {m.alive + m.dead:,}"),
            ("held-out tokens", f"{m.tokens:,}"),
            ("steps", f"{self.history[-1].step:,}" if self.history else "0"),
            ("seconds", f"{self.seconds:.0f}"),
        ]
