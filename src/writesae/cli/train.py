"""`writesae train`: train dictionaries from a stream store."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from writesae.cli.options import Flat, Spread


@dataclass(frozen=True)
class Command:
    """Train one dictionary a head from a store. A run that was stopped goes on where it was when the same command is
    given again; the defaults are the published recipe.

    Presets: writesae (bilinear encoder, rank-1 atoms), writesae_rank2, writesae_rank4, bilinear_tied, bilinear_flat,
    matrix (dense encoder, rank-1 atoms), flat (dense encoder, full-matrix atoms).
    """

    store: Annotated[str, tyro.conf.Positional]
    """Folder of the store, or its address."""
    out: Path
    """Folder of the results; with several heads or seeds, one folder a run is made in it."""
    site: tuple[str, ...]
    """Heads to train on: "L5.H0", "L5.H0,L5.H2", or a whole layer, "L5"."""
    target: Literal["state", "write-value", "write-delta", "write"] = "state"
    """What is modelled: the state, the native write b k v^T, or what is really added, k u^T ("write" for short)."""
    preset: str = "writesae"
    """Encoder and decoder by name."""
    sparsity: Literal["topk", "batch-topk", "jumprelu", "gated", "soft-gated"] = "topk"
    """Which features fire."""
    k: int = 32
    """Active features a token (what JumpReLU's penalty steers to)."""
    features: int = 2048
    """Number of atoms."""
    epochs: float = 20.0
    """Passes over the training sequences."""
    steps: int | None = None
    """Optimiser steps instead of epochs."""
    batch: int = 256
    """Tokens a step."""
    chunk: int | None = None
    """State target: consecutive tokens of a sequence in a step; shorter chunks mix more sequences and cost more.
    None: half the head size, 16 to 64."""
    stride: int = 1
    """State target: distance between a chunk's tokens in a step; equal to the chunk, tokens are independent."""
    lr: float = 3e-4
    """Adam's learning rate after the warm-up."""
    lr_end: float = 3e-5
    """Learning rate at the end of the cosine."""
    init: Literal["random", "writes"] = "random"
    """Atoms at the start: random, or writes that the head really made."""
    seeds: tuple[int, ...] = (0,)
    """Seeds, one run each: 0, or 0,1,2."""
    device: str = "auto"
    """cpu, cuda, cuda:1, or auto: CUDA where there is one."""
    memory: float = 4.0
    """GiB of data that all runs at work at one time hold together; of larger stores, a part is read at a time."""
    threads: int = 1
    """CPU threads; more pay only for large heads on an idle machine."""
    workers: int = 1
    """Runs at a time, each in a process of its own, as far as `--memory` allows."""
    spread: Flat[Spread] = field(default_factory=Spread)
    """Over which machines."""
    log: tuple[Literal["console", "tensorboard", "wandb", "trackio"], ...] = ("console",)
    """Where records go besides history.jsonl in the run's folder."""
    config: Path | None = None
    """JSON file of a TrainConfig, for every other setting; flags win over it."""
    given: Annotated[frozenset[str], tyro.conf.Suppress] = frozenset()
    """Names of the flags that were given."""


def run(command: Command) -> None:
    """Train, and print one line a dictionary when it is there."""
    from writesae.disk import check_place, check_there
    from writesae.errors import InputError

    if len(set(command.seeds)) < len(command.seeds):
        raise InputError(f"--seeds {', '.join(map(str, command.seeds))} names a seed twice")
    check_there(command.store, "`writesae capture` makes a store")
    check_place(command.out)
    if command.config is not None:
        check_there(command.config)
    from writesae.store import open_store
    from writesae.training import TrainResult, train_many
    from writesae.training.recipe import overruled, read_recipe, recipe, sites

    cluster = command.spread.cluster(command.workers)
    settings = command.given - {"out", "site", "seeds", "workers", "log", "config", "ray", "gpus_per_worker"}
    given = {name: getattr(command, name) for name in settings}
    base = None if command.config is None else read_recipe(command.config)
    seeds = command.seeds if base is None or "seeds" in command.given else (base.seed,)
    store = open_store(command.store)
    heads = sites(command.site, store)
    wanted = [recipe(base, given | {"site": site, "seed": seed}) for site in heads for seed in seeds]
    if base is not None and (told := overruled(base, wanted[0])):
        print(f"flags win over {command.config}: {'; '.join(told)}")

    def ended(result: TrainResult) -> None:
        print(result, flush=True)

    workers = 1 if cluster else command.workers
    train_many(store, wanted, command.out, command.log, workers=workers, ended=ended, cluster=cluster)
