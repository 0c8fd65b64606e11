"""`writesae eval`: one evaluation of a host and its dictionaries. Each evaluation has its own flags."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Protocol, cast

if TYPE_CHECKING:
    from writesae.sae import SAE
    from writesae.types import Site


@dataclass(frozen=True)
class Request:
    """What every evaluation is run on."""

    out: Path
    """Folder of the result."""
    sae: tuple[str, ...] = ()
    """Dictionaries: folders or Hub repositories. Several for substitution (heads edited together; a second one of a
    head is that of the control flat_svd), for fidelity (heads of one or more layers) and for seeds (of one head); none
    for spectrum."""
    site: str | None = None
    """Head of the dictionaries, "L5.H0", where they do not say it themselves."""
    host: str = "tiny-gdn"
    """An embedded host, a local folder, or a Hub id."""
    corpus: str = "sample"
    """The embedded "sample", a file or folder of text, JSONL or Parquet, or hf:user/name?split=train&column=text."""
    passages: int = 64
    """Passages, drawn at random over all documents."""
    length: int = 128
    """Tokens a passage."""
    held_out: float = 0.2
    """Share of every document, at its end, that passages are drawn from."""
    text_seed: int = 0
    """Of the passages."""
    device: str | None = None
    """Where the host runs: "cpu", "cuda", "cuda:1"."""
    revision: str | None = None
    """Commit, branch or tag of a host on the Hub."""


@dataclass(frozen=True)
class Command:
    """Run one evaluation and write summary.json and its records as Parquet.

    A long evaluation that was stopped goes on where it was when the same command is given again.
    """

    name: str
    """Which evaluation."""
    request: Request
    """What it is run on."""
    config: object
    """Its protocol."""


class _Given(Protocol):
    """What the flags of one evaluation become."""

    config: object
    request: Request


def parse(words: list[str]) -> Command:
    """`["quality", "--out", "x"]` -> the command. Prints help and exits where it is asked for.

    Raises InputError for an unknown evaluation or a flag that it does not understand.
    """
    from dataclasses import make_dataclass
    from inspect import getdoc

    import tyro

    from writesae.errors import InputError
    from writesae.evals.configs import config_class

    if not words or words[0] in ("-h", "--help"):
        _print_help()
        raise SystemExit(0)
    name = words[0].replace("-", "_")
    kind = config_class(name)
    if words.count("--sae") > 1:
        raise InputError("--sae is given more than once: name all dictionaries after one, --sae A B")
    fields = [(key, Annotated[cls, tyro.conf.arg(name="")]) for key, cls in (("config", kind), ("request", Request))]
    flags = make_dataclass("Flags", fields, frozen=True)
    given = cast(_Given, _quietly(flags, f"writesae eval {name}", words[1:], getdoc(kind) or ""))
    return Command(name, given.request, given.config)


def _quietly(kind: type, program: str, words: list[str], text: str) -> object:
    """Parse flags; what the parser says of a wrong one, in a box of many lines, becomes one InputError."""
    from contextlib import redirect_stderr
    from io import StringIO

    import tyro

    from writesae.errors import InputError

    said = StringIO()
    try:
        with redirect_stderr(said):
            return tyro.cli(kind, prog=program, args=words, description=text)
    except SystemExit as stop:
        if stop.code == 0:
            raise
        raise InputError(f"{_first_part(said.getvalue())}; see {program} --help") from None


def _first_part(box: str) -> str:
    """What a box says between its title and its first rule inside, as one line; boxes can be drawn in ASCII too."""
    lines = [line.strip(" │╭╮╰╯") for line in box.splitlines()][1:]
    if lines and not lines[0].strip("─-"):
        lines = lines[1:]  # the rule under an ASCII title
    text = takewhile(lambda line: line.strip("─-"), lines)
    return " ".join(" ".join(text).split())


def _print_help() -> None:
    from writesae.evals.configs import EVALUATIONS

    width = max(map(len, EVALUATIONS)) + 2
    print("usage: writesae eval NAME --out FOLDER --sae DICTIONARY [options]\n")
    print(" ".join((Command.__doc__ or "").split()) + "\n")
    for name, (_, text) in EVALUATIONS.items():
        print(f"  {name:<{width}}{text}")
    print("\nwritesae eval NAME --help lists an evaluation's options.")


def dictionaries(request: Request) -> tuple[tuple[Site, SAE], ...]:
    """The dictionaries and their heads; raises InputError where one belongs to no head."""
    from writesae.artifacts import load_sae
    from writesae.artifacts.manifest import MANIFEST, read_manifest
    from writesae.errors import InputError
    from writesae.types import Site

    found = []
    for source in request.sae:
        described = (Path(source) / MANIFEST).exists()
        own = read_manifest(Path(source)).record.site if described else None
        site = Site.parse(request.site) if request.site else own
        if site is None:
            raise InputError(f"{source} does not say which head it belongs to: give --site")
        found.append((site, load_sae(source, site=None if described else site)))
    return tuple(found)


@contextmanager
def _shown(name: str, passages: int) -> Iterator[Callable[[str], None]]:
    """On a terminal, a line that says which piece was finished last, and how long it has been."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        task = bars.add_task(f"{name} of {passages} passages", total=None)
        yield lambda key: bars.update(task, description=f"{name} of {passages} passages, done: {key}")


def run(command: Command) -> None:
    """Evaluate, write the folder, print where it is."""
    import torch

    from writesae.corpus import draw_passages
    from writesae.evals.catalogue import Inputs, run_evaluation
    from writesae.evals.parts import watching
    from writesae.evals.result import check_folder
    from writesae.hosts import load

    request = command.request
    check_folder(request.out, command.name)
    saes = dictionaries(request)  # what is wrong with them is known before a large host is loaded
    host = load(request.host, device=request.device, revision=request.revision)
    part = (1 - request.held_out, 1.0)
    drawn = draw_passages(request.corpus, host.tokenizer, request.passages, request.length, part, request.text_seed)
    tokens = torch.from_numpy(drawn)
    placed = tuple((site, sae.to(host.device)) for site, sae in saes)
    inputs = Inputs(host, placed, tokens, request.out / "parts")
    with _shown(command.name, len(tokens)) as tell, watching(tell):
        result = run_evaluation(command.name, inputs, command.config)
    result.write(request.out)
    refused = "".join(f"; {n} refused: {reason}" for reason, n in result.refused.items())
    print(f"{command.name}: {result.n} of {result.attempted} scored{refused}; {request.out / 'summary.json'}")
