"""Train a host that remembers facts.

    python recipes/memory/teach.py --family gdn --out run

`run/log.jsonl` gets loss and recall as they go; `run/host/` is the finished model, which `writesae` loads as a host.
Killed at any point, the same command goes on from the last checkpoint and ends with the same weights to the bit (on one
machine with one number of threads).
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import tyro
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from writesae.corpus import text
from writesae.corpus.facts import FactPassages, draw_facts, sentences, vocabulary

sys.path.extend(str(Path(__file__).parents[1] / name) for name in ("tiny_gdn", "tiny_mamba2"))

from model import save_host  # recipes are scripts, not a package
from parallel import training
from tokens import open_tokenizer, write_tokenizer
from train import load_checkpoint, save_checkpoint, say, trim_log

FEWEST, MOST = 2, 10
"""Facts a passage at the start, and at the end."""
ENOUGH = 0.9
"""Recall of a batch from which the next one holds a fact more."""
SHARE = 0.5
"""Passages with sentences between, in every second batch; in the others facts and questions stand alone."""
PASSAGES = 1_000_000
"""More than a batch has: the number after a seed and a step is that of a passage."""
WARM_UP = 20
OTHERS = 0.3
"""Rate of embeddings, gates, norms and convolutions, as a share of the matrices'. At 1 little is learnt."""


@dataclass(frozen=True)
class Options:
    """Train a memory host."""

    family: Literal["gdn", "deltanet", "gla", "kda", "mamba2", "rwkv7"]
    """Which of families/."""
    out: Path = Path("run")
    """Folder for checkpoint, log and the finished host."""
    steps: int = 0
    """Optimiser steps; 0 for as many as the shipped host of the family took."""
    batch: int = 64
    """Passages a step, at most."""
    answers: int = 256
    """Answers a step, at most: with more facts there are fewer passages."""
    rate: float = 1e-2
    """Learning rate of the matrices: a warm-up of 20 steps, then constant, and linearly to nothing over the last half.
    All else learns at 0.3 of it."""
    decay: float = 0.1
    """Weight decay of the matrices."""
    seed: int = 0
    """Of the weights and of the passages."""
    threads: int = 1
    """CPU threads."""
    checkpoint_every: int = 50
    """Steps between checkpoints."""


def learning_rate(step: int, options: Options) -> float:
    """The rate of a step, a function of nothing else."""
    return options.rate * min(1.0, (step + 1) / WARM_UP, 2 * (1 - step / options.steps))


def optimisers(model: nn.Module, options: Options) -> list[torch.optim.Optimizer]:
    """Muon for the matrices between layers, AdamW without decay for all else."""
    head = model.get_output_embeddings()
    inner = [m.weight for m in model.modules() if isinstance(m, nn.Linear) and m is not head]
    others = [p for p in model.parameters() if all(p is not weight for weight in inner)]
    return [
        torch.optim.Muon(inner, lr=options.rate, weight_decay=options.decay, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=options.rate, weight_decay=0.0, betas=(0.9, 0.95)),
    ]


def answers(model: nn.Module, passages: FactPassages) -> tuple[Tensor, Tensor]:
    """Logits at the end of every question and the token that answers it, `[N, vocabulary]` and `[N]`."""
    row, fact = passages.stands.nonzero()
    asked, thing = (torch.from_numpy(x[row, fact]) for x in (passages.asked, passages.thing))
    hidden = model.base_model(input_ids=torch.from_numpy(passages.tokens), use_cache=False).last_hidden_state
    return model.get_output_embeddings()(hidden[torch.from_numpy(row), asked]), thing


def facts_so_far(log: Path) -> int:
    """How many facts a passage holds, by the log."""
    entries = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    return max([FEWEST, *(entry["facts"] for entry in entries if "facts" in entry)])


def main(options: Options) -> None:
    """Train and save."""
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    family, tokenizer = import_module(f"families.{options.family}"), open_tokenizer()
    options = dataclasses.replace(options, steps=options.steps or family.STEPS)
    words = vocabulary(tokenizer, family.PATTERN)
    between = sentences(text("sample", tokenizer).split()[0], words)
    model = family.build(len(tokenizer)).float().eval()
    both = optimisers(model, options)
    options.out.mkdir(parents=True, exist_ok=True)
    checkpoint, log = options.out / "checkpoint.pt", options.out / "log.jsonl"
    header = {k: v for k, v in dataclasses.asdict(options).items() if k not in ("out", "checkpoint_every")}
    first = load_checkpoint(checkpoint, header, model, both)
    trim_log(log, first)
    if first == 0:
        say(log, parameters=sum(p.numel() for p in model.parameters()), **header)
    facts, started = facts_so_far(log), time.perf_counter()
    with training(model):
        for step in range(first, options.steps):
            for optimiser, share in zip(both, (1.0, OTHERS), strict=True):
                for group in optimiser.param_groups:
                    group["lr"] = share * learning_rate(step, options)
            random = np.random.default_rng((options.seed, step, PASSAGES))
            held = int(random.integers(FEWEST, facts + 1)) if random.random() < family.FEWER else facts
            rows, share = min(options.batch, options.answers // held), SHARE * (step % 2)
            passages = draw_facts(words, rows, held, (options.seed, step), between=between, share=share)
            logits, thing = answers(model, passages)
            loss = cross_entropy(logits, thing)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for optimiser in both:
                optimiser.step()
                optimiser.zero_grad(set_to_none=True)
            done, recall = step + 1, float((logits.argmax(-1) == thing).float().mean())
            if recall >= ENOUGH and held == facts < MOST:
                facts += 1
                say(log, step=done, facts=facts)
            if done % 25 == 0 or done == options.steps:
                seconds = round((time.perf_counter() - started) / (done - first), 2)
                say(log, step=done, loss=round(loss.item(), 4), recall=round(recall, 4), seconds_a_step=seconds)
            if done % options.checkpoint_every == 0 or done == options.steps:
                save_checkpoint(checkpoint, header, done, model, both)
    write_tokenizer(options.out / "tokenizer.json")
    save_host(model, options.out / "tokenizer.json", options.out / "host")


if __name__ == "__main__":
    main(tyro.cli(Options))
