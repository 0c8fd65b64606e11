"""What several commands have in common, with one name, one meaning and one text each: groups, mixed in by a field.

text: Flat[TextOptions] = TextOptions()          # --corpus, --part, ... beside the command's own flags
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

import tyro

from writesae.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

    from writesae.cluster import Cluster
    from writesae.corpus import Text
    from writesae.hosts import Host
    from writesae.sae import SAE

T = TypeVar("T")
USUAL = "tiny-gdn"
"""The host where none is named."""
WIDE = 1000
"""Columns where there is no terminal."""
FLAT = tyro.conf.arg(name="")
Flat = Annotated[T, FLAT]
"""A group whose flags stand beside the command's own, without a prefix."""


def console() -> Console:
    """The terminal; where the output goes to a file or a pipe, one in which no line is wrapped or cut."""
    from rich.console import Console

    terminal = Console()
    return terminal if terminal.is_terminal else Console(width=WIDE)


def dictionaries(sources: Sequence[str], sites: Sequence[str] = ()) -> list[SAE]:
    """The dictionaries of folders and Hub repositories, in order; of a folder with several all, or those of `sites`.

    Raises InputError for a source that is not there before any is loaded, and where a folder has none of the heads.
    """
    from writesae.artifacts.shipped import place_of
    from writesae.disk import check_there

    for source in sources:
        check_there(place_of(source), hub=True)
    from writesae.artifacts import load_sae
    from writesae.artifacts.load import cells_in

    found = []
    for source in sources:
        cells = cells_in(Path(source)) if Path(source).is_dir() else ()
        if not cells:
            chosen = sites[0] if len(sites) == 1 and not Path(source).exists() else None
            found.append(load_sae(source, site=chosen))
            continue
        wanted = [cell for cell in cells if not sites or "all" in sites or str(cell.site) in sites]
        if not wanted:
            heads = ", ".join(dict.fromkeys(str(cell.site) for cell in cells))
            raise InputError(f"{source} holds no dictionary of {', '.join(sites)}; it has {heads}")
        found += [load_sae(Path(source) / cell.path) for cell in wanted]
    return found


def dictionary(source: str, site: str | None) -> SAE:
    """The one dictionary of a folder or Hub repository; raises InputError where there are several of `site`."""
    found = dictionaries([source], () if site is None else (site,))
    if len(found) > 1:
        heads = ", ".join(str(sae.site) for sae in found)
        raise InputError(
            f"{source} holds {len(found)} dictionaries, of {heads}: name a head with --site, or its folder"
        )
    return found[0]


def check_reading(saes: Sequence[SAE]) -> None:
    """Raise InputError where `--reading` was given and no dictionary is of states, which alone have two readings."""
    if not any(sae.target == "state" for sae in saes):
        why = "a dictionary of writes has one reading" if saes else "no dictionary was given"
        raise InputError(f"--reading has no effect: {why}; leave it out, or give a dictionary of states with --sae")


@dataclass(frozen=True)
class Running:
    """How a host runs."""

    device: str | None = None
    """Where the host runs: "cpu" (if nothing is said), "cuda", "cuda:1" or "auto"."""
    dtype: Literal["float32", "bfloat16", "float16", "auto"] = "float32"
    """Precision in which the host runs; "auto" is the checkpoint's own."""
    revision: str | None = None
    """Commit, branch or tag of a host on the Hub."""
    trust_remote_code: bool = False
    """Run code that comes with a host on the Hub. Only for repositories that you trust."""
    device_map: str | None = None
    """Spread the host over devices, in place of --device: auto, balanced, ... (needs accelerate)."""

    def open(self, host: str) -> Host:
        """Load a host; raises InputError or HostError where that cannot be."""
        from writesae.hosts import load

        return load(host, **vars(self))


@dataclass(frozen=True)
class Spread:
    """Over which machines."""

    ray: str | None = None
    """Spread the work over a Ray cluster: "local" (workers here), "auto" (the one that this machine belongs to), or
    ray://HOST:PORT. What is made must lie where all machines see it."""
    gpus_per_worker: float = 0.0
    """GPUs of each worker of the cluster; a part of one lets several share a card."""

    def cluster(self, workers: int) -> Cluster | None:
        """The cluster, if one was asked for; raises InputError for a flag without effect."""
        from writesae.cluster import Cluster

        if self.ray is None and self.gpus_per_worker:
            raise InputError("--gpus-per-worker has no effect without --ray")
        return None if self.ray is None else Cluster(self.ray, workers, self.gpus_per_worker)


@dataclass(frozen=True)
class HostOptions:
    """Which host, and how it runs."""

    host: str | None = None
    """An embedded host, a local folder, or a Hub id; if not said, the one that the dictionaries are of where it is
    here, else tiny-gdn."""
    running: Flat[Running] = Running()

    def open(self, saes: Sequence[SAE] = ()) -> Host:
        """Load it, or without a name the one that `saes` are of; raises InputError or HostError where that cannot
        be."""
        return self.running.open(self.host or _own_host(saes) or USUAL)


def _own_host(saes: Sequence[SAE]) -> str | None:
    """The one host that all dictionaries name, where its files are with the package, in a folder or in the cache."""
    from writesae.hosts.sources import EMBEDDED, in_cache

    named = {None if sae.record is None else sae.record.host for sae in saes}
    name = named.pop() if len(named) == 1 else None
    if name is None:
        return None
    return name if name in EMBEDDED or (Path(name) / "config.json").is_file() or in_cache(name) else None


@dataclass(frozen=True)
class TextOptions:
    """Which text: one part of the split that every command makes alike."""

    corpus: str = "sample"
    """The embedded "sample", a file or folder of text, JSONL or Parquet (also .gz, .xz, .zst), or
    hf:user/name?split=train&column=text for a data set on the Hub."""
    part: Literal["train", "test", "all"] = "test"
    """Which part of the corpus's split: dictionaries are trained on one and tested on the other."""
    held_out: float = 0.2
    """Share of the corpus that is its test part; the same for every command."""
    bos: bool = False
    """Start every sequence with the tokenizer's beginning-of-text token."""

    def check(self) -> None:
        """Raise InputError where there is no such corpus or share, before a host is loaded."""
        from writesae.corpus import check_source

        check_source(self.corpus)
        if not 0 < self.held_out < 1:
            raise InputError(f"--held-out {self.held_out:g} is no share of the corpus: give a number between 0 and 1")

    def open(self, host: Host, length: int) -> Text:
        """The text in sequences of `length` tokens of the host; raises InputError where there is none."""
        from writesae.corpus import text

        whole = text(self.corpus, host, length=length, bos=self.bos)
        if self.part == "all":
            return whole
        train, test = whole.split(1 - self.held_out)
        return train if self.part == "train" else test
