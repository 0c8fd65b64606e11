"""What the pages of findings show, from result files: rows of tables, and pictures."""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from statistics import median
from typing import Any

from dots import Dot, dots

from writesae.hosts.shape import STATED, shape_of
from writesae.show import words
from writesae.training import TrainConfig
from writesae.training.costs import H100, capture_seconds, store_bytes, train_seconds
from writesae.types import Site

RESULTS = Path(__file__).parent / "results"
PREDICTIONS = Path(__file__).parent / "findings" / "predictions.toml"
Table = dict[str, Any]
INSTEAD = {
    "native": "as it was",
    "delete": "erased",
    "random": "a random matrix",
    "state": "atom, by state (published)",
    "increment": "atom, by increment",
    "write": "atom of writes",
}
"""What stands in the place of the write that holds a fact."""
EVERY = {"all increment": "all active of states, by increment", "all write": "all active of writes"}
"""What else does: the most that a dictionary says."""
FACTORS = ("reading", "amplitude", "timing", "native_write", "direction")
"""What published accounts of the test differ in, or do not say."""


CAPTURED, PASSES = 5_120_000, 20 * 0.8
"""Tokens that the published recipe captures, and how often training sees them."""
OTHERWISE = (("memory-gla/recall-atoms", "increment"),)
"""Result and reading of predictions that name settings which were not run: other steps, and `k` otherwise chosen."""


def read(path: Path) -> Table:
    """A result's summary file."""
    data: Table = json.loads(path.read_text(encoding="utf-8"))
    return data


def told(share: Table) -> str:
    """A share and its interval."""
    return f"{words.percent(share['value'])} ({words.interval(share['wilson'] or share['interval'])})"


def facts_of(path: Path) -> Table:
    """What recall found: by what stands in the place of a fact's writes, at an atom's coefficient."""
    summary = read(path)["summary"]
    found: Table = {"native": {"right": native(summary)}, "cells": summary["cells"]}
    found["alike"] = median(one["alike"] for one in summary["recovered"])
    for cost in summary["costs"]:
        kind = {"atom": cost["reading"], "all_active": f"all {cost['reading']}"}.get(
            cost["condition"], cost["condition"]
        )
        if kind in INSTEAD | EVERY and (cost["condition"] != "atom" or cost["amplitude"] == "coefficient"):
            found[kind] = cost
    return found


def native(summary: Table) -> Table:
    """Recall of the passages whose facts are changed."""
    return next(one["right"] for one in summary["recalled"] if one["facts"] == summary["facts"])


def fact(host: str) -> Table:
    """Still right, of all facts, with each thing in the place of the write."""
    found = facts_of(RESULTS / host / "recall" / "summary.json")
    rows = [[f"still right, of {found['delete']['right']['n']} facts"]]
    rows[0] += [told(found[kind]["right"]) for kind in INSTEAD if kind in found]
    return {"head": ["in its place", *(INSTEAD[kind] for kind in INSTEAD if kind in found)], "rows": rows}


def with_dictionaries() -> dict[str, Path]:
    """The results of memory hosts with dictionaries, by what they are called."""
    names = {"recall-atoms": "", "recall-all-pairs": ", all pairs", "recall-k2": ", two active of a write"}
    paths = sorted(RESULTS.glob("memory-*/recall-*/summary.json"))
    return {path.parents[1].name + names[path.parent.name]: path for path in paths}


def recoveries() -> Table:
    """Known pairs that have an atom of their own, by dictionary; the median over the heads that hold a fact."""
    rows = []
    for name, path in with_dictionaries().items():
        found = read(path)["summary"]["recovered"]
        for kind in dict.fromkeys(one["dictionary"] for one in found):
            own = [one for one in found if one["dictionary"] == kind]
            alike = words.fixed(median(one["alike"] for one in own))
            row = [name, kind, words.count(own[0]["features"]), words.count(own[0]["pairs"]), alike]
            rows.append(
                [*row, *(words.percent(median(x[at]["value"] for x in own)) for at in ("matched", "matched_low"))]
            )
    head = ["host", "dictionary", "atoms", "pairs", "cosine of the most alike", "pairs with an atom at 0.9, one to one"]
    return {"head": [*head, "at 0.7"], "rows": rows}


def memory_hosts() -> dict[str, Table]:
    """What recall found on each host with dictionaries of the writes that hold a fact, and in the quickstart."""
    found = {name: facts_of(path) for name, path in with_dictionaries().items()}
    return found | {"memory-gdn, quickstart": facts_of(RESULTS / "quickstart" / "recall" / "summary.json")}


def facts() -> Table:
    """Every memory host, a line each."""
    rows = []
    for host, found in memory_hosts().items():
        gone = found["delete"]
        lost = f"{words.decimals(gone['lost'])} ({' to '.join(words.decimals(x) for x in gone['quartiles'])})"
        shares = [told(found[kind]["right"]) if kind in found else words.MISSING for kind in INSTEAD | EVERY]
        alike = words.fixed(found["alike"])
        rows.append([host, ", ".join(found["cells"]), alike, lost, words.percent(gone["others_right"]), *shares])
    head = ["host", "the writes that hold a fact", "cosine of the most alike", "nats lost without"]
    head += ["others right without", *(INSTEAD | EVERY).values()]
    return {"head": head, "rows": rows}


def kept() -> Table:
    """Where each memory host keeps a fact, what is left without it, and what its write does elsewhere: a row a host."""
    rows = []
    for path in sorted(RESULTS.glob("memory-*/recall/summary.json")):
        data = read(path)
        host, summary, shares_of = path.parents[1].name, data["summary"], data["shares"]
        costs = {one["condition"]: one for one in summary["costs"]}
        moved, ranked = ({one[key]: one for one in summary[of]} for of, key in (("moved", "kind"), ("ranked", "how")))
        gone, elsewhere = costs["delete"], [moved[kind]["right"] for kind in ("exchanged", "installed")]
        shares = [gone["right"], costs["other"]["right"], *elsewhere, *(ranked[how]["first"] for how in ranked)]
        owns = {cell: median(shares_of[cell.partition("+")[0]].values()) for cell in summary["cells"]}
        held = ", ".join(f"{cell} ({words.percent(share, 0)})" for cell, share in owns.items())
        lost, others = words.decimals(gone["lost"]), words.percent(gone["others_right"])
        rows.append([host, told(native(summary)), held, lost, others])
        rows[-1] += map(told, shares)
    head = [
        "host", "right", "the writes that hold a fact (share of their state)", "nats lost without, median",
        "others right without", "right without", "right without as many others of the same tokens",
        "the next fact\u2019s thing said, with its value", "an untold name known, with its write",
        "first of all writes, exact first order", "closed form",
    ]  # fmt: skip
    return {"head": head, "rows": rows}


def facts_picture() -> str:
    """The facts of every memory host that are still right."""
    lines = []
    for host, found in memory_hosts().items():
        lines.append((host, [_dot(kind, found[kind]["right"]) for kind in INSTEAD if kind in found]))
    return dots(lines, INSTEAD, "facts still right, by what stands in the place of the writes")


def _dot(kind: str, share: Table) -> Dot:
    return Dot(kind, share["value"], *(share["wilson"] or share["interval"]))


def read_cells() -> Iterator[tuple[str, str, Table]]:
    """Host and head, dictionary, and cells at the coefficient, in the first form of the write; a line a dictionary."""
    for path in sorted(RESULTS.glob("*/substitution-*/summary.json")):
        data = read(path)
        (dictionary,), cells = data["provenance"]["dictionaries"], data["summary"]["cells"]
        form = cells[0]["native_write"]
        yield (
            f"{data['provenance']['host']} {dictionary['site']}", dictionary["target"],
            [c for c in cells if (c["amplitude"], c["native_write"]) == ("coefficient", form)],
        )  # fmt: skip


SMALL = "too small to decide"


def decides(cell: Table) -> bool:
    """Whether at least half of a cell's effects are above rounding."""
    verdict: str = cell["floor"]["verdict"]
    return verdict != SMALL


def readings() -> Table:
    """State against increment, and dictionaries of writes beside them."""
    rows = []
    for place, target, cells in read_cells():
        for reading in dict.fromkeys(cell["reading"] for cell in cells):
            own = {cell["timing"]: cell for cell in cells if cell["reading"] == reading}
            after, at = own["after_token"], own["at_token"]
            wins = [told(x["wins"]) if decides(x) else SMALL for x in (after, at)]
            rows.append(
                [place, words.percent(after.get("share")), target, reading, words.fixed(after["cosine"]), *wins]
            )
    head = ["host, head", "the write\u2019s share of the state", "dictionary of", "read by", "cosine to the write"]
    return {"head": [*head, "wins over deletion, after the token", "at the token"], "rows": rows}


def readings_picture() -> str:
    """Wins over deletion, after the token, by head."""
    lines: dict[str, list[Dot]] = {}
    for place, _, cells in read_cells():
        after = [cell for cell in cells if cell["timing"] == "after_token" and decides(cell)]
        if not after:
            continue
        lines.setdefault(place, []).extend(_dot(cell["reading"], cell["wins"]) for cell in after)
    names = {"state": "by state (published)", "increment": "by increment", "write": "dictionary of writes"}
    return dots(list(lines.items()), names, "wins over deletion, after the token")


def ambiguities() -> Table:
    """How far each thing that the accounts leave open moves the wins of a dictionary of states, all else the same."""
    columns: dict[str, dict[str, list[float]]] = {}
    for path in sorted(RESULTS.glob("tiny-*/grid-states/summary.json")):
        cells, host = read(path)["summary"]["cells"], path.parents[1].name
        moves: dict[str, list[float]] = {factor: [] for factor in FACTORS}
        for one, other in combinations(cells, 2):
            differ = [factor for factor in FACTORS if one[factor] != other[factor]]
            if len(differ) == 1:
                moves[differ[0]].append(abs(one["wins"]["value"] - other["wins"]["value"]))
        chosen = read(path.parents[1] / "grid-features-states" / "summary.json")["summary"]["cells"]
        pairs = [(a, b) for a in cells for b in chosen if all(a[factor] == b[factor] for factor in FACTORS)]
        moves["tokens or chosen features"] = [abs(a["wins"]["value"] - b["wins"]["value"]) for a, b in pairs]
        columns[host] = moves

    def points(some: list[float]) -> str:
        return f"{100 * median(some):.1f} (at most {100 * max(some):.1f})" if some else words.MISSING

    names = dict.fromkeys(name for moves in columns.values() for name in moves)
    rows = [[name.replace("_", " "), *(points(moves[name]) for moves in columns.values())] for name in names]
    return {"head": ["what differs", *(f"{host}, points" for host in columns)], "rows": rows}


def amplitudes() -> Table:
    """What an atom's size does, by reading: wins over deletion, and facts still right."""
    rows = []
    for path in sorted(RESULTS.glob("*/sizes-*/summary.json")):
        data = read(path)
        cells = data["summary"]["cells"]
        first = [c for c in cells if (c["timing"], c["native_write"]) == (cells[0]["timing"], cells[0]["native_write"])]
        where = f"{data['provenance']['host']} {data['provenance']['dictionaries'][0]['site']}, wins over deletion"
        for reading in dict.fromkeys(cell["reading"] for cell in first):
            rows.append(
                [where, reading, *_sizes({c["amplitude"]: c["wins"] for c in first if c["reading"] == reading})]
            )
    for path in sorted(RESULTS.glob("memory-*/recall-atoms/summary.json")):
        data, ways = read(path), dict[str, dict[str, Table]]()
        for cost in data["summary"]["costs"]:
            if cost["condition"] in ("atom", "nearest"):
                name = cost["reading"] or f"nearest atom of {cost['dictionary']}"
                ways.setdefault(name, {})[cost["amplitude"]] = cost["right"]
        rows += [[f"{data['provenance']['host']}, facts still right", name, *_sizes(own)] for name, own in ways.items()]
    return {"head": ["host", "read by", "coefficient", "the write\u2019s norm", "least squares"], "rows": rows}


def _sizes(shares: dict[str, Table]) -> list[str]:
    return [told(shares[s]) if s in shares else words.MISSING for s in ("coefficient", "norm", "projection")]


def predictions(page: str) -> Table:
    """What was expected on a page before it was measured, and what was."""
    data = PREDICTIONS.read_bytes()
    rows = []
    for one in tomllib.loads(data.decode())["prediction"]:
        if one["page"] == page:
            (of, share), low, high = one["of"].split("."), one.get("at_least", 0), one.get("at_most", 1)
            lists = [read(path)["summary"][of] for path in sorted(RESULTS.glob(f"{one['result']}/summary.json"))]
            of_all = [next(x for x in some if one["where"].items() <= x.items()) for some in lists]
            shares = [x[share] for x in of_all if x.get("share", 0) < one.get("below", 1)]
            bound = f"at least {words.percent(low, 0)}" if low else f"at most {words.percent(high, 0)}"
            if not shares:
                rows.append([one["text"], bound, "not yet", words.MISSING])
                continue
            least, most = (end(x["value"] for x in shares) for end in (min, max))
            ends = f"{words.percent(least)} to {words.percent(most)}, {len(shares)} heads"
            held = "yes" if low <= least and most <= high else "no"
            if (one["result"], one["where"].get("reading")) in OTHERWISE:
                held = "not run as registered"
            rows.append([one["text"], bound, told(shares[0]) if len(shares) == 1 else ends, held])
    registered = f"expected (predictions.toml, SHA-256 {hashlib.sha256(data).hexdigest()[:12]})"
    return {"head": [registered, "that is", "measured", "so it was"], "rows": rows}


PICTURES = {"facts": facts_picture, "readings": readings_picture}
"""Name -> what makes it; it lies beside the page that shows it, as NAME.svg."""


def costs() -> Table:
    """What capture and training of the published hosts take on one H100, by the rates of plans."""
    head = ["host", "layers x heads", "forward pass", "store", "a head, 2,048 features", "16,384", "all heads, 2,048"]
    rows = []
    for name in STATED:
        shape = shape_of(name)
        layers = list(shape.layers.values())
        heads = sum(layer.heads for layer in layers)
        small, large = (
            train_seconds(H100, TrainConfig(site=Site(layers[0].index, 0), features=n), layers[0], PASSES * CAPTURED)
            for n in (2048, 16384)
        )
        numbers = capture_seconds(H100, shape.parameters, CAPTURED), small, large, small * heads
        store = f"{sum(store_bytes(layer, CAPTURED) for layer in layers) / 1e12:.1f} TB"
        capture, one, big, every = map(words.plain_spaces, map(words.duration, numbers))
        rows.append([name, f"{len(layers)} x {layers[0].heads}", capture, store, one, big, every])
    return {"head": head, "rows": rows}
