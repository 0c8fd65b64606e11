"""`writesae experiment`: the paper's probes of editing, with their statistics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

if TYPE_CHECKING:
    from writesae.evals.old.probes.pictures import Probe
    from writesae.hosts import Host
    from writesae.sae import SAE
    from writesae.types import Site

Timing = Literal["after_token", "at_token"]
Direction = Literal["closed", "exact", "random"]


@dataclass(frozen=True)
class Common:
    """What every probe has."""

    out: Path
    """Folder of the result: summary.json, records.parquet, plot.html; the same command goes on where it stopped."""
    host: str = "tiny-gdn"
    """An embedded host, a local folder, a Hub id, or random:NAME for random weights (random:fla_gla) on random ids."""
    corpus: str = "sample"
    """The embedded "sample", a file or folder of text, JSONL or Parquet, or hf:user/name?split=train&column=text."""
    device: str | None = None
    """Where the host runs: "cpu", "cuda", "cuda:1"."""
    revision: str | None = None
    """Commit, branch or tag of a host on the Hub."""
    seed: int = 0
    """Of the texts and of everything random in the protocol."""


@dataclass(frozen=True)
class Sign(Common):
    """Does one write move the target's next-token logit the way that was predicted?"""

    site: str = "L5.H0"
    """The head."""
    n: int = 2000
    """Contexts."""
    length: int = 24
    """Tokens a context."""
    magnitudes: tuple[float, ...] = (0.1, 1.0, 3.0)
    """Norms of the write, in native writes."""
    timings: tuple[Timing, ...] = ("after_token", "at_token")
    """Whether the written token itself reads the write."""
    ranks: tuple[int, int] = (0, 1)
    """Targets are drawn from these ranks of the native distribution, the second excluded: 0 1 is the top token."""


@dataclass(frozen=True)
class Installs(Common):
    """Does a target token appear when its direction is written near the prompt's end?"""

    sites: tuple[str, ...] = ("L5.H0",)
    """Heads that are written at together; "all" for every head."""
    n: int = 300
    """Prompts."""
    length: int = 24
    """Tokens a prompt."""
    directions: tuple[Direction, ...] = ("closed", "exact", "random")
    """exact: most raises the target's logit to first order; closed: the target's unembedding through the head."""
    magnitudes: tuple[float, ...] = (1.5, 3.0, 6.0)
    """Norms of each write, in native writes."""
    positions: tuple[int, ...] = (3,)
    """How many consecutive last tokens are written at."""
    ranks: tuple[tuple[int, int], ...] = ((100, 1000),)
    """Classes of targets by their native rank, the second excluded: --ranks 10 100 100 1000 are two classes."""
    targets: int = 1
    """Targets a prompt and class."""
    new_tokens: int = 20
    """Tokens that are generated."""
    timing: Timing = "after_token"
    """Whether the written token itself reads the write."""


@dataclass(frozen=True)
class Erasure(Common):
    """What does taking out a feature's write at its firings do to the token that it stands for?"""

    dictionary: str = ""
    """Folder or Hub id of a dictionary of the head."""
    site: str = "L5.H0"
    """The head."""
    features: tuple[int, ...] = ()
    """Features; by default the one that fires most."""
    n: int = 64
    """Passages."""
    length: int = 256
    """Tokens a passage."""
    firings: int = 150
    """At most so many firings, and as many other positions."""
    doses: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0)
    """How many times the write is taken out, or added in the control."""
    follow: Literal["closed", "measured"] = "closed"
    """How the followed token is found: by the closed form, or measured on one half of the passages."""
    timing: Timing = "after_token"
    """Whether the edited token itself reads the edit."""


@dataclass(frozen=True)
class Amplification(Common):
    """Does amplifying a class's features change how many tokens of the class are said? Newlines by default."""

    dictionaries: tuple[str, ...] = ()
    """SITE=FOLDER of the dictionaries of the heads that are amplified together, such as L5.H0=runs/L5.H0/sae."""
    pattern: str = r"\n"
    """The class: tokens whose text matches this regular expression."""
    n: int = 40
    """Prompts."""
    length: int = 24
    """Tokens a prompt."""
    passages: int = 64
    """Passages of 256 tokens in which the class's features are found."""
    features: int = 10
    """Features a head, and as many random ones in the control."""
    doses: tuple[float, ...] = (2.0, 5.0, 10.0)
    """Factors of the coefficients, at every token."""
    new_tokens: int = 400
    """Tokens that are generated."""
    temperature: float = 0.0
    """0 for greedy."""
    timing: Timing = "after_token"
    """Whether an edited token itself reads the edit."""


@dataclass(frozen=True)
class ProperNouns(Common):
    """Can a proper noun be installed or erased, more or less than an ordinary word? With a test of equivalence."""

    sites: tuple[str, ...] = ("L5.H0",)
    """Heads that are written at together; "all" for every head."""
    n: int = 300
    """Contexts a class."""
    length: int = 24
    """Tokens a context."""
    directions: tuple[Direction, ...] = ("closed", "exact", "random")
    """exact: most raises the target's logit to first order; closed: the target's unembedding through the head."""
    magnitudes: tuple[float, ...] = (-3.0, 3.0)
    """Norms of each write, in native writes; negative ones erase."""
    positions: int = 3
    """How many consecutive last tokens are written at."""
    new_tokens: int = 20
    """Tokens that are generated."""
    margin: float = 0.05
    """Differences of inclusion below this are called none."""
    timing: Timing = "after_token"
    """Whether the written token itself reads the write."""


AnyProbe = Sign | Installs | Erasure | Amplification | ProperNouns


@dataclass(frozen=True)
class Command:
    """Run one of the paper's probes of editing; print its table, and write summary.json, every trial as Parquet, and a
    plot. A probe that was stopped goes on where it was when the same command is given again."""

    probe: tyro.conf.OmitSubcommandPrefixes[
        tyro.conf.OmitArgPrefixes[
            Annotated[Sign, tyro.conf.subcommand("sign")]
            | Annotated[Installs, tyro.conf.subcommand("installs")]
            | Annotated[Erasure, tyro.conf.subcommand("erasure")]
            | Annotated[Amplification, tyro.conf.subcommand("amplification")]
            | Annotated[ProperNouns, tyro.conf.subcommand("proper-nouns")]
        ]
    ]


def run(command: Command) -> None:
    """Measure, print the table, write the files."""
    from rich.console import Console
    from rich.progress import Progress

    from writesae.evals.old.probes import open_host
    from writesae.evals.old.probes.pictures import console_table, write_probe

    probe = command.probe
    host = open_host(probe.host, probe.device, probe.revision)
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(type(probe).__name__)

        def tell(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        result = _measure(probe, host, tell)
    write_probe(result, probe.out)
    console = Console()
    console.print(console_table(result))
    console.print(f"wrote {probe.out / 'summary.json'}, records.parquet, plot.html", highlight=False)


def _measure(probe: AnyProbe, host: Host, tell: Callable[[int, int], None]) -> Probe:
    import writesae.evals.old.probes as probes
    from writesae.edits import Sampling
    from writesae.types import Site

    parts, seed = probe.out / "parts", probe.seed
    if isinstance(probe, Sign):
        sign = probes.SignConfig(probe.magnitudes, probe.timings, probe.ranks, seed)
        site = Site.parse(probe.site)
        host.check_site(site)
        contexts = probes.draw_texts(host, probe.corpus, probe.n, probe.length, seed=seed)
        return probes.sign_test(host, site, contexts, sign, tell, parts)
    if isinstance(probe, Installs):
        sweep = probes.InstallSweep(
            probe.directions, probe.magnitudes, probe.positions, probe.ranks, probe.targets, probe.new_tokens,
            probe.timing, seed=seed,
        )  # fmt: skip
        sites = _sites(host, probe.sites)
        prompts = probes.draw_texts(host, probe.corpus, probe.n, probe.length, seed=seed)
        return probes.install_sweep(host, sites, prompts, sweep, tell, parts)
    if isinstance(probe, ProperNouns):
        names = probes.NamesConfig(
            probe.directions, probe.magnitudes, probe.positions, probe.length, probe.new_tokens, probe.timing,
            probe.margin, seed,
        )  # fmt: skip
        texts = probes.draw_texts(host, probe.corpus, 4 * probe.n, 6 * probe.length, seed=seed)
        return probes.proper_nouns(host, _sites(host, probe.sites), texts, probe.n, names, tell, parts)
    if isinstance(probe, Erasure):
        site, sae = _dictionary(f"{probe.site}={probe.dictionary}", host)
        config = probes.ErasureConfig(probe.doses, probe.firings, timing=probe.timing, follow=probe.follow, seed=seed)
        passages = probes.draw_texts(host, probe.corpus, probe.n, probe.length, LAST, seed)
        return probes.erasure(host, sae, site, probe.features or None, passages, config)
    amplified = probes.AmplificationConfig(
        probe.pattern, probe.doses, probe.features, probe.new_tokens, Sampling(probe.temperature, seed=seed),
        probe.timing, seed,
    )  # fmt: skip
    saes = dict(_dictionary(entry, host) for entry in probe.dictionaries)
    passages = probes.draw_texts(host, probe.corpus, probe.passages, 256, REST, seed)
    prompts = probes.draw_texts(host, probe.corpus, probe.n, probe.length, LAST, seed)
    return probes.amplification(host, saes, passages, prompts, amplified, tell, parts)


REST, LAST = (0.0, 0.8), (0.8, 1.0)
"""Parts of every document: dictionaries are trained on the first, and tested on the second."""


def _sites(host: Host, names: tuple[str, ...]) -> tuple[Site, ...]:
    from writesae.types import Site

    return tuple(host.sites) if names == ("all",) else tuple(Site.parse(name) for name in names)


def _dictionary(entry: str, host: Host) -> tuple[Site, SAE]:
    from writesae.artifacts import load_sae
    from writesae.errors import InputError
    from writesae.types import Site

    name, equals, folder = entry.partition("=")
    if not (name and equals and folder):
        raise InputError(f"dictionary {entry!r} is not written like L5.H0=FOLDER")
    site = Site.parse(name)
    return site, load_sae(folder, site=site, host=host.name)
