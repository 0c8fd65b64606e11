"""Train a small Mamba-2 language model on a CPU or a GPU, with the trainer of `recipes/tiny_gdn`.

python recipes/tiny_mamba2/train.py --tokens tokens --out run
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path

import tyro

sys.path.insert(0, str(Path(__file__).parents[1] / "tiny_gdn"))  # recipes are scripts, not a package

import train
from mamba2 import Shape, build_model


@dataclass(frozen=True)
class Options(train.Options):
    """Train a Mamba-2 host."""

    budget: int = 6_000_000
    """Tokens to train on."""
    shape: Shape = field(default_factory=Shape)
    """Size of the model."""


if __name__ == "__main__":
    train.main(tyro.cli(Options), build_model)
