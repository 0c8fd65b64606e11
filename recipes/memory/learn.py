"""Dictionaries of the writes that hold a fact in a memory host: of states and of writes, at every head that takes part.

    python recipes/memory/learn.py --host memory-gdn --out run

`run/SITE-TARGET/` are the dictionaries. Killed at any point, the same command goes on from where it was.

The facts are of a stated subset of the pairs, so that a dictionary has room for an atom a pair. How many features are
active is chosen without looking at any fact: for each `k` two seeds are trained, and the `k` whose seeds agree best is
taken (atoms matched one to one, share at a cosine of 0.9, weighted by firings on passages of their own; MATH.md
section 9). `run/SITE-TARGET.json` has the whole table, and the dictionary's own record too.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import tyro

from writesae.artifacts import save_sae
from writesae.corpus.facts import fact_blocks, vocabulary
from writesae.errors import InputError
from writesae.hosts import EMBEDDED, Host, load
from writesae.sae import SAE, TopK
from writesae.sae.compare import atom_cosines, matched
from writesae.sae.encoding import preactivations
from writesae.store import StreamStore, capture
from writesae.training import TrainConfig, TrainResult, train
from writesae.training.chunks import whole_batches
from writesae.training.sequences import read_sequences
from writesae.types import Site, Target

DRAWN = 2_000_003
"""Seed of the passages here: neither a host nor a test is drawn with it."""
ALIKE = 0.9
"""Cosine from which two atoms are one."""
CHUNK = 16
"""Consecutive tokens of a step on states."""


@dataclass(frozen=True)
class Options:
    """Train the dictionaries of one host."""

    host: str
    """An embedded memory host."""
    out: Path = Path("run")
    """Folder for streams, runs and the finished dictionaries."""
    sites: tuple[str, ...] = ()
    """Heads; none for those that hold a fact together, by the host's card."""
    targets: tuple[Target, ...] = ()
    """What is modelled; none for states and what a token writes."""
    names: int = 11
    """Names in play, the first of the vocabulary."""
    things: int = 33
    """Things in play."""
    facts: int = 8
    """Facts a passage."""
    passages: int = 6000
    """Passages to train on."""
    held_out: int = 300
    """Passages on which firings are counted."""
    features: int = 1024
    """Atoms a dictionary."""
    ks: tuple[int, ...] = (6, 8, 10)
    """Active features of a state that are tried."""
    write_ks: tuple[int, ...] = (1, 2, 4)
    """Active features of a write that are tried."""
    seeds: int = 2
    """Seeds a `k`; one where there is one `k` to take."""
    steps: int = 2000
    """Steps of 2,048 tokens."""
    threads: int = 1
    """CPU threads."""


def binding_sites(card: dict[str, object]) -> tuple[str, ...]:
    """The heads that hold a fact together, by a host's card."""
    together = card["deleted together"]
    assert isinstance(together, dict)
    return tuple(dict.fromkeys(name.partition("+")[0] for name in together))


def firings(store: StreamStore, config: TrainConfig, sae: SAE) -> torch.Tensor:
    """How often each feature fires over a store, `[N]`."""
    fired = torch.zeros(sae.config.features)
    sequences = read_sequences(store, config, range(store.sequences))
    for batch in whole_batches(sequences, config, CHUNK, 1.0):
        codes = sae.codes(preactivations(sae, batch, batch.matrices()))
        fired += torch.bincount(codes.index[codes.value > 0], minlength=len(fired))
    return fired


@torch.no_grad()
def agreement(store: StreamStore, first: TrainResult, second: TrainResult) -> float:
    """The share of firings whose atom the other seed has too, the mean of both ways."""
    pairs = matched(atom_cosines(first.sae, second.sae))
    shares = []
    for result, feature in ((first, pairs.first), (second, pairs.second)):
        fired = firings(store, result.config, result.sae)[feature]
        shares.append(float(fired[pairs.cosine >= ALIKE].sum() / fired.sum()))
    return float(np.mean(shares))


def settings(options: Options, site: Site, target: Target, k: int, seed: int) -> TrainConfig:
    """Of one run."""
    return TrainConfig(
        site=site, target=target, features=options.features, sparsity=TopK(k), steps=options.steps, batch=2048,
        chunk=CHUNK if target == "state" else None, lr=3e-3, lr_end=3e-4, aux_k=16, validation=0.05, seed=seed,
        device="cpu", threads=options.threads,
    )  # fmt: skip


def learn(options: Options, store: StreamStore, held_out: StreamStore, site: Site, target: Target) -> None:
    """The dictionary of one head and target: two seeds for each `k`, and the first of the `k` that agrees best."""
    name, table, results = f"{site}-{target}", [], dict[int, TrainResult]()
    ks = options.ks if target == "state" else options.write_ks
    if options.seeds < 2 and len(ks) > 1:
        raise InputError(f"one of k = {ks} is chosen by the agreement of two seeds: give --seeds 2, or one k")
    for k in ks:
        both = []
        for seed in range(max(1, options.seeds)):
            config = settings(options, site, target, k, seed)
            both.append(train(store, config, options.out / "runs" / f"{name}-k{k}-seed{seed}"))
        agree = round(agreement(held_out, *both[:2]), 4) if len(both) > 1 else None
        explained = [round(one.metrics.explained_variance, 4) for one in both]
        table.append({"k": k, "seeds agree": agree, "explained variance": explained})
        print(name, table[-1], flush=True)
        results[k] = both[0]
    best = max(table, key=lambda row: row["seeds agree"] or 0)
    (options.out / f"{name}.json").write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    sae = results[best["k"]].sae
    assert sae.record is not None
    record = replace(sae.record, metrics={**sae.record.metrics, "k chosen by agreement of seeds": table})
    save_sae(sae, options.out / name, record, replace=True)


def main(options: Options) -> None:
    """Capture and train."""
    torch.set_num_threads(options.threads)
    host: Host = load(options.host)
    card = json.loads((EMBEDDED[options.host] / "card.json").read_text(encoding="utf-8"))
    words = vocabulary(host.tokenizer, card["pattern"]).first(options.names, options.things)
    sites = [Site.parse(site) for site in options.sites or binding_sites(card)]
    layers = sorted({site.layer for site in sites})
    stores = []
    for number, (part, count) in enumerate((("train", options.passages), ("held out", options.held_out))):
        place = options.out / f"{part.replace(' ', '-')}.zarr"
        blocks = fact_blocks(words, count, options.facts, (DRAWN, number), part)
        stores.append(capture(host, blocks, layers, place, batch=64))
    for site in sites:
        write: Target = "write-value" if host.layers[site.layer].two_writes else "write-delta"
        for target in options.targets or ("state", write):
            learn(options, *stores, site, target)


if __name__ == "__main__":
    main(tyro.cli(Options))
