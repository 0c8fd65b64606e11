"""The whole reproduction: capture, train what claims need, measure, read, compare. Everything finished is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from writesae.causal.runs import shared_runs
from writesae.config import Json
from writesae.corpus import Passages, Text, TokenBlocks, text
from writesae.corpus.facts import draw_facts, sentences, vocabulary
from writesae.disk import alone, read_json, write_json
from writesae.errors import WritesaeError
from writesae.evals import EVALUATIONS
from writesae.evals.common.result import Result, plain
from writesae.hosts import EMBEDDED, Host, load
from writesae.hosts.sources import find
from writesae.reproduce.answers import Found
from writesae.reproduce.bindings import BINDINGS, MEASUREMENTS, Binding, Measurement
from writesae.reproduce.claims import claims
from writesae.reproduce.config import ReproduceConfig
from writesae.reproduce.dictionaries import config as recipe_of
from writesae.reproduce.dictionaries import layer_heads, trained
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
    What one claim's measurement refuses is said in its row.
    """
    console = Console() if console is None else console
    hosts = list(EMBEDDED) if config.hosts == ("all",) else list(config.hosts)
    for name in hosts[1:]:
        find(name, None)
    host, rows = load(hosts[0]), list[Row]()
    if config.site is not None:
        host.check_site(Site.parse(config.site))
    with alone(out):
        begin(config, out)
        for number, name in enumerate(hosts):
            host = load(name) if number else host
            with bars_on(console, f"{name}: ") as bars, shared_runs():
                rows += on_host(host, name, config, out / name.replace("/", "--"), bars)
        write_json(
            out / TABLE, {"kind": RUN, "config": settings(config), "plan": kept(config, out), "rows": plain(rows)}
        )
    return rows


def on_host(host: Host, name: str, config: ReproduceConfig, place: Path, bars: Bars) -> list[Row]:
    """The rows of one host."""
    sizes, results, wanted = config.sizes, place / "results", config.wanted()
    train, test = texts(host, name, config)
    audit = EVALUATIONS["spectrum"](
        host, _few(test, AUDIT_PASSAGES), out=results / "spectrum", progress=bars("audit every head")
    )
    site = Site.parse(config.site or audit.summary.default_site)
    host.check_site(site)
    family = host.layers[site.layer].family
    fits = [one for one in BINDINGS if one.claim in wanted and one.family in ("", family)]
    names = list(dict.fromkeys(name for one in fits for name in one.asks))
    given = {name: _given(MEASUREMENTS[name], site, host, sizes) for name in names}
    needed = list(dict.fromkeys(one for groups in given.values() for group in groups for one in group))
    tokens = sizes.tokens if isinstance(train, Text) else None
    store = capture(host, train, [site.layer], place / "streams.zarr", tokens=tokens, progress=bars("capture"))
    configs = {one: recipe_of(one, site, host, sizes) for one in needed}
    done, bar = [0], bars("train dictionaries")

    def ended(_: object) -> None:
        done[0] += 1
        bar(done[0], len(configs))

    saes = trained(store, configs, place / "train", config.workers, ended)
    found: dict[str, list[Result[Any, Any]]] = {}
    refused: dict[str, str] = {}
    bar = bars("measure")
    for number, name in enumerate(names):
        bar(number, len(names))
        try:
            found[name] = [
                measured(host, MEASUREMENTS[name], [saes[one] for one in group], site, test, sizes, results, key)
                for key, group in _keys(name, given[name])
            ]
        except WritesaeError as error:
            refused[name] = str(error)
    bar(len(names), len(names))
    return [
        line for one in claims() if one.id in wanted for line in _rows(one.id, fits, found, refused, host.name, family)
    ]


def _rows(
    claim_id: str, fits: Sequence[Binding], found: Found, refused: dict[str, str], host: str, family: str
) -> list[Row]:
    binding = next((one for one in fits if one.claim == claim_id), None)
    if binding is None:
        bound = next((one for one in BINDINGS if one.claim == claim_id), None)
        why = f"is about hosts of the family {bound.family}" if bound and bound.family else "nothing here measures it"
        return [without(claim_id, host, why)]
    missing = [refused[name] for name in binding.asks if name in refused]
    if missing:
        return [without(claim_id, host, missing[0])]
    return [row(binding, number, ours, host, family) for number, ours in enumerate(binding.read(found))]


def _given(measurement: Measurement, site: Site, host: Host, sizes: Sizes) -> list[list[str]]:
    """The dictionaries of every result of a measurement."""
    if not measurement.dictionaries:
        return [[]]
    groups: list[list[str]] = []
    for word in measurement.dictionaries:
        kind, _, seed = word.partition("/")
        if kind == "layer":
            groups += [[one] for one in layer_heads(seed, site, host)]
        elif seed == "*":
            groups += [[f"{kind}/{number}"] for number in range(sizes.seeds)]
        elif seed == "+":
            groups.append([f"{kind}/{number}" for number in range(max(2, sizes.seeds))])
        else:
            groups.append(word.split())
    return groups


def _keys(name: str, groups: Sequence[Sequence[str]]) -> Iterator[tuple[str, Sequence[str]]]:
    """Folder of each result of a measurement, with its dictionaries."""
    for number, group in enumerate(groups):
        yield (name if len(groups) == 1 else f"{name}-{number}"), group


def measured(
    host: Host, what: Measurement, saes: Sequence[SAE], site: Site, test: Text | Passages, sizes: Sizes, results: Path,
    key: str,
) -> Result[Any, Any]:  # fmt: skip
    """One result, measured or read."""
    evaluation = EVALUATIONS[what.evaluation]
    own = dict(sizes.options.get(what.evaluation, {}))
    known = {f for f in own if f == "passages" or f in evaluation.config.__dataclass_fields__}
    options: dict[str, Any] = {name: own[name] for name in known} | dict(what.options)
    if what.site:
        options.setdefault("site", str(site))
    count = options.pop("passages", evaluation.passages if evaluation.length else sizes.passages)
    if isinstance(test, Text):
        options["passages"] = count
    else:
        test = _few(test, count)
    dictionaries = [list(saes) if len(saes) > 1 else saes[0]] if saes else []
    return evaluation(host, *dictionaries, test, out=results / key, **options)


def texts(host: Host, name: str, config: ReproduceConfig) -> tuple[Text | TokenBlocks, Text | Passages]:
    """Text to train on and held-out text: English, or for a host that has learnt facts passages that tell some."""
    sizes = config.sizes
    if name not in EMBEDDED or "pattern" not in (card := _card(name)):
        return text(config.corpus, host, length=sizes.length).split(SHARE)
    words = vocabulary(host.tokenizer, str(card["pattern"]))
    between = sentences(text("sample", host), words)
    drawn = draw_facts(words, -(-sizes.tokens // sizes.length), FACTS, (DRAWN, 0), between=between).tokens
    held = draw_facts(words, max(1000, sizes.passages), FACTS, (DRAWN, 1), between=between).tokens
    blocks = replace(TokenBlocks.of(drawn), source="facts", part=f"train, seed {DRAWN}")
    return blocks, Passages(held, "facts", f"test, seed {DRAWN}", None)


def _card(name: str) -> dict[str, Json]:
    card = read_json(EMBEDDED[name] / "card.json")
    assert isinstance(card, dict)
    return card


def _few(test: Text | Passages, count: int) -> Passages:
    return test.draw(count, 0) if isinstance(test, Text) else replace(test, tokens=test.tokens[:count])
