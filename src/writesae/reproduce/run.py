"""The whole reproduction: capture, train what claims need, measure, read, compare. Everything finished is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from writesae.artifacts import load_sae
from writesae.causal.runs import shared_runs
from writesae.corpus import Passages, Text, TokenBlocks, text
from writesae.corpus.facts import fact_blocks, sentences, vocabulary
from writesae.disk import alone, write_json
from writesae.errors import WritesaeError
from writesae.evals import EVALUATIONS
from writesae.evals.common.result import Result, plain
from writesae.evals.spectrum.summary import most
from writesae.hosts import EMBEDDED, Host, Layer, load
from writesae.hosts.sources import find, pattern_of
from writesae.reproduce.answers import Found
from writesae.reproduce.bindings import BINDINGS, MEASUREMENTS, Binding
from writesae.reproduce.claims import claims
from writesae.reproduce.config import ReproduceConfig
from writesae.reproduce.dictionaries import SHIPPED, Heads, given, trained
from writesae.reproduce.dictionaries import config as recipe_of
from writesae.reproduce.dictionaries import place as run_of
from writesae.reproduce.mended import Say, intact, mended
from writesae.reproduce.registration import RUN, begin, kept, settings
from writesae.reproduce.rows import Row, row, without
from writesae.reproduce.sizes import Sizes
from writesae.sae import SAE
from writesae.show.progress import Ticker, bars_on
from writesae.store import capture
from writesae.types import Site

TABLE = "reproduction.json"
AUDIT_PASSAGES = 8
SHARE = 0.8
"""Of the text: training text; the rest is held out."""
FACTS = 8
"""A passage, where a host has learnt facts."""
DRAWN = 3_000_017
"""Seed of those passages; neither the host nor its dictionaries were made with it."""

Bars = Callable[[str], Ticker]


def reproduce(config: ReproduceConfig, out: Path, console: Console | None = None) -> list[Row]:
    """Measure every claim on every host in the folder `out`, and return the table's rows; `reproduction.json` holds
    them too, and `HOST/` everything that they come from.

    The same call goes on where one was stopped. Where a plan was registered in the folder, the file says whether it was
    kept. Raises OutputError for a folder of another reproduction, InputError for an unknown host or site.
    What one claim's measurement refuses is said in its row, and of `all` hosts why one cannot be loaded.
    """
    console = Console() if console is None else console
    everything = config.hosts == ("all",)
    first, *others = asked_of(config)
    for name in others:
        find(name, None)
    host, rows = None if everything else load(first), list[Row]()
    if host is not None and config.site is not None:
        host.check_site(Site.parse(config.site))
    with alone(out):
        begin(config, out)
        for name, own in asked_of(config).items():
            try:
                host = host if host is not None and name == first else load(name)
            except WritesaeError as error:
                if not everything:
                    raise
                rows += [without(one, name, str(error)) for one in own.wanted()]
                continue
            with bars_on(console, f"{name}: ") as bars, shared_runs():
                rows += on_host(host, name, own, folder_of(out, name), bars, console.print)
        write_json(
            out / TABLE, {"kind": RUN, "config": settings(config), "plan": kept(config, out), "rows": plain(rows)}
        )
    return rows


def asked_of(config: ReproduceConfig) -> dict[str, ReproduceConfig]:
    """Every host with what is asked of it: all that is wanted, and of hosts that a claim has for itself that claim."""
    hosts = dict.fromkeys(EMBEDDED if config.hosts == ("all",) else config.hosts, config)
    for one in BINDINGS:
        if one.host and one.host not in hosts and one.claim in config.wanted():
            hosts[one.host] = replace(config, claims=(one.claim,), site=None)
    return hosts


def folder_of(out: Path, host: str) -> Path:
    """Everything of one host."""
    return out / host.replace("/", "--")


def on_host(host: Host, name: str, config: ReproduceConfig, place: Path, bars: Bars, say: Say) -> list[Row]:
    """The rows of one host."""
    sizes, results, wanted = config.sizes, place / "results", config.wanted()
    train, test = texts(host, name, config)
    audit = mended(results / "spectrum", lambda: EVALUATIONS["spectrum"](
        host, _few(test, AUDIT_PASSAGES), out=results / "spectrum", progress=bars("audit every head")
    ), say)  # fmt: skip
    first = next(iter(host.layers.values()))
    fits = [one for one in BINDINGS if one.claim in wanted and not _unfit(one, name, first.family)]
    if first.one_site:  # its state can be audited, and nothing is trained on it
        fits = [one for one in fits if one.asks == ("spectrum",)]
    found: dict[str, list[Result[Any, Any]]] = {"spectrum": [audit]}
    refused: dict[str, list[str]] = {}
    names = list(dict.fromkeys(name for one in fits for name in one.asks if name not in found))
    if names:
        heads = chosen_heads(host, audit, config)
        groups = {name: given(MEASUREMENTS[name].dictionaries, heads, sizes) for name in names}
        saes = dictionaries(host, train, heads, groups.values(), config, place, bars, say)
        bar = bars("measure")
        for number, asked in enumerate(names):
            bar(number, len(names))
            found[asked], refused[asked] = [], []
            for key, group in _keys(asked, groups[asked]):
                own = [saes[one] for one in group]
                run = partial(measured, host, asked, own, heads.main, test, sizes, results, key)
                try:
                    found[asked].append(mended(results / key, run, say))
                except WritesaeError as error:
                    refused[asked].append(str(error))
        bar(len(names), len(names))
    return [
        line for one in claims() if one.id in wanted for line in _rows(one.id, fits, found, refused, host.name, first)
    ]


def _unfit(binding: Binding, host: str, family: str) -> str:
    """Why a claim has no meaning on a host; empty where it has."""
    if binding.family not in ("", family):
        return f"is about hosts of the family {binding.family}"
    return f"{binding.differs}" if binding.host not in ("", host) else ""


def _rows(
    claim_id: str, fits: Sequence[Binding], found: Found, refused: dict[str, list[str]], host: str, layer: Layer
) -> list[Row]:
    (binding,) = (one for one in BINDINGS if one.claim == claim_id)
    if binding not in fits:
        return [without(claim_id, host, _unfit(binding, host, layer.family) or layer.architecture.audit_only)]
    missing = [why for name in binding.asks for why in refused.get(name, ())]
    if any(not found[name] for name in binding.asks):
        return [without(claim_id, host, missing[0])]
    rows = [row(binding, number, host, layer.family) for number in binding.read(found)]
    said = f"; {len(missing)} refused: {missing[0]}" if missing else ""
    return [replace(one, differs=one.differs + said) for one in rows]


def chosen_heads(host: Host, audit: Result[Any, Any], config: ReproduceConfig) -> Heads:
    """The main head, all of its layer, and one of every other part of the model: as published, or as the audit says."""
    sizes, at = config.sizes, audit.records
    sites = [Site.parse(site) for site in sizes.sites if config.site is None]
    if not sites or not set(sites) <= set(host.sites):
        main = Site.parse(config.site or audit.summary.default_site)
        parts = np.array_split(list(host.layers), min(sizes.layers, len(host.layers)))
        best = [most(at[at.layer.isin(part)], audit.config) for part in parts if main.layer not in part]
        sites = [main, *(Site(int(one["layer"]), int(one["head"])) for one in best)]
    main = sites[0]
    host.check_site(main)
    layer = tuple(Site(main.layer, head) for head in range(host.layers[main.layer].heads))
    return Heads(main, layer, tuple(sorted(sites, key=lambda site: site.layer)))


def dictionaries(
    host: Host, train: Text | TokenBlocks, heads: Heads, groups: Iterable[list[list[str]]], config: ReproduceConfig,
    place: Path, bars: Bars, say: Say,
) -> dict[str, SAE]:  # fmt: skip
    """Every dictionary that a measurement is given, trained or loaded, by name."""
    sizes, store = config.sizes, place / "streams.zarr"
    needed = list(dict.fromkeys(name for several in groups for group in several for name in group))
    ready = {name: load_sae(f"{host.name}/{name.partition('/')[2]}") for name in needed if name.startswith(SHIPPED)}
    configs = {name: recipe_of(name, heads, host.layers, sizes) for name in needed if name not in ready}
    if not configs:
        return ready
    intact([run_of(place / "train", name) for name in configs], store, say)
    layers = sorted({site.layer for site in (heads.main, *heads.layers)})
    tokens = sizes.tokens if isinstance(train, Text) else None
    held = mended(store, lambda: capture(host, train, layers, store, tokens=tokens, progress=bars("capture")), say)
    done, bar = [0], bars("train dictionaries")

    def ended(_: object) -> None:
        done[0] += 1
        bar(done[0], len(configs))

    return ready | trained(held, configs, place / "train", config.workers, ended)


def _keys(name: str, groups: Sequence[Sequence[str]]) -> Iterator[tuple[str, Sequence[str]]]:
    """Folder of each result of a measurement, with its dictionaries."""
    for number, group in enumerate(groups):
        yield (name if len(groups) == 1 else f"{name}-{number}"), group


def measured(
    host: Host, name: str, saes: Sequence[SAE], site: Site, test: Text | Passages, sizes: Sizes, results: Path, key: str
) -> Result[Any, Any]:  # fmt: skip
    """One result of a measurement, measured or read."""
    what, (options, count) = MEASUREMENTS[name], options_of(name, sizes)
    if what.english:
        test = text("sample", host, length=sizes.length).split(SHARE)[1]
    if what.site:
        options.setdefault("site", str(site))
    if isinstance(test, Text):
        options["passages"] = count
    else:
        test = _few(test, count)
    own = [list(saes) if len(saes) > 1 else saes[0]] if saes else []
    return EVALUATIONS[what.evaluation](host, *own, test, out=results / key, **options)


def options_of(name: str, sizes: Sizes) -> tuple[dict[str, Any], int]:
    """The options of a measurement, and how many passages it is made on."""
    what = MEASUREMENTS[name]
    evaluation = EVALUATIONS[what.evaluation]
    options = sizes.options.get(what.evaluation, {}) | sizes.options.get(name, {}) | dict(what.options)
    return options, options.pop("passages", evaluation.passages if evaluation.length else sizes.passages)


def texts(host: Host, name: str, config: ReproduceConfig) -> tuple[Text | TokenBlocks, Text | Passages]:
    """Text to train on and held-out text: English, or for a host that has learnt facts passages that tell some."""
    sizes, pattern = config.sizes, pattern_of(name)
    if pattern is None:
        return text(sizes.corpus, host, length=sizes.length).split(SHARE)
    words = vocabulary(host.tokenizer, pattern)
    between = sentences(text("sample", host), words)
    counts = {"train": -(-sizes.tokens // sizes.length), "test": max(1000, sizes.passages)}
    blocks, held = (
        fact_blocks(words, count, FACTS, (DRAWN, number), part, between)
        for number, (part, count) in enumerate(counts.items())
    )
    return blocks, Passages(held.tokens, "facts", f"test, seed {DRAWN}", None)


def _few(test: Text | Passages, count: int) -> Passages:
    return test.draw(count, 0) if isinstance(test, Text) else replace(test, tokens=test.tokens[:count])
