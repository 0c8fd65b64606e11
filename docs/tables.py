"""Write the tables of the docs from result files: no figure of ours, and none published, is typed by hand.

    python docs/tables.py                          rewrite the blocks between the markers of README.md and docs/*.md
    python docs/tables.py --reproduction FOLDER    take the table of a finished `writesae reproduce` first
    python docs/tables.py --check                  exit with 1 where a block is not what the files say

A block begins with `<!-- results EVALUATION -->` (every result of it under docs/results, by host), with
`<!-- results EVALUATION HOST -->` (those of one host), with `<!-- wins HOST -->` (how often an atom beats deletion, by
dictionary, reading and timing), with `<!-- accounts -->` (the same as the published accounts of the test measure it),
with `<!-- found NAME -->` or `<!-- plot NAME -->` (a table or a picture of the findings: a function of found.py), with
`<!-- published PREFIX -->` (published numbers whose name begins so, from docs/published.toml), with
`<!-- evaluations -->` or `<!-- columns -->` (what there is), and ends with `<!-- end -->`.
Results are the `summary.json` files that `benchmarks/all_evaluations.py` and `benchmarks/recall.py` leave there.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import found

from writesae.evals import EVALUATIONS
from writesae.evals.common.conditions import CELL
from writesae.evals.substitution import PRESETS
from writesae.reproduce import plainly
from writesae.reproduce.claims import claims
from writesae.reproduce.page import headline, line
from writesae.reproduce.rows import read_rows
from writesae.show import words

DOCS = Path(__file__).parent
RESULTS = DOCS / "results"
REPRODUCTION = RESULTS / "reproduction.json"
PAGES = (DOCS.parent / "README.md", *sorted(DOCS.rglob("*.md")))
KINDS = "claims|plainly|results|wins|accounts|published|evaluations|columns|found|plot"
BLOCK = re.compile(rf"(<!-- ({KINDS})([^>]*?) -->\n).*?(<!-- end -->)", re.DOTALL)


def results_block(name: str, host: str = "") -> str:
    """Every result of an evaluation, the quickstart's own only where they are named: facts, finding, table."""
    found = sorted(RESULTS.glob(f"{host or 'tiny-*'}/{name}*/summary.json"))
    found = [path for path in found if re.fullmatch(rf"{name}(-.*)?", path.parent.name)]
    if not found:
        raise SystemExit(f"docs/results holds no result of {name} {host}: run benchmarks/all_evaluations.py")
    return "\n\n".join(_result(json.loads(path.read_text(encoding="utf-8"))) for path in found)


def _result(data: dict[str, Any]) -> str:
    facts = ", ".join(data["facts"])
    return f"**{_plain(data['finding'])}**\n<sub>{_plain(facts)}</sub>\n\n{table(data['table'])}"


def table(data: dict[str, Any]) -> str:
    """A Markdown table."""
    lines = [data["head"], ["---"] * len(data["head"]), *data["rows"]]
    return "\n".join("| " + " | ".join(_plain(cell) for cell in line) + " |" for line in lines)


def _plain(text: str) -> str:
    """With ordinary spaces, and safe in a table."""
    for space in "\u202f\u2009\u00a0":
        text = text.replace(space, " ")
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


def wins_block(host: str) -> str:
    """How often an atom, at its coefficient, beats deletion on one host: both timings and forms of the write."""
    found = []
    for path in sorted(RESULTS.glob(f"{host}/substitution*/summary.json")):
        data = json.loads(path.read_text(encoding="utf-8"))
        target = data["provenance"]["dictionaries"][0]["target"]
        found += [(target, cell) for cell in data["summary"]["cells"] if cell["amplitude"] == "coefficient"]
    ways = dict.fromkeys((cell["timing"], cell["native_write"]) for _, cell in found)
    rows = {(target, cell["reading"]): [target, cell["reading"], f"{cell['wins']['n']:,}"] for target, cell in found}
    for timing, form in ways:
        for target, cell in found:
            if (cell["timing"], cell["native_write"]) == (timing, form):
                wins = cell["wins"]
                told = f"{words.percent(wins['value'])} ({words.interval(wins['interval'])})"
                rows[target, cell["reading"]].append(told)
    heads = [f"{timing.replace('_', ' ')}, {form} write" for timing, form in ways]
    return table({"head": ["dictionary of", "read by", "writes", *heads], "rows": list(rows.values())})


def accounts_block() -> str:
    """How often an atom beats deletion as each published account of the test measures it, by host: at random tokens and
    at the firings of chosen features, read by state (published) and by increment."""
    drawn, readings = ("grid-states", "grid-features-states"), ("state", "increment")
    rows = []
    for host in sorted(path.name for path in RESULTS.glob("tiny-*")):
        files = [RESULTS / host / name / "summary.json" for name in drawn]
        found = [json.loads(path.read_text(encoding="utf-8"))["summary"]["cells"] for path in files]
        for name, preset in PRESETS.items():
            if name == "grid":
                continue
            row = [host, name]
            for cells, reading in product(found, readings):
                way = {column: getattr(preset, f"{column}s")[0] for column in CELL} | {"reading": reading}
                (cell,) = (cell for cell in cells if all(cell[column] == x for column, x in way.items()))
                row.append(f"{words.percent(cell['wins']['value'])} ({words.interval(cell['wins']['interval'])})")
            rows.append(row)
    ways = [f"{what}, by {how}" for what, how in product(("tokens", "firings of registers"), readings)]
    return table({"head": ["host", "account", *ways], "rows": rows})


def published_block(prefix: str) -> str:
    """Published numbers whose id begins so, one a line."""
    found = [claim for claim in claims() if claim.id == prefix or claim.id.startswith(prefix + ".")]
    if not found:
        raise SystemExit(f"published.toml holds no claim called {prefix}")
    head = ["published", "host", "value", "n", "where"]
    return table({"head": head, "rows": [[c.text, c.host, c.figures, str(c.n or ""), c.where] for c in found]})


def claims_block(which: str = "first") -> str:
    """Every claim with the published number beside ours, by host: in the published reading and by increment, or all."""
    rows = read_rows(REPRODUCTION)
    lines = []
    for one in headline(rows) if which == "first" else rows:
        if one.verdict in (None, "not comparable") and which == "first":
            continue
        published = "" if one.published is None else f"{one.published:g}"
        drawn = line(one)
        here = "" if one.value is None else drawn.number + f" ({drawn.bounds})" * bool(drawn.bounds)
        lines.append([one.claim, one.host, one.what, published, here, str(one.n or ""), one.verdict or ""])
    head = ["claim", "host", "which", "published", "here, 95%", "n", "verdict"]
    return table({"head": head, "rows": lines})


def plainly_block() -> str:
    """What the published protocol gives, what the increment gives, what the known truth says."""
    return "\n".join(f"- {_plain(sentence)}" for sentence in plainly.headline(read_rows(REPRODUCTION)))


def evaluations_block() -> str:
    """Name and question of every evaluation."""
    rows = [[f"`{one.name}`", one.title] for one in EVALUATIONS.values()]
    return table({"head": ["name", "question"], "rows": rows})


def columns_block() -> str:
    """Every table of every evaluation, with its columns and what they mean."""
    rows = [
        [f"`{one.name}`", f"`{file}`", "; ".join(f"`{name}` {meaning}" for name, meaning in columns.items())]
        for one in EVALUATIONS.values()
        for file, columns in one.columns.items()
    ]
    return table({"head": ["evaluation", "file", "columns"], "rows": rows})


def plot_block(name: str) -> str:
    """The picture that lies beside the page."""
    return f"![{name}]({name}.svg)"


BLOCKS: dict[str, Callable[..., str]] = {
    "results": results_block,
    "wins": wins_block,
    "accounts": accounts_block,
    "published": published_block,
    "claims": claims_block,
    "plainly": plainly_block,
    "found": lambda name, *of: table(getattr(found, name)(*of)),
    "plot": plot_block,
    "evaluations": evaluations_block,
    "columns": columns_block,
}


def written(text: str) -> str:
    """A page with its blocks as the files say."""

    def block(match: re.Match[str]) -> str:
        kind, words = match[2], match[3].split()
        made = BLOCKS[kind](*words)
        return f"{match[1]}{made}\n{match[4]}"

    return BLOCK.sub(block, text)


def main(words: list[str]) -> int:
    """Rewrite the pages, or only say which are not up to date."""
    if words[:1] == ["--reproduction"]:
        shutil.copyfile(Path(words[1]) / REPRODUCTION.name, REPRODUCTION)
    made = {page: written(page.read_text(encoding="utf-8")) for page in PAGES}
    made |= {DOCS / "findings" / f"{name}.svg": picture() for name, picture in found.PICTURES.items()}
    stale = [path for path, text in made.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    for path in stale:
        if "--check" in words:
            print(f"{path.relative_to(DOCS.parent)} is not what the result files say: run python docs/tables.py")
        else:
            path.write_text(made[path], encoding="utf-8")
    return 1 if stale and "--check" in words else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
