"""Can one atom stand in for one write? Replace the write by the atom, delete it, or put a random matrix there.

Paper section 3.2 and Table 2. At a firing, the top atom of a token takes the place of the token's native write and
the model's next-token distribution is compared with the native one. An atom wins when its KL is strictly smaller
than deleting the write. Everything that the paper leaves open is an option, and is named in the result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from writesae.errors import InputError
from writesae.evals.divergence import Direction, kl_divergence
from writesae.evals.patching import Edits, patched_logits
from writesae.evals.stats import Interval, clustered, wilson
from writesae.evals.writes import HeadWrites, NativeWrite, head_writes
from writesae.hosts import Host
from writesae.hosts.fork import native_run
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
class Substitution:
    """The result of a substitution test, with one record a firing and protocol."""

    site: Site
    target: str
    config: SubstitutionConfig
    host: str
    revision: str
    summaries: dict[Protocol, SubstitutionSummary]
    records: pd.DataFrame = field(repr=False)

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
) -> Substitution:
    """Run the test on held-out passages `[B, T]`.

    Raises InputError for a dictionary of another shape, for passages that are too short, or if nothing fires.
    """
    config = SubstitutionConfig() if config is None else config
    layer = host.check_site(site)
    if (sae.config.d_k, sae.config.d_v) != (layer.d_k, layer.d_v):
        raise InputError(
            f"the dictionary is for {sae.config.d_k} x {sae.config.d_v} matrices, "
            f"but {site} writes {layer.d_k} x {layer.d_v}"
        )
    places = _draw(tokens, config)
    tables, refused = [], 0
    for begin in range(0, len(tokens), PASSAGES_AT_ONCE):
        here = (places.passage >= begin) & (places.passage < begin + PASSAGES_AT_ONCE)
        if here.any():
            part = _Places(places.passage[here] - begin, places.position[here])
            table = _score(host, sae, site, tokens[begin : begin + PASSAGES_AT_ONCE], part, begin, config)
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
    return Substitution(site, sae.config.target, config, host.name, host.revision, summaries, records)


def _draw(tokens: Tensor, config: SubstitutionConfig) -> _Places:
    """Places without replacement, at least one token from the start and two from the end."""
    batch, length = tokens.shape
    room = length - 3
    if batch * max(room, 0) < config.firings:
        raise InputError(
            f"{config.firings} firings were asked for, but {batch} passages of {length} tokens hold only "
            f"{batch * max(room, 0)} places: pass more text or ask for fewer"
        )
    generator = torch.Generator().manual_seed(config.seed)
    chosen = torch.randperm(batch * room, generator=generator)[: config.firings].sort().values
    return _Places(chosen // room, chosen % room + 1)


def _score(
    host: Host, sae: SAE, site: Site, tokens: Tensor, places: _Places, offset: int, config: SubstitutionConfig
) -> pd.DataFrame:
    run = native_run(host, tokens, site.layer)
    writes = head_writes(run, site.head)
    codes = top_codes(sae, writes)
    coefficient = codes.value[places.passage, places.position]
    feature = codes.feature[places.passage, places.position]
    fires = coefficient > 0
    passage, position = places.passage[fires], places.position[fires]
    coefficient, feature = coefficient[fires], feature[fires]

    key, value = writes.written.key[passage, position], writes.side(config.native_write)[passage, position]
    atoms = sae.atoms()
    v, w = atoms.v[feature], atoms.w[feature]
    generator = torch.Generator().manual_seed(config.seed + 1 + offset)
    x, y = (torch.nn.functional.normalize(torch.randn(s.shape, generator=generator), dim=-1) for s in (v, w))
    norm = key.norm(dim=-1) * value.norm(dim=-1)
    atom_norm = v.norm(dim=-1) * w.norm(dim=-1)
    overlap = (key * v).sum(-1) * (value * w).sum(-1)
    edits = Edits(
        [site.head] * 3, passage, position,
        torch.stack([key, v, x.to(key)], 1), torch.stack([value, w, y.to(value)], 1),
        _weights(coefficient, atom_norm, norm),
    )  # fmt: skip
    common = {
        "passage": passage + offset, "position": position, "token": tokens[passage, position], "feature": feature,
        "coefficient": coefficient, "cosine": overlap / (norm * atom_norm).clamp_min(1e-30), "write_norm": norm,
    }  # fmt: skip
    tables = []
    for timing in config.timings:
        kl = torch.empty(len(passage), len(CONDITIONS), dtype=torch.float64)
        for scored in patched_logits(run, edits, timing):
            divergence = kl_divergence(scored.native.unsqueeze(1), scored.patched, config.direction)
            kl[scored.which] = divergence[:, :, 0].cpu()
        columns = common | {f"kl_{name}": kl[:, i] for i, name in enumerate(CONDITIONS)}
        table = pd.DataFrame({name: column.cpu().numpy() for name, column in columns.items()})
        tables.append(table.assign(protocol=timing))
    return pd.concat(tables, ignore_index=True)


def _weights(coefficient: Tensor, atom_norm: Tensor, norm: Tensor) -> Tensor:
    """Weights of (native write, atom, random) a condition, `[R, C, 3]`: each edit takes the native write away.

    The random matrix has unit norm, so at the atom's coefficient it is as large as the atom's contribution.
    """
    zero, one = torch.zeros_like(norm), torch.ones_like(norm)
    rows = {
        "atom": (coefficient, zero),
        "atom_norm": (norm / atom_norm.clamp_min(1e-30), zero),
        "delete": (zero, zero),
        "random": (zero, coefficient * atom_norm),
        "random_norm": (zero, norm),
    }
    return torch.stack([torch.stack([-one, *rows[name]], -1) for name in CONDITIONS], 1)


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


def contexts(host: Host, tokens: Tensor, passage: Sequence[int], position: Sequence[int], width: int = 12) -> list[str]:
    """The text up to and including each place, at most `width` tokens of it."""
    return [
        host.text(tokens[b, max(0, t - width + 1) : t + 1].tolist()) for b, t in zip(passage, position, strict=True)
    ]
