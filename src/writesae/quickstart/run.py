"""The whole chain on one host: audit, capture, train both targets, test both, describe their atoms, one page.

Every part writes what it always writes, in one folder: a store, runs, ordinary results and the ordinary page, which
begins with a chapter of its own. What is finished is not run again.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from writesae.artifacts import add_metrics
from writesae.causal.runs import shared_runs
from writesae.config import Json, to_json
from writesae.corpus import text
from writesae.disk import alone, claim
from writesae.evals import atoms, spectrum, substitution
from writesae.evals.common.result import Result
from writesae.hosts import Host
from writesae.memory import refuse_unless_free
from writesae.page import report
from writesae.quickstart.config import TARGETS, QuickstartConfig
from writesae.quickstart.facts import remembered
from writesae.quickstart.progress import Bar
from writesae.sae import SAE, TopK
from writesae.show.progress import Ticker, bars_on
from writesae.store import StreamStore, capture
from writesae.training import TrainConfig, train_many
from writesae.types import Site

KIND = "quickstart"
AUDIT_PASSAGES = 8
SHARE = 0.8
"""Of the text: training text; the rest is held out."""


def quickstart(path: Path, config: QuickstartConfig, host: Host, console: Console | None = None) -> Path:
    """Run everything that is not finished yet in `path` and return the page's place.

    Raises OutputError where `path` belongs to another run, InputError for an unknown site or too little text.
    """
    console = Console() if console is None else console
    if config.site is not None:
        host.check_site(Site.parse(config.site))
    _check_room(host, config)
    train_text, test = text("sample", host, length=config.length).split(SHARE)
    blocks = train_text.blocks(-(-config.tokens // config.length))
    passages = test.draw(config.passages, config.seed)
    settings = {name: value for name, value in _plain(config).items() if name != "workers"}
    asked: dict[str, Json] = {"kind": KIND, "config": settings, "revision": host.revision}
    results, seed = path / "results", config.seed
    with alone(path), bars_on(console) as bars, shared_runs():
        claim(path, KIND, asked)
        console.print(f"[bold]facts[/bold]: {remembered(path, config, str(host.device), bars)}", highlight=False)
        few = test.draw(min(AUDIT_PASSAGES, config.passages), seed)
        audit = spectrum(host, few, seed=seed, out=results / "spectrum", progress=bars("audit every head"))
        site = Site.parse(config.site or audit.summary.default_site)
        store = capture(host, blocks, [site.layer], path / "streams.zarr", progress=bars(f"capture L{site.layer}"))
        saes = train(path, config, site, store, bars)
        found = {}
        for name, sae in saes.items():
            out, bar = results / f"substitution-{name}", bars(f"replace writes, {name}")
            found[name] = substitution(host, sae, passages, firings=config.firings, seed=seed, out=out, progress=bar)
            out, bar = results / f"atoms-{name}", bars(f"describe atoms, {name}")
            atoms(host, sae, passages, atoms=config.atoms, seed=seed, out=out, progress=bar)
    page = report(path)
    for name, result in found.items():
        _record(path / "train" / name, result)
        console.print(f"[bold]{name}[/bold]: {result}", highlight=False)
    console.print(f"Report: [bold]{page}[/bold]")
    return page


def _check_room(host: Host, config: QuickstartConfig) -> None:
    """Raise InputError, before any work, where not even the parameters of both dictionaries fit in what is free."""
    site = Site.parse(config.site) if config.site else Site(min(host.layers), 0)
    layer = host.layers[site.layer]
    numbers = sum(recipe.sae(layer.d_k, layer.d_v).numbers for recipe in recipes(config, site))
    what = f"two dictionaries of {config.features:,} features in training"
    refuse_unless_free(4 * 4 * numbers, host.device, what, "take fewer features")


def _plain(config: QuickstartConfig) -> dict[str, Json]:
    data = to_json(config)
    assert isinstance(data, dict)
    return data


def recipes(config: QuickstartConfig, site: Site) -> list[TrainConfig]:
    """How both dictionaries are trained."""
    steps = max(1, config.train_tokens // config.batch)
    return [
        TrainConfig(
            site=site, target=target, features=config.features, sparsity=TopK(config.k), steps=steps,
            batch=config.batch, lr=3e-3, lr_end=3e-4, init="writes", validation=0.1,
            validate_every=max(1, steps // 8), seed=config.seed,
        )
        for target in TARGETS.values()
    ]  # fmt: skip


def train(
    path: Path, config: QuickstartConfig, site: Site, store: StreamStore, bars: Callable[[str], Ticker]
) -> dict[str, SAE]:
    """Both dictionaries, side by side."""
    configs = recipes(config, site)
    places = [path / "train" / name for name in TARGETS]
    loggers = [[Bar(bars(f"train on the {name}"), one.steps or 0)] for name, one in zip(TARGETS, configs, strict=True)]
    trained = train_many(store, configs, places, loggers=loggers, workers=min(config.workers, len(configs)))
    return {name: result.sae for name, result in zip(TARGETS, trained, strict=True)}


def _record(run: Path, result: Result[Any, Any]) -> None:
    """What was found goes into the dictionary's own record."""
    data = result.to_json()
    add_metrics(run / "sae", {"substitution": {"finding": data["finding"], "n": data["n"]}})
