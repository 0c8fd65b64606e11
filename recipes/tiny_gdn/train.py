"""Train a small Gated DeltaNet + attention language model on a CPU or a GPU.

    python recipes/tiny_gdn/train.py --tokens tokens --out run

`run/log.jsonl` gets the loss as it goes and held-out bits a byte by source; `run/host/` is the finished model, which
`writesae` loads as a host. Killed at any point, the same command goes on from the last checkpoint and ends with
the same weights to the bit (on one machine with one number of threads).
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import tyro
from model import Shape, build_model, build_optimisers, save_host, token_bytes
from torch import Tensor, nn
from transformers import PreTrainedModel


@dataclass(frozen=True)
class Options:
    """Train a host."""

    tokens: Path = Path("tokens")
    """Folder that prepare.py filled."""
    out: Path = Path("run")
    """Folder for checkpoint, log and the finished host."""
    budget: int = 10_000_000
    """Tokens to train on."""
    batch: int = 16
    """Sequences a step."""
    length: int = 256
    """Tokens a sequence."""
    rate: float = 6e-3
    """Peak learning rate: 100 steps of warm-up, then a cosine down to 2%."""
    decay: float = 0.1
    """Weight decay of the matrices."""
    seed: int = 0
    """Of the weights and of the order of the data."""
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    """Where to train."""
    threads: int = 1
    """CPU threads."""
    compile: bool = True
    """Use torch.compile: minutes at the start on a CPU, worth it for a long run."""
    evaluate_every: int = 500
    """Steps between evaluations."""
    checkpoint_every: int = 250
    """Steps between checkpoints."""
    shape: Shape = field(default_factory=Shape)
    """Size of the model."""

    @property
    def steps(self) -> int:
        """Optimiser steps in all."""
        return max(1, self.budget // (self.batch * self.length))


WARM_UP = 100
HELD_OUT_WINDOWS = 64
"""Evaluation windows a source, evenly spaced."""


def learning_rate(step: int, options: Options) -> float:
    """The rate of a step, a function of nothing else."""
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, step / options.steps)))
    return options.rate * min(1.0, (step + 1) / WARM_UP) * (0.02 + 0.98 * cosine)


def batch_at(step: int, data: Tensor, options: Options) -> Tensor:
    """The sequences of a step, `[batch, length]`: random windows, a function of seed and step alone."""
    generator = torch.Generator().manual_seed(options.seed * 1_000_003 + step)
    starts = torch.randint(0, len(data) - options.length, (options.batch,), generator=generator)
    return data[starts[:, None] + torch.arange(options.length)].long()


@torch.no_grad()
def held_out_bits(model: nn.Module, options: Options, sizes: Tensor) -> dict[str, float]:
    """Bits a byte on held-out text, by source and for `all` sources together, in windows of the training length."""
    bits: dict[str, float] = {}
    total_nats = total_bytes = 0.0
    model.eval()
    for path in sorted(options.tokens.glob("heldout_*.npy")):
        tokens = torch.from_numpy(np.load(path).astype(np.int64))
        windows = tokens[: len(tokens) // options.length * options.length].view(-1, options.length)
        if not len(windows):
            continue
        chosen = torch.linspace(0, len(windows) - 1, min(HELD_OUT_WINDOWS, len(windows))).long()
        nats = size = 0.0
        for rows in windows[chosen].split(16):
            loss = mean_loss(model, rows.to(options.device)).item()
            nats += loss * rows[:, 1:].numel()
            size += float(sizes[rows[:, 1:]].sum())
        bits[path.stem.removeprefix("heldout_")] = round(nats / math.log(2) / size, 4)
        total_nats, total_bytes = total_nats + nats, total_bytes + size
    model.train()
    return bits | {"all": round(total_nats / math.log(2) / total_bytes, 4)}


def mean_loss(model: nn.Module, rows: Tensor) -> Tensor:
    """Mean next-token cross-entropy in nats, in bfloat16 where it is safe."""
    with torch.autocast(rows.device.type, torch.bfloat16):
        return model(input_ids=rows, labels=rows, use_cache=False).loss


def save_checkpoint(path: Path, header: dict[str, object], step: int, model: nn.Module, optimisers: list) -> None:
    """Everything that the next step depends on, written whole."""
    state = [optimiser.state_dict() for optimiser in optimisers]
    partial = path.with_suffix(".partial")
    torch.save({"header": header, "step": step, "model": model.state_dict(), "optimisers": state}, partial)
    os.replace(partial, path)


def load_checkpoint(path: Path, header: dict[str, object], model: nn.Module, optimisers: list) -> int:
    """Put a checkpoint back; returns the step to go on with (0 without one). Refuses one of other options."""
    if not path.is_file():
        return 0
    saved = torch.load(path, weights_only=True)
    if saved["header"] != header:
        raise SystemExit(f"{path} belongs to a run with other options; give another --out or delete it")
    model.load_state_dict(saved["model"])
    for optimiser, state in zip(optimisers, saved["optimisers"], strict=True):
        optimiser.load_state_dict(state)
    return int(saved["step"])


def trim_log(path: Path, step: int) -> None:
    """Drop what a killed run logged after its last checkpoint, so that every step is there once."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    kept = []
    for line in lines:
        try:
            if json.loads(line).get("step", 0) <= step:
                kept.append(line + "\n")
        except json.JSONDecodeError:
            break  # cut short by the kill
    path.write_text("".join(kept), encoding="utf-8")


def say(log: Path, **entry: object) -> None:
    """One line to the log and to the screen."""
    line = json.dumps(entry)
    print(line, flush=True)
    with log.open("a", encoding="utf-8") as file:
        file.write(line + "\n")


def main(options: Options, build: Callable[..., PreTrainedModel] = build_model) -> None:
    """Train what `build(shape, vocabulary, device)` gives, evaluate, save."""
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    tokenizer = options.tokens / "tokenizer.json"
    sizes = token_bytes(tokenizer)
    data = torch.from_numpy(np.load(options.tokens / "train.npy").astype(np.int32))
    model = build(options.shape, len(sizes), options.device)
    optimisers = build_optimisers(model, options.rate, options.decay)
    options.out.mkdir(parents=True, exist_ok=True)
    checkpoint, log = options.out / "checkpoint.pt", options.out / "log.jsonl"
    shown = ("out", "tokens", "evaluate_every", "checkpoint_every")
    header = {k: v for k, v in dataclasses.asdict(options).items() if k not in shown}
    first = load_checkpoint(checkpoint, header, model, optimisers)
    trim_log(log, first)
    if first == 0:
        say(log, parameters=sum(p.numel() for p in model.parameters()), steps=options.steps, **header)
    forward = torch.compile(model) if options.compile else model
    started = time.perf_counter()
    for step in range(first, options.steps):
        for optimiser in optimisers:
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(step, options)
        loss = mean_loss(forward, batch_at(step, data, options).to(options.device))
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimiser in optimisers:
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        done = step + 1
        if done % 50 == 0 or done == options.steps:
            seen = done * options.batch * options.length
            speed = (done - first) * options.batch * options.length / (time.perf_counter() - started)
            say(log, step=done, tokens=seen, loss=round(loss.item(), 4), tokens_a_second=round(speed))
        if done % options.evaluate_every == 0 or done == options.steps:
            say(log, step=done, bits_a_byte=held_out_bits(model, options, sizes))
        if done % options.checkpoint_every == 0 or done == options.steps:
            save_checkpoint(checkpoint, header, done, model, optimisers)
    save_host(model, tokenizer, options.out / "host")


if __name__ == "__main__":
    main(tyro.cli(Options))
