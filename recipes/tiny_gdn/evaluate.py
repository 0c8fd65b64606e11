"""Held-out loss of hosts in nats a token, beside counts of single tokens and of pairs.

    python recipes/tiny_gdn/evaluate.py --tokens tokens --hosts tiny-gdn tiny-mamba2

The arrays must have been made with the hosts' tokenizer (prepare.py --tokenizer). Every model and count scores the
same tokens: all but the first of each window of the training length. The pair counts fall back on single tokens with
the strength that suits the held-out text best, which favours them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from model import token_bytes
from torch import Tensor
from torch.nn.functional import cross_entropy

from writesae.hosts import load

STRENGTHS = (30, 100, 300, 1000, 3000)


@dataclass(frozen=True)
class Options:
    """Measure held-out loss."""

    hosts: tuple[str, ...]
    """Embedded hosts or folders."""
    tokens: Path = Path("tokens")
    """Folder that prepare.py filled."""
    length: int = 256
    """Tokens a window."""
    windows: int = 64
    """Windows a source at most, evenly spaced."""


def held_out_windows(options: Options) -> Tensor:
    """Windows of the held-out text of every source, `[N, length]`."""
    chosen = []
    for path in sorted(options.tokens.glob("heldout_*.npy")):
        tokens = torch.from_numpy(np.load(path).astype(np.int64))
        windows = tokens[: len(tokens) // options.length * options.length].view(-1, options.length)
        chosen.append(windows[torch.linspace(0, len(windows) - 1, min(options.windows, len(windows))).long()])
    return torch.cat(chosen)


def count_losses(train: Tensor, windows: Tensor, vocabulary: int) -> tuple[float, float]:
    """Nats a token of single-token counts (one added to each) and of pair counts."""
    single = (torch.bincount(train, minlength=vocabulary) + 1).double()
    chance = single / single.sum()
    pairs, counts = torch.unique(train[:-1] * vocabulary + train[1:], return_counts=True)
    before, after = windows[:, :-1].flatten(), windows[:, 1:].flatten()
    wanted = before * vocabulary + after
    place = torch.searchsorted(pairs, wanted).clamp(max=len(pairs) - 1)
    seen = torch.where(pairs[place] == wanted, counts[place], 0)
    mixed = [(seen + k * chance[after]) / (single[before] - 1 + k) for k in STRENGTHS]
    return float(-chance[after].log().mean()), min(float(-p.log().mean()) for p in mixed)


@torch.no_grad()
def host_loss(name: str, windows: Tensor) -> float:
    """Nats a token of a host."""
    host, total = load(name), 0.0
    for rows in windows.split(16):
        logits = host.logits(rows)[:, :-1].float()
        total += float(cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten(), reduction="sum"))
    return total / windows[:, 1:].numel()


def main(options: Options) -> None:
    """Print one line a model."""
    sizes = token_bytes(options.tokens / "tokenizer.json")
    windows = held_out_windows(options)
    train = torch.from_numpy(np.load(options.tokens / "train.npy").astype(np.int64))
    single, pair = count_losses(train, windows, len(sizes))
    losses = {"single tokens": single, "pairs": pair} | {name: host_loss(name, windows) for name in options.hosts}
    size = float(sizes[windows[:, 1:]].sum()) / windows[:, 1:].numel()
    print(f"{windows[:, 1:].numel():,} held-out tokens of {size:.2f} bytes")
    for name, nats in losses.items():
        print(f"{name:16} {nats:.3f} nats a token, {nats / math.log(2) / size:.3f} bits a byte")


if __name__ == "__main__":
    main(tyro.cli(Options))
