"""Can one atom stand in for one write? Replace the write by the atom, delete it, or put a random matrix there.

Paper section 3.2 and Table 2. At a firing, the top atom of a token takes the place of the token's native write and
the model's next-token distribution is compared with the native one. An atom wins when its KL is strictly smaller
than deleting the write. Everything that the paper leaves open is an option, and is named in the result.

Several heads, of one layer or of several, can be edited together: at a drawn token the write of every head is replaced
by the top atom of that head's own dictionary at that token (chosen natively), all in one run; the other conditions
delete all the writes, or put a random matrix in the place of each. What is taken away is what the head writes in the
edited run. That is its native write, save `at_token` in a layer above another edited one, whose inputs at that very
token have already changed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache, cached_property, partial
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from writesae.causal.budget import PASSAGES as PASSAGES
from writesae.causal.budget import passages_at_once
from writesae.causal.writes import head_writes
from writesae.errors import InputError
from writesae.evals.common.controls import NEEDS_BACKGROUND, Background, ScoredHead, background
from writesae.evals.old.parts import Parts
from writesae.evals.old.provenance import Provenance, provenance, sae_hash, tokens_hash
from writesae.evals.old.result import Result
from writesae.evals.old.substitution_config import CONDITIONS as CONDITIONS
from writesae.evals.old.substitution_config import SubstitutionConfig as SubstitutionConfig
from writesae.evals.old.substitution_places import Places, choose, draw
from writesae.evals.old.substitution_score import score_firings
from writesae.evals.old.substitution_summary import SubstitutionDetail as SubstitutionDetail
from writesae.evals.old.substitution_summary import SubstitutionSummary as SubstitutionSummary
from writesae.evals.old.substitution_summary import detail as detail
from writesae.evals.old.substitution_summary import summarise as summarise
from writesae.hosts import Host
from writesae.hosts.fork import native_run
from writesae.sae import SAE
from writesae.types import Site, Timing


@dataclass(frozen=True)
class Substitution:
    """The result of a substitution test, with one record a firing and protocol."""

    sites: tuple[Site, ...]
    """The heads edited together; one in the common case."""
    target: str
    config: SubstitutionConfig
    host: str
    revision: str
    summaries: dict[Timing, SubstitutionSummary]
    records: pd.DataFrame = field(repr=False)
    """Of several heads, `feature_L5.H0` and so on name what stood at each; `cosine` and `write_norm` are of all."""
    provenance: Provenance

    @property
    def site(self) -> Site:
        """The first head."""
        return self.sites[0]

    @cached_property
    def details(self) -> dict[Timing, SubstitutionDetail]:
        """Effect sizes, paired tests and controls of each protocol."""
        by = self.records.protocol
        return {timing: detail(self.records[by == timing], self.config.seed) for timing in self.config.timings}

    @property
    def main(self) -> SubstitutionSummary:
        """The first protocol asked for."""
        return self.summaries[self.config.timings[0]]

    def result(self) -> Result[SubstitutionConfig, dict[Timing, dict[str, object]]]:
        """The same in the form of every other evaluation: it can be written, and the report draws it."""
        summary: dict[Timing, dict[str, object]] = {
            t: asdict(one) | {"detail": asdict(self.details[t])} for t, one in self.summaries.items()
        }
        main = self.main
        return Result("substitution", self.provenance, self.config, main.attempted, main.refused, summary, self.records)


def substitution(
    host: Host,
    sae: SAE,
    site: Site,
    tokens: Tensor,
    config: SubstitutionConfig | None = None,
    progress: Callable[[int, int], None] | None = None,
    *,
    flat: SAE | None = None,
    folder: Path | None = None,
) -> Substitution:
    """Run the test at one head, on held-out passages `[B, T]` without padding.

    `flat` is the dictionary of the control `flat_svd`. In `folder` finished passages are kept, and a run that was
    stopped goes on there. Raises InputError for a dictionary of another shape, for passages that are too short, or if
    nothing fires; OutputError for a folder of another run.
    """
    flats = {} if flat is None else {site: flat}
    return joint_substitution(host, {site: sae}, tokens, config, progress, flats=flats, folder=folder)


@torch.no_grad()
def joint_substitution(
    host: Host,
    saes: Mapping[Site, SAE],
    tokens: Tensor,
    config: SubstitutionConfig | None = None,
    progress: Callable[[int, int], None] | None = None,
    *,
    flats: Mapping[Site, SAE] | None = None,
    folder: Path | None = None,
) -> Substitution:
    """The same at several heads edited together, in any layers, a dictionary each.

    A place where one of the dictionaries does not fire is refused (see `SubstitutionConfig.silent`).
    """
    config = SubstitutionConfig() if config is None else config
    flats = {} if flats is None else flats
    if not saes:
        raise InputError("substitution replaces writes by atoms: give at least 1 dictionary, not 0")
    sites = tuple(sorted(saes))
    saes = {site: saes[site] for site in sites}
    given = [(site, sae) for site in sites for sae in (saes[site], flats.get(site)) if sae is not None]
    for site, sae in given:
        provenance(host, site, tokens[:0], sae, states=True)  # raises where one does not fit
    hashes = tuple(sae_hash(sae) for _, sae in given)
    source = Provenance(host.name, host.revision, ",".join(map(str, sites)), hashes, tokens_hash(tokens))
    parts = Parts.open(folder, "substitution", source, replace(config, memory=None))
    places = draw(tokens, config)
    lowest = min(site.layer for site in sites)
    at_once = passages_at_once(host, tokens.shape[1], lowest, config.memory)
    common = cache(partial(_background, host, saes, tokens, config, at_once))

    def score(begin: int) -> pd.DataFrame:
        pieces = []
        for first in range(begin, min(begin + PASSAGES, len(tokens)), at_once):
            last = min(first + at_once, begin + PASSAGES)
            here = places.within(first, last)
            if len(here.passage):
                pieces.append(_score(host, saes, flats, tokens[first:last], here, first, config, common))
        return merge(pieces)

    tables = []
    for begin in range(0, len(tokens), PASSAGES):
        if len(places.within(begin, begin + PASSAGES).passage):
            tables.append(parts.get(f"passages-{begin}", partial(score, begin)))
        if progress is not None:
            progress(min(begin + PASSAGES, len(tokens)), len(tokens))
    records = merge(tables)
    refused: dict[str, int] = records.attrs.pop("refused")
    if records.empty:
        names = ", ".join(map(str, sites))
        raise InputError(f"no feature of the dictionary fires at any of {config.firings} places of {names}")
    by = records.protocol
    summaries = {timing: summarise(records[by == timing], refused, config.seed) for timing in config.timings}
    target = ",".join(sorted({sae.config.target for sae in saes.values()}))
    return Substitution(sites, target, config, host.name, host.revision, summaries, records, source)


def first_and_second(
    given: Sequence[tuple[Site, SAE]], config: SubstitutionConfig
) -> tuple[dict[Site, SAE], dict[Site, SAE]]:
    """The first dictionary of every head, whose atoms are written, and the second, that of the control `flat_svd`.

    Raises InputError for a third one, or for a second one that no control asks for.
    """
    saes, flats = dict[Site, SAE](), dict[Site, SAE]()
    for site, sae in given:
        if site in flats or (site in saes and "flat_svd" not in config.controls):
            what = "two dictionaries" if site in flats else "one dictionary without the control flat_svd"
            raise InputError(f"more dictionaries of {site} were given than it can use: {what} a head, no more")
        (flats if site in saes else saes)[site] = sae
    return saes, flats


def merge(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Records one after the other; what was refused for each reason (`attrs["refused"]`) is added up."""
    refused: dict[str, int] = {}
    for table in tables:
        for reason, n in table.attrs["refused"].items():
            refused[reason] = refused.get(reason, 0) + n
    whole = pd.concat([table for table in tables if len(table)] or tables[:1], ignore_index=True)
    whole.attrs = {"refused": refused}
    return whole


def _background(
    host: Host, saes: Mapping[Site, SAE], tokens: Tensor, config: SubstitutionConfig, at_once: int
) -> dict[Site, Background]:
    """What all passages say about each head, where a control asks for it."""
    if not NEEDS_BACKGROUND.intersection(config.controls):
        return {}
    return {site: background(host, sae, site, tokens, config.native_write, at_once) for site, sae in saes.items()}


def _score(
    host: Host,
    saes: Mapping[Site, SAE],
    flats: Mapping[Site, SAE],
    tokens: Tensor,
    places: Places,
    offset: int,
    config: SubstitutionConfig,
    common: Callable[[], dict[Site, Background]],
) -> pd.DataFrame:
    run = native_run(host, tokens, min(site.layer for site in saes))
    writes = {site: head_writes(run, site.head, site.layer) for site in saes}
    chosen = choose(saes, writes, places, config.native_write, config.silent)
    heads = [
        ScoredHead(site, sae, writes[site], chosen.firings[site], flats.get(site), common().get(site))
        for site, sae in saes.items()
    ]
    table = score_firings(run, heads, config, offset)
    table.attrs = {"refused": chosen.refused}
    return table


@dataclass(frozen=True)
class ManySites:
    """The test at several heads one at a time, one dictionary each."""

    results: dict[Site, Substitution]
    """By head, those that fired."""
    refused: dict[str, str]
    """Head -> why it was not scored."""

    def table(self, timing: Timing) -> pd.DataFrame:
        """One row a head: site, n, win rate, median KLs."""
        rows = []
        for site, result in self.results.items():
            one = result.summaries[timing]
            kls = {f"kl_{name}": value for name, value in one.median_kl.items()}
            rows.append({"site": str(site), "n": one.n, "win_rate": one.win_rate, **kls})
        return pd.DataFrame(rows)

    def pooled(self, timing: Timing) -> SubstitutionSummary:
        """All heads' firings together."""
        records = pd.concat([r.records[r.records.protocol == timing] for r in self.results.values()])
        refused: dict[str, int] = {}
        for result in self.results.values():
            for reason, n in result.summaries[timing].refused.items():
                refused[reason] = refused.get(reason, 0) + n
        return summarise(records, refused, next(iter(self.results.values())).config.seed)


def substitution_at(
    host: Host,
    saes: Mapping[Site, SAE],
    tokens: Tensor,
    config: SubstitutionConfig | None = None,
    folder: Path | None = None,
) -> ManySites:
    """The test at every head that has a dictionary, one head at a time.

    Heads where nothing fires are refused and named; raises InputError where no head is left.
    """
    results, refused = {}, {}
    for site, sae in saes.items():
        try:
            place = None if folder is None else folder / str(site)
            results[site] = substitution(host, sae, site, tokens, config, folder=place)
        except InputError as error:
            refused[str(site)] = str(error)
    if not results:
        raise InputError(f"none of {len(saes)} heads could be scored; the first: {next(iter(refused.values()), '')}")
    return ManySites(results, refused)


def contexts(host: Host, tokens: Tensor, passage: Sequence[int], position: Sequence[int], width: int = 12) -> list[str]:
    """The text up to and including each place, at most `width` tokens of it."""
    return [
        host.text(tokens[b, max(0, t - width + 1) : t + 1].tolist()) for b, t in zip(passage, position, strict=True)
    ]
