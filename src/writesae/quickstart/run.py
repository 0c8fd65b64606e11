"""Run the steps in order, show how far they are, and close with a table, `summary.json` and the report."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from writesae.config import Json
from writesae.disk import write_json
from writesae.hosts import load
from writesae.page import report as write_report
from writesae.quickstart import steps
from writesae.quickstart.config import TARGETS, QuickstartConfig
from writesae.quickstart.folder import RunFolder
from writesae.types import Site

PACKAGES = ("writesae", "torch", "transformers", "numpy", "zarr")


def quickstart(path: Path, config: QuickstartConfig, console: Console | None = None) -> Path:
    """Run everything that is not finished yet in `path` and return the report's place.

    Raises OutputError where `path` belongs to another run, InputError for an unknown host or site.
    """
    console = Console() if console is None else console
    with _progress(console) as bars:
        ticker = _ticker(bars)
        host = load(config.host)
        if config.site is not None:
            host.check_site(config.site)
        text = steps.load_text(host, config)
        run = RunFolder(path, config)  # only now: bad input leaves nothing behind
        audit = _facts(run.step("audit", lambda: steps.audit(path, host, text, config, ticker("audit every head"))))
        site = Site.parse(str(audit["site"]))
        chain = steps.Chain(path, host, text, config, site)
        captured = _facts(run.step("capture", partial(steps.capture_streams, chain, ticker(f"capture {site}"))))
        trained, tested = {}, {}
        for name in TARGETS:
            work = partial(steps.train_target, chain, name, ticker(f"train on the {name}"))
            trained[name] = _facts(run.step(f"train-{name}", work))
        for name in TARGETS:
            work = partial(steps.test_target, chain, name, ticker(f"test the {name} dictionary"))
            tested[name] = _facts(run.step(f"substitution-{name}", work))
        for name in TARGETS:
            run.step(f"atoms-{name}", partial(steps.describe_atoms, chain, name, ticker(f"describe {name} atoms")))
    summary = _summary(run, config, host.name, host.revision, site, captured, trained, tested)
    write_json(path / "summary.json", summary, finite=False)
    report = write_report(path)
    console.print(_table(summary))
    if run.reused:
        console.print(f"Reused {len(run.reused)} finished steps: {', '.join(run.reused)}", style="dim")
    console.print(f"Report: [bold]{report}[/bold]")
    return report


def _facts(found: Json) -> dict[str, Any]:
    return cast("dict[str, Any]", found)


def _summary(
    run: RunFolder,
    config: QuickstartConfig,
    host: str,
    revision: str,
    site: Site,
    captured: Mapping[str, Any],
    trained: Mapping[str, Mapping[str, Any]],
    tested: Mapping[str, Mapping[str, Any]],
) -> dict[str, Json]:
    main = next(iter(tested.values()))
    settings = main["settings"]
    return {
        "host": {"name": host, "revision": revision},
        "site": str(site),
        "tokens": captured["tokens"],
        "features": config.features,
        "k": config.k,
        "alive": {name: t["metrics"]["alive"] for name, t in trained.items()},
        "protocol": {
            "timing": main["protocol"],
            "native_write": settings["native_write"],
            "kl": f"KL({settings['direction']}) in nats",
            "scored": "the first next-token distribution that the edit can reach",
            "win": "KL of the atom strictly smaller than KL of deleting the write",
            "firings": "top feature of tokens drawn uniformly from held-out passages",
        },
        "explained_variance": {name: t["metrics"]["explained_variance"] for name, t in trained.items()},
        "substitution": {name: {k: v for k, v in t.items() if k != "settings"} for name, t in tested.items()},
        "seconds": cast(Json, run.seconds()),
        "report": "report.html",
        "seed": config.seed,
        "versions": {**{name: version(name) for name in PACKAGES}, "python": platform.python_version()},
        "hashes": {
            "corpus": captured["corpus"],
            "store": captured["store"],
            "sae": {name: t["sha256"] for name, t in trained.items()},
        },
    }


def _table(summary: Mapping[str, Any]) -> Table:
    title = f"{summary['host']['name']} {summary['site']}: can one atom stand in for one write?"
    table = Table(
        title=title,
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        caption="wins: KL of the atom below KL of deleting the write",
    )
    for name in ("target", "protocol", "n", "wins", "95% (Wilson)", "KL atom", "delete", "random"):
        table.add_column(name, justify="left" if name in ("target", "protocol") else "right", no_wrap=True)
    for target, main in summary["substitution"].items():
        for protocol, s in main["by_protocol"].items():
            kl = (f"{s['median_kl'][name]:.1e}" for name in ("atom", "delete", "random"))
            interval = "{:.1%}-{:.1%}".format(*s["interval"])
            table.add_row(target, protocol, f"{s['n']:,}", f"{s['win_rate']:.1%}", interval, *kl)
    return table


def _progress(console: Console) -> Progress:
    return Progress(
        SpinnerColumn(), TextColumn("{task.description:<26}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        console=console,
    )  # fmt: skip


def _ticker(bars: Progress) -> Callable[[str], Callable[[int, int], None]]:
    """One bar a step: `_ticker(bars)(title)` is a callback of (done, total)."""

    def start(title: str) -> Callable[[int, int], None]:
        tasks: list[TaskID] = []  # added at the first call: a step that is reused has no bar

        def show(done: int, total: int) -> None:
            if not tasks:
                tasks.append(bars.add_task(title, total=total))
            bars.update(tasks[0], completed=done, total=total)

        return show

    return start
