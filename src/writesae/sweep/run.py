"""A sweep from its beginning to its table: one pass of each host, its runs, their tests. What is finished is kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import pandas as pd
from rich.console import Console

from writesae.artifacts import load_sae
from writesae.causal.runs import shared_runs
from writesae.cluster import Cluster
from writesae.config import Json, to_json
from writesae.corpus import Text, text
from writesae.disk import alone, claim, write_table
from writesae.errors import InputError, WritesaeError
from writesae.evals import EVALUATIONS
from writesae.hosts import Host, load
from writesae.hosts.loading import load_once
from writesae.hosts.sources import find
from writesae.sae import SAE
from writesae.show.progress import Ticker, bars_on
from writesae.store import capture
from writesae.sweep.config import Sweep
from writesae.sweep.numbers import of_result, of_training
from writesae.sweep.page import write_page
from writesae.sweep.runs import Planned, planned
from writesae.training import TrainResult, train_many

TABLE = "sweep.parquet"
Bars = Callable[[str], Ticker]
Numbers = dict[str, object]


def sweep(
    plan: Sweep, out: Path, workers: int = 1, device: str = "auto", memory: float = 4.0, console: Console | None = None,
    cluster: Cluster | None = None,
) -> pd.DataFrame:  # fmt: skip
    """Capture, train and test every run of a plan in the folder `out`, and return the table that `sweep.parquet` holds:
    a row a run with its values of the grid, its numbers, in `refused` what an evaluation does not measure in such a
    dictionary, and in `problem` what went wrong; both are empty where there is nothing.

    Each host is run over the text once for all of its heads; `workers` runs are trained at a time. A `cluster`
    captures, trains and tests with workers of its own, with the same numbers; `out` must lie where all its machines see
    it. A run that fails leaves the others alone. The same call goes on where one was stopped. Raises OutputError for a
    folder of another sweep, and InputError for what cannot be, before anything is captured of that host.
    """
    console = Console() if console is None else console
    for name in plan.hosts:
        find(name, None)
    rows: list[Numbers] = []
    host = load(plan.hosts[0], device=device)
    planned(plan, host.layers, str(host.device), memory)  # what cannot be is said before a folder is made
    with alone(out):
        claim(out, "sweep", {"kind": "sweep", "sweep": to_json(plan)})
        for number, name in enumerate(plan.hosts):
            host = load(name, device=device) if number else host
            with bars_on(console, f"{name}: ") as bars:
                place = (out / name.replace("/", "--")).absolute()
                rows += on_host(plan, host, place, workers, memory, bars, cluster)
        table = pd.DataFrame(rows)
        write_table(out / TABLE, table)
        write_page(out, plan, table)
    return table


def on_host(
    plan: Sweep, host: Host, place: Path, workers: int, memory: float, bars: Bars, cluster: Cluster | None = None
) -> list[Numbers]:
    """The rows of one host."""
    runs = planned(plan, host.layers, str(host.device), memory)
    train_text, test = text(plan.corpus, host, length=plan.length).split()
    layers = sorted({run.config.site.layer for run in runs})
    store = capture(
        host, train_text, layers, place / "streams.zarr", tokens=plan.tokens, progress=bars("capture"), cluster=cluster
    )
    problems: dict[str, list[str]] = {run.name: [] for run in runs}
    refused: dict[str, list[str]] = {run.name: [] for run in runs}
    done, bar = [0], bars("train")

    def ended(_: TrainResult) -> None:
        done[0] += 1
        bar(done[0], len(runs))

    def failed(number: int, error: WritesaeError) -> None:
        problems[runs[number].name].append(f"training: {error}")

    places = [place / "train" / run.name for run in runs]
    configs = [run.config for run in runs]
    workers = 1 if cluster else min(workers, len(runs))
    results = train_many(store, configs, places, workers=workers, ended=ended, failed=failed, cluster=cluster)
    trained = {result.folder: result for result in results}
    rows = {run.name: _row(host, run, trained.get(folder)) for run, folder in zip(runs, places, strict=True)}
    saes = {run.name: trained[folder].sae for run, folder in zip(runs, places, strict=True) if folder in trained}
    if cluster is not None:
        test_there(plan, host, place, list(saes), cluster, bars("test"))
    with shared_runs():
        for name, options in plan.evaluate.items():
            bar = bars(name)
            for number, (run, sae) in enumerate(saes.items()):
                bar(number, len(saes))
                try:
                    rows[run] |= _tested(host, sae, test, name, options, place / "results" / name / run)
                except WritesaeError as error:
                    kept = refused if isinstance(error, InputError) else problems
                    kept[run].append(f"{name}: {error}")
            bar(len(saes), len(saes))
    return [
        row | {"refused": "; ".join(refused[name]), "problem": "; ".join(problems[name])} for name, row in rows.items()
    ]


def _row(host: Host, run: Planned, result: TrainResult | None) -> Numbers:
    cell = {name: value if isinstance(value, str | int | float) else str(value) for name, value in run.cell.items()}
    return {"host": host.name, "run": run.name, **cell} | ({} if result is None else of_training(result))


def _tested(host: Host, sae: SAE, test: Text, name: str, options: Mapping[str, Json], out: Path) -> Numbers:
    result = EVALUATIONS[name](host, sae, test, out=out, **cast(dict[str, Any], dict(options)))
    return cast(Numbers, of_result(result))


def test_there(plan: Sweep, host: Host, place: Path, runs: list[str], cluster: Cluster, bar: Ticker) -> None:
    """Every evaluation of every run by the workers of a cluster; what they find lies in its folder, to be read. One
    that is refused is refused again when it is read."""
    jobs = dict(enumerate((name, run) for name in plan.evaluate for run in runs))
    about = host.name, "float32", host.device.type  # results name the device, and are read here
    for done, _ in enumerate(cluster.each(_test_there, jobs, plan, about, place), 1):
        bar(done, len(jobs))


def _test_there(plan: Sweep, about: tuple[str, str, str], place: Path, name: str, run: str) -> None:
    host = load_once(*about)
    _, test = text(plan.corpus, host, length=plan.length).split()
    sae = load_sae(place / "train" / run)
    _tested(host, sae, test, name, plan.evaluate[name], place / "results" / name / run)


def failures(table: pd.DataFrame) -> list[str]:
    """The runs that something went wrong in, each with what it was."""
    wrong = table[table.problem != ""]
    return [f"{row.host} {row.run}: {row.problem}" for row in wrong.itertuples()]


def refusals(table: pd.DataFrame) -> list[str]:
    """What evaluations do not measure, each reason once with the number of runs."""
    return [f"{reason} ({count} runs)" for reason, count in table.refused[table.refused != ""].value_counts().items()]


def unmeasured(plan: Sweep, table: pd.DataFrame) -> list[str]:
    """The evaluations that refused every run that was trained."""
    return [name for name in plan.evaluate if table.refused.ne("").any() and table.get(f"{name}: n") is None]
