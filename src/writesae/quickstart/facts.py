"""The first chapter: a host that remembers facts, the write that holds one, and an atom in its place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from writesae.artifacts import load_sae
from writesae.config import from_json
from writesae.corpus import TokenBlocks, text
from writesae.corpus.facts import fact_blocks, vocabulary
from writesae.evals import recall
from writesae.evals.common.result import Result
from writesae.hosts import Host, load
from writesae.quickstart.config import FACTS, HOST, NAMES, SEED, TARGETS, TAUGHT, THINGS, QuickstartConfig
from writesae.quickstart.progress import Bar
from writesae.sae import SAE
from writesae.show.progress import Ticker
from writesae.store import capture
from writesae.training import TrainConfig, train_many

FEW: Mapping[str, Any] = MappingProxyType(
    {"counts": FACTS, "gap": 0, "reach": 5, "tried": 4, "found_on": 3, "amplitudes": "coefficient", "pairs_on": 48,
     "baselines": ()}
)  # fmt: skip
"""What keeps it to seconds: a fact is looked for at the tokens of its own statement."""


def remembered(path: Path, config: QuickstartConfig, device: str, bars: Callable[[str], Ticker]) -> Result[Any, Any]:
    """What `recall` finds with the dictionaries that ship, or with those trained anew."""
    host = load(HOST, device=device)
    saes = taught(path, config, host, bars) if config.train else {name: shipped(name) for name in TARGETS}
    _, test = text("sample", host).split()
    return recall(
        host, list(saes.values()), test, passages=config.memory_passages, names=NAMES, things=THINGS, facts=FACTS,
        seed=config.seed, **FEW, out=path / "results" / "recall", progress=bars("facts"),
    )  # fmt: skip


def shipped(name: str) -> SAE:
    """The dictionary of states or of writes that comes with the package."""
    return load_sae(f"{HOST}/{name}")


def passages(host: Host) -> TokenBlocks:
    """What it was trained on."""
    return fact_blocks(vocabulary(host.tokenizer).first(NAMES, THINGS), TAUGHT, FACTS, SEED, "train")


def taught(path: Path, config: QuickstartConfig, host: Host, bars: Callable[[str], Ticker]) -> dict[str, SAE]:
    """The dictionaries trained anew, as their own records say."""
    recipes, loggers = [], []
    for name in TARGETS:
        record = shipped(name).record
        assert record is not None
        recipe = from_json(TrainConfig, record.training["config"])
        recipes.append(recipe)
        loggers.append([Bar(bars(f"train on the {name}"), recipe.steps or 0)])
    layers = sorted({recipe.site.layer for recipe in recipes})
    store = capture(host, passages(host), layers, path / "facts.zarr", batch=64, progress=bars("capture facts"))
    places = [path / "train" / f"memory-{name}" for name in TARGETS]
    results = train_many(store, recipes, places, loggers=loggers, workers=min(config.workers, len(recipes)))
    return {name: result.sae for name, result in zip(TARGETS, results, strict=True)}
