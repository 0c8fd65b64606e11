"""Can one atom stand in for one write? Replace the write by the atom, delete it, or put a random matrix there.

Paper section 3.2 and Table 2. At a firing, the top atom of a token takes the place of the token's native write and
the model's next-token distribution is compared with the native one. An atom wins when its KL is strictly smaller
than deleting the write. Everything that the paper leaves open is an option, and is named in the result.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from writesae.errors import InputError
from writesae.evals.controls import Control, Firings, control_component, random_component
from writesae.evals.divergence import Direction, kl_divergence
from writesae.evals.parts import Parts
from writesae.evals.patching import Edits, patched_logits
from writesae.evals.provenance import Provenance, provenance
from writesae.evals.stats import Interval, Test, cliffs_delta, clustered, paired_delta, wilcoxon, wilson
from writesae.evals.writes import HeadWrites, NativeWrite, head_writes
from writesae.hosts import Host
from writesae.hosts.fork import NativeRun, native_run
from writesae.sae import SAE
from writesae.types import Protocol, Site

CONDITIONS = ("atom", "atom_norm", "delete", "random", "random_norm")
"""What replaces the native write: the atom at its coefficient or at the write's Frobenius norm, nothing, or a random
rank-1 matrix at the atom's coefficient or at the write's norm."""

PASSAGES_AT_ONCE = 8


@dataclass(frozen=True)
class SubstitutionConfig:
    """The protocol of one substitution test."""

    timings: tuple[Protocol, ...] = ("after_token", "at_token")
    """Whether the edited token reads the edited state itself."""
    native_write: NativeWrite = "delta"
    """Which matrix counts as the token's write."""
    direction: Direction = "native||patched"
    """Direction of the KL divergence."""
    horizon: int = 1
    """Scored positions: the first one and those after it; the KL is their mean, in nats a token."""
    controls: tuple[Control, ...] = ()
    """Further replacements beside `CONDITIONS`; each adds a record column `kl_NAME`."""
    firings: int = 1000
    """Places drawn at random from the passages."""
    seed: int = 0
    """Of the places and of the random matrices."""


@dataclass(frozen=True)
class SubstitutionSummary:
    """What one protocol says."""

    attempted: int
    refused: dict[str, int]
    """Reason -> how many places were not scored for it. attempted = n + sum(refused)."""
    n: int
    win_rate: float
    """Share of firings where the atom at its coefficient has a strictly smaller KL than deleting the write."""
    interval: Interval
    """Wilson."""
    interval_clustered: Interval
    """Bootstrap over passages."""
    win_rate_norm: float
    """The same for the atom at the native write's norm."""
    interval_norm: Interval
    strict_chain: float
    """Share with KL_atom < KL_delete < KL_random."""
    median_kl: dict[str, float]
    """Condition -> median KL in nats."""
    median_cosine: float
    """Cosine of the atom to the native write at its firings."""


@dataclass(frozen=True)
class SubstitutionDetail:
    """What the summary leaves out, of one protocol; like it a function of the records alone."""

    interval_by_feature: Interval
    """Of the win rate, bootstrap over features."""
    wilcoxon: Test
    """Signed ranks of KL_atom against KL_delete, paired by firing."""
    paired_delta: float
    """Share of firings where the atom is closer than deletion minus the share where it is farther."""
    cliffs_delta: float
    """The same over all pairs of firings, KL_delete against KL_atom."""
    failures_by_quartile: tuple[float, float, float, float]
    """Share of firings where the atom does not win, by quartile of KL_delete, smallest effect first."""
    wins_against: dict[str, float]
    """Condition -> share of firings where the atom at its coefficient has a strictly smaller KL."""
    median_kl: dict[str, float]
    """Condition -> median KL in nats, controls included."""
    top1_disruption: dict[str, float]
    """Condition -> share of firings where the most likely token at the first scored position changes."""


@dataclass(frozen=True)
class Substitution:
    """The result of a substitution test, with one record a firing and protocol."""

    site: Site
    target: str
    config: SubstitutionConfig
    host: str
    revision: str
    summaries: dict[Protocol, SubstitutionSummary]
    records: pd.DataFrame = field(repr=False)
    provenance: Provenance

    @cached_property
    def details(self) -> dict[Protocol, SubstitutionDetail]:
        """Effect sizes, paired tests and controls of each protocol."""
        by = self.records.protocol
        return {timing: detail(self.records[by == timing], self.config.seed) for timing in self.config.timings}

    @property
    def main(self) -> SubstitutionSummary:
        """The first protocol asked for."""
        return self.summaries[self.config.timings[0]]


class _Places(NamedTuple):
    passage: Tensor
    position: Tensor


@torch.no_grad()
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
    """Run the test on held-out passages `[B, T]`.

    `flat` is the dictionary of the control `flat_svd`. In `folder` finished passages are kept, and a run that was
    stopped goes on there. Raises InputError for a dictionary of another shape, for passages that are too short, or if
    nothing fires; OutputError for a folder of another run.
    """
    config = SubstitutionConfig() if config is None else config
    source = provenance(host, site, tokens, *(x for x in (sae, flat) if x is not None))
    parts = Parts.open(folder, "substitution", source, config)
    places = _draw(tokens, config)
    tables, refused = [], 0
    for begin in range(0, len(tokens), PASSAGES_AT_ONCE):
        here = (places.passage >= begin) & (places.passage < begin + PASSAGES_AT_ONCE)
        if here.any():
            part = _Places(places.passage[here] - begin, places.position[here])
            group = tokens[begin : begin + PASSAGES_AT_ONCE]
            make = partial(_score, host, sae, site, group, part, begin, config, flat)
            table = parts.get(f"passages-{begin}", make)
            refused += int(here.sum()) - len(table) // len(config.timings)
            tables.append(table)
        if progress is not None:
            progress(min(begin + PASSAGES_AT_ONCE, len(tokens)), len(tokens))
    records = pd.concat(tables, ignore_index=True)
    if records.empty:
        raise InputError(f"no feature of the dictionary fires at any of {config.firings} places of {site}")
    reasons = {"no feature fires": refused} if refused else {}
    summaries = {
        timing: summarise(records[records.protocol == timing], reasons, config.seed) for timing in config.timings
    }
    return Substitution(site, sae.config.target, config, host.name, host.revision, summaries, records, source)


def _draw(tokens: Tensor, config: SubstitutionConfig) -> _Places:
    """Places without replacement, at least one token from the start and one more than scored from the end."""
    batch, length = tokens.shape
    room = length - 2 - config.horizon
    if batch * max(room, 0) < config.firings:
        raise InputError(
            f"{config.firings} firings were asked for, but {batch} passages of {length} tokens hold only "
            f"{batch * max(room, 0)} places: pass more text or ask for fewer"
        )
    generator = torch.Generator().manual_seed(config.seed)
    chosen = torch.randperm(batch * room, generator=generator)[: config.firings].sort().values
    return _Places(chosen // room, chosen % room + 1)


def _score(
    host: Host,
    sae: SAE,
    site: Site,
    tokens: Tensor,
    places: _Places,
    offset: int,
    config: SubstitutionConfig,
    flat: SAE | None,
) -> pd.DataFrame:
    run = native_run(host, tokens, site.layer)
    writes = head_writes(run, site.head)
    codes = top_codes(sae, writes)
    coefficient = codes.value[places.passage, places.position]
    fires = (coefficient > 0).cpu()
    passage, position = places.passage[fires], places.position[fires]
    feature = codes.feature[passage, position]
    firings = gather(sae, writes, passage, position, feature, codes.value[passage, position], config.native_write)
    return score_firings(run, site.head, sae, writes, firings, config, offset, flat)


def gather(
    sae: SAE,
    writes: HeadWrites,
    passage: Tensor,
    position: Tensor,
    feature: Tensor,
    coefficient: Tensor,
    native_write: NativeWrite,
) -> Firings:
    """Native writes and atoms at some firings, all `[R]`."""
    key, value = writes.written.key[passage, position], writes.side(native_write)[passage, position]
    atoms = sae.atoms()
    return Firings(passage, position, feature, coefficient, key, value, atoms.v[feature], atoms.w[feature])


def score_firings(
    run: NativeRun,
    head: int,
    sae: SAE,
    writes: HeadWrites,
    firings: Firings,
    config: SubstitutionConfig,
    offset: int,
    flat: SAE | None = None,
) -> pd.DataFrame:
    """One record a firing and protocol. `offset` is the number of the run's first passage."""
    generator = torch.Generator().manual_seed(config.seed + 1 + offset)
    random = random_component(firings, generator)
    extra = [
        control_component(name, firings, writes, config.native_write, sae, flat, generator) for name in config.controls
    ]
    names = (*CONDITIONS, *config.controls)
    edits = Edits(
        [head] * (3 + len(extra)), firings.passage, firings.position,
        torch.stack([firings.key, firings.v, random.key, *(x.key for x in extra)], 1),
        torch.stack([firings.value, firings.w, random.value, *(x.value for x in extra)], 1),
        _weights(firings, [x.size for x in extra]),
    )  # fmt: skip
    common = {
        "passage": firings.passage + offset, "position": firings.position,
        "token": run.tokens[firings.passage, firings.position], "feature": firings.feature,
        "coefficient": firings.coefficient, "cosine": firings.cosine, "write_norm": firings.norm,
    }  # fmt: skip
    tables = []
    for timing in config.timings:
        kl = torch.empty(len(firings.passage), len(names), dtype=torch.float64)
        moved = torch.empty(kl.shape, dtype=torch.bool)
        for scored in patched_logits(run, edits, timing, config.horizon):
            divergence = kl_divergence(scored.native.unsqueeze(1), scored.patched, config.direction)
            kl[scored.which] = divergence.mean(-1).cpu()
            best = scored.native[:, :1].argmax(-1)
            moved[scored.which] = (scored.patched[:, :, 0].argmax(-1) != best).cpu()
        columns = common | {f"kl_{name}": kl[:, i] for i, name in enumerate(names)}
        columns |= {f"top1_{name}": moved[:, i] for i, name in enumerate(names)}
        table = pd.DataFrame({name: column.cpu().numpy() for name, column in columns.items()})
        tables.append(table.assign(protocol=timing))
    return pd.concat(tables, ignore_index=True)


def _weights(firings: Firings, extra: list[Tensor]) -> Tensor:
    """Weights of (native write, atom, random, controls) a condition, `[R, C, M]`: each takes the native write away.

    The random matrix has unit norm, so at the atom's coefficient it is as large as the atom's contribution.
    """
    norm, atom_norm, coefficient = firings.norm, firings.atom_norm, firings.coefficient
    rows: dict[str, tuple[int, Tensor]] = {
        "atom": (1, coefficient),
        "atom_norm": (1, norm / atom_norm.clamp_min(1e-30)),
        "delete": (1, torch.zeros_like(norm)),
        "random": (2, coefficient * atom_norm),
        "random_norm": (2, norm),
    }
    lines = [*(rows[name] for name in CONDITIONS), *((3 + i, size) for i, size in enumerate(extra))]
    weight = norm.new_zeros(len(norm), len(lines), 3 + len(extra))
    weight[:, :, 0] = -1
    for line, (component, amount) in enumerate(lines):
        weight[:, line, component] = amount
    return weight


class TopCode(NamedTuple):
    """The strongest feature of every token; coefficient 0 where none fires."""

    feature: Tensor
    value: Tensor


def top_codes(sae: SAE, writes: HeadWrites) -> TopCode:
    """Encode a head's writes (or states, as the dictionary wants) and keep each token's top feature, `[B, T]`."""
    codes = sae.encode_written(writes.written)
    value, slot = codes.value.max(-1)
    return TopCode(codes.index.gather(-1, slot.unsqueeze(-1)).squeeze(-1), value)


def summarise(records: pd.DataFrame, refused: dict[str, int], seed: int) -> SubstitutionSummary:
    """The summary of one protocol's records; nothing else enters it."""
    atom, delete, random = (records[f"kl_{name}"].to_numpy() for name in ("atom", "delete", "random"))
    wins, wins_norm = atom < delete, records.kl_atom_norm.to_numpy() < delete
    n = len(records)
    return SubstitutionSummary(
        attempted=n + sum(refused.values()),
        refused=refused,
        n=n,
        win_rate=float(wins.mean()),
        interval=wilson(int(wins.sum()), n),
        interval_clustered=clustered(wins, records.passage.to_numpy(), seed),
        win_rate_norm=float(wins_norm.mean()),
        interval_norm=wilson(int(wins_norm.sum()), n),
        strict_chain=float((wins & (delete < random)).mean()),
        median_kl={name: float(np.median(records[f"kl_{name}"])) for name in CONDITIONS},
        median_cosine=float(np.median(records.cosine)),
    )


def detail(records: pd.DataFrame, seed: int) -> SubstitutionDetail:
    """Effect sizes, paired tests and controls of one protocol's records."""
    names = [str(c).removeprefix("kl_") for c in records.columns if str(c).startswith("kl_")]
    kl = {name: records[f"kl_{name}"].to_numpy() for name in names}
    wins = kl["atom"] < kl["delete"]
    edges = np.quantile(kl["delete"], [0.25, 0.5, 0.75])
    quartile = np.searchsorted(edges, kl["delete"], side="left")
    failed = [float(1 - wins[quartile == q].mean()) if (quartile == q).any() else float("nan") for q in range(4)]
    return SubstitutionDetail(
        interval_by_feature=clustered(wins, records.feature.to_numpy(), seed),
        wilcoxon=wilcoxon(kl["atom"], kl["delete"]),
        paired_delta=paired_delta(kl["delete"], kl["atom"]),
        cliffs_delta=cliffs_delta(kl["delete"], kl["atom"]),
        failures_by_quartile=(failed[0], failed[1], failed[2], failed[3]),
        wins_against={name: float((kl["atom"] < x).mean()) for name, x in kl.items() if name != "atom"},
        median_kl={name: float(np.median(x)) for name, x in kl.items()},
        top1_disruption={name: float(records[f"top1_{name}"].mean()) for name in names},
    )


@dataclass(frozen=True)
class ManySites:
    """The test at several heads, one dictionary each."""

    results: dict[Site, Substitution]
    """By head, those that fired."""
    refused: dict[str, str]
    """Head -> why it was not scored."""

    def table(self, timing: Protocol) -> pd.DataFrame:
        """One row a head: site, n, win rate, median KLs."""
        rows = []
        for site, result in self.results.items():
            one = result.summaries[timing]
            kls = {f"kl_{name}": value for name, value in one.median_kl.items()}
            rows.append({"site": str(site), "n": one.n, "win_rate": one.win_rate, **kls})
        return pd.DataFrame(rows)

    def pooled(self, timing: Protocol) -> SubstitutionSummary:
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
    """The test at every head that has a dictionary: the heads of a layer, or several layers.

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
