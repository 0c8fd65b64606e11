"""`writesae eval`: one evaluation of a host and its dictionaries, or all that fit. Each has its own flags."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, make_dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import tyro

from writesae.cli.options import FLAT, Flat, HostOptions, Spread, TextOptions, dictionaries
from writesae.errors import InputError

if TYPE_CHECKING:
    from writesae.corpus import Text
    from writesae.evals import Evaluation
    from writesae.evals.common.evaluation import Progress
    from writesae.hosts import Host
    from writesae.sae import SAE


@dataclass(frozen=True)
class Request:
    """What every evaluation is run on."""

    out: Path
    """Folder of the result; of `eval all` and with --each the folder in which each gets its own."""
    sae: tuple[str, ...] = ()
    """Dictionaries: folders or Hub repositories; of a folder with several (a collection, what `train` wrote), all, or
    those of the heads named by --site."""
    site: tuple[str, ...] = ()
    """Head of a dictionary that does not say it itself, or the heads of an evaluation without a dictionary: "L5.H0",
    several, or "all"."""
    each: bool = False
    """Measure every dictionary by itself, instead of several heads together: a result each."""
    host: Flat[HostOptions] = field(default_factory=HostOptions)
    """Which host."""
    text: Flat[TextOptions] = field(default_factory=TextOptions)
    """Which text."""
    passages: int | None = None
    """Passages, drawn at random; a number that suits the evaluation if not said."""
    length: int | None = None
    """Tokens a passage; 128, or what suits the evaluation, if not said."""
    text_seed: int = 0
    """Of the passages."""
    workers: int = 1
    """Results that the workers of a cluster (--ray) measure at a time; without one, they are measured one by one."""
    spread: Flat[Spread] = field(default_factory=Spread)
    """Over which machines."""
    allow: tuple[Literal["mismatch", "overlap", "precision"], ...] = ()
    """Overrule a refusal: a dictionary of another head or host, text that it was trained on, a host in less than
    float32. The result says so."""


LENGTH = 128
"""Tokens a passage, where neither the command nor the evaluation says."""


@dataclass(frozen=True)
class Command:
    """Run one evaluation, or all that fit (`eval all`); print what was found and write the result.

    An evaluation that was stopped goes on where it was when the same command is given again.
    """

    name: str
    """Which evaluation, or "all"."""
    request: Request
    """What it is run on."""
    config: object = None
    """Its protocol."""


def parse(words: list[str]) -> Command:
    """`["quality", "--out", "x"]` -> the command. Prints help and exits where it is asked for.

    Raises InputError for an unknown evaluation or a flag that it does not understand.
    """
    from writesae.cli.parsing import parse_flags
    from writesae.evals import named

    if not words or words[0] in ("-h", "--help"):
        _print_help()
        raise SystemExit(0)
    name = words[0].replace("-", "_")
    if name == "all":
        text = "Run every evaluation that fits what is given, with its usual protocol."
        return Command(name, parse_flags(Request, "writesae eval all", words[1:], text))
    kind = named(name, "all").config
    rest, start = _preset(named(name), words[1:])
    config = ("config", Annotated[kind, FLAT], field(default_factory=lambda: start))
    told: tuple[str, object, object] = ("given", Annotated[frozenset[str], tyro.conf.Suppress], frozenset())
    flags = make_dataclass("Flags", [config, ("request", Annotated[Request, FLAT]), told], kw_only=True)
    text = f"{kind.__doc__} {_of_presets(named(name))}"
    given = cast(Any, parse_flags(flags, f"writesae eval {name}", rest, text))
    check_effect(given.config, given.given)
    return Command(name, given.request, given.config)


def check_effect(config: object, given: frozenset[str]) -> None:
    """Raise InputError where a flag was given that the rest of the protocol leaves without effect."""
    idle, instead = getattr(config, "idle", ((), ""))
    for name in idle:
        if name in given:
            raise InputError(f"--{name} has no effect {instead}")


def _preset(evaluation: Evaluation[Any], words: list[str]) -> tuple[list[str], object]:
    """The words without `--preset NAME`, and the protocol that the others change."""
    rest, found = list[str](), None
    given = iter(words)
    for word in given:
        flag, equals, value = word.partition("=")
        if flag != "--preset":
            rest.append(word)
            continue
        if found is not None:
            raise InputError("--preset is given more than once, and takes one value")
        found = evaluation.preset(value if equals else next(given, ""))
    return rest, evaluation.config() if found is None else found


def _of_presets(evaluation: Evaluation[Any]) -> str:
    names = ", ".join(evaluation.presets)
    return f"--preset sets the flags below as one of {names} does; those that are given change it." if names else ""


def _print_help() -> None:
    from writesae.evals import EVALUATIONS

    width = max(map(len, EVALUATIONS)) + 2
    print("usage: writesae eval NAME --out FOLDER --sae DICTIONARY [options]\n")
    print(" ".join((Command.__doc__ or "").split()) + "\n")
    for name, one in EVALUATIONS.items():
        print(f"  {name:<{width}}{one.title}")
    print("\nwritesae eval NAME --help lists an evaluation's options.")


def run(command: Command) -> None:
    """Evaluate, write the folder, print the finding and where it is."""
    from writesae.causal.runs import shared_runs
    from writesae.config import at_least
    from writesae.disk import check_place
    from writesae.evals import EVALUATIONS
    from writesae.evals.common.result import refuse_other

    request, asked = command.request, EVALUATIONS.get(command.name)
    check_place(request.out)
    if asked is not None:
        refuse_other(request.out, asked.name)
        check_asked(asked, request)
    request.text.check()
    at_least(request, passages=1, length=1)
    cluster = request.spread.cluster(request.workers)
    if cluster is None and request.workers != 1:
        raise InputError("--workers has no effect without --ray")
    saes = dictionaries(request.sae, request.site)  # before a large host is loaded
    host = request.host.open(saes)
    part, plan = request.text.open(host, request.length or LENGTH), _planned(command, asked, saes)
    if cluster is not None:
        there = replace(request, host=replace(request.host, host=host.name))
        jobs = {number: (name, place.absolute(), group) for number, (name, place, group) in enumerate(plan)}
        with _shown("on the cluster") as progress:
            for done, _ in enumerate(cluster.each(_measure_there, jobs, there, command.config), 1):
                progress(done, len(plan))
    done = 0
    with shared_runs():
        for name, place, group in plan:
            try:
                _measure(EVALUATIONS[name], host, group, part, request, place, command.config)
                done += 1
            except InputError as error:
                if asked is not None:
                    raise
                print(f"{name}: refused: {error}")
    if not done:
        raise InputError("no evaluation could be run on what was given: see the reasons above")
    if asked is None:
        print(f"{done} results in {request.out}; `writesae report {request.out}` makes one page of them")


Plan = list[tuple[str, Path, list["SAE"]]]
"""Evaluation, folder, dictionaries of every result."""


def _planned(command: Command, asked: Evaluation[Any] | None, saes: list[SAE]) -> Plan:
    """The results that a command makes."""
    from writesae.evals import EVALUATIONS

    request = command.request
    if asked is not None and not request.each:
        return [(asked.name, request.out, saes)]
    if asked is not None:
        return [(asked.name, request.out / name, [sae]) for name, sae in zip(names_of(saes), saes, strict=True)]
    return [
        (name, request.out / (name if len(some) == 1 else f"{name}-{number}"), group)
        for name, some in fitting(list(EVALUATIONS.values()), saes, request.site, request.each)
        for number, group in enumerate(some, 1)
    ]


def _measure_there(request: Request, config: object, name: str, place: Path, group: list[SAE]) -> None:
    """One of them in a worker of a cluster; its result lies in its folder, to be read."""
    from writesae.evals import EVALUATIONS

    host, part = _opened(request)
    _measure(EVALUATIONS[name], host, group, part, request, place, config)


@cache
def _opened(request: Request) -> tuple[Host, Text]:
    host = request.host.open()
    return host, request.text.open(host, request.length or LENGTH)


def names_of(saes: Sequence[SAE]) -> list[str]:
    """A name for the result of each: its head; with the target where several are of the head, numbered where that is
    the same too."""
    names = [str(sae.site or "dictionary") for sae in saes]
    names = [f"{name}-{sae.target}" if names.count(name) > 1 else name for name, sae in zip(names, saes, strict=True)]
    return [f"{name}-{names[: i + 1].count(name)}" if names.count(name) > 1 else name for i, name in enumerate(names)]


def check_asked(evaluation: Evaluation[Any], request: Request) -> None:
    """Raise InputError where the words alone say that an evaluation cannot be run, before anything is loaded."""
    name, takes = evaluation.name, evaluation.takes
    if takes == "none" and request.site:
        raise InputError(f"{name} measures every head: leave out --site")
    if takes in ("one", "heads", "seeds") and not request.sae:
        raise InputError(f"{name} measures dictionaries: give at least one with --sae")
    if takes == "sites" and not (request.site or request.sae):
        raise InputError(f"{name} needs a head: name one with --site, such as --site L5.H0")
    if request.each and takes not in ("one", "heads"):
        raise InputError(f"{name} does not measure dictionaries one by one: leave out --each")


def fitting(
    evaluations: Sequence[Evaluation[Any]], saes: Sequence[SAE], sites: tuple[str, ...], each: bool = False
) -> Iterator[tuple[str, list[list[SAE]]]]:
    """Evaluation -> the groups of dictionaries that it is run on, one result each; none where it does not fit."""
    by_site: dict[object, list[SAE]] = {}
    for sae in saes:
        by_site.setdefault(sae.site, []).append(sae)
    for one in evaluations:
        if one.takes == "none" or (one.takes == "sites" and sites):
            yield one.name, [[]]
        elif one.takes == "sites" and saes:
            yield one.name, [group[:1] for group in by_site.values()]
        elif one.takes == "one" and saes:
            yield one.name, [[sae] for sae in saes]
        elif one.takes == "seeds" and any(len(group) > 1 for group in by_site.values()):
            yield one.name, [group for group in by_site.values() if len(group) > 1]
        elif one.takes == "optional" and not saes:
            yield one.name, [[]]
        elif one.takes == "optional" and len({(sae.site, sae.target) for sae in saes}) == len(saes):
            yield one.name, [list(saes)]
        elif one.takes in ("heads", "optional") and saes:
            same = {sae.target for sae in saes}
            apart = each or len(by_site) < len(saes) or len(same) > 1
            yield one.name, [[sae] for sae in saes] if apart else [list(saes)]


def _measure(
    evaluation: Evaluation[Any], host: Host, saes: list[SAE], part: Text, request: Request, out: Path, config: object
) -> None:
    """One evaluation."""
    from writesae.evals.common.subject import sites_of

    named = sites_of(host, request.site)
    if evaluation.takes == "sites":
        given: tuple[object, ...] = (part,)
        named = named or tuple(dict.fromkeys(sae.site for sae in saes if sae.site is not None))
    else:
        given = (part,) if evaluation.takes == "none" else (saes, part)
        named = () if evaluation.takes == "none" else named
    length = request.length or evaluation.length
    with _shown(evaluation.name) as progress:
        result = evaluation(
            host, *cast(Any, given), config=config or evaluation.config(), site=named or None,
            passages=request.passages, length=length, text_seed=request.text_seed, out=out, allow=request.allow,
            progress=progress,
        )  # fmt: skip
    print(result)
    print(f"{out / 'summary.json'}")


@contextmanager
def _shown(name: str) -> Iterator[Progress]:
    """On a terminal, a line that says how many pieces are finished, and how long it has been."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        task = bars.add_task(name, total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)
