"""What a finished run is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from writesae.sae.metrics import Metrics
from writesae.sae.model import SAE
from writesae.training.config import TrainConfig
from writesae.training.log import StepRecord


@dataclass(frozen=True)
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
