"""The audit that needs no dictionary: what each head of a host remembers, and what one of its writes is worth."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from writesae.causal.divergence import kl_divergence
from writesae.causal.patching import Edits, patched_logits
from writesae.errors import InputError
from writesae.evals.old.configs import SpectrumConfig as SpectrumConfig
from writesae.evals.old.provenance import Provenance, tokens_hash
from writesae.evals.old.result import Result
from writesae.hosts import Host
from writesae.hosts.fork import NativeRun, native_run
from writesae.recurrence import delta_values, replay
from writesae.types import Site, Timing

MEMORY = 0.5
"""A head remembers where a token's own write is at most this share of the state after it."""


@dataclass(frozen=True)
class HeadSpectrum:
    """One head of a host."""

    layer: int
    head: int
    decay: float
    """Mean of `d_t` (over channels, where there are several)."""
    write_share: float
    """Median of `|k u^T| / |S_t|` (Frobenius)."""
    stable_rank: float
    """Median of `|S_t|_F^2 / |S_t|_2^2`."""
    delete_kl: float
    """Median KL(native || patched) in nats of the next scored token when one delta write is deleted."""
    singular_values: tuple[float, ...] = ()
    """Median over positions of each singular value of the state, as a share of its Frobenius norm, largest first."""

    @property
    def site(self) -> Site:
        """Where this head is."""
        return Site(self.layer, self.head)


@dataclass(frozen=True)
class Spectrum:
    """Every head of a host, and how it was measured."""

    heads: tuple[HeadSpectrum, ...]
    n: int
    """Deleted writes a head."""
    timing: Timing
    seed: int
    writes: pd.DataFrame = field(default_factory=pd.DataFrame, repr=False)
    """One row a head and deleted write: all that the medians of `heads` are taken over."""

    def default_site(self) -> Site:
        """The head with the largest deletion effect among those that remember (write share <= 0.5), else of all."""
        return default_site(self.frame())

    def frame(self, chosen: Site | None = None) -> pd.DataFrame:
        """One row a head, with the chosen site marked."""
        table = pd.DataFrame([asdict(h) for h in self.heads])
        table["chosen"] = [h.site == chosen for h in self.heads]
        return table


@dataclass(frozen=True)
class SpectrumSummary:
    """Over all heads."""

    default_site: str
    """The head with the largest deletion effect among those that remember (write share <= 0.5), else of all."""
    heads: int
    remembering: int
    """Heads whose write is at most half of the state after it."""
    stable_rank: float
    """Median over heads of their medians, as the following two."""
    write_share: float
    decay: float
    singular_share: float
    """Median over all states of the largest singular value's share of the squared Frobenius norm."""


@torch.no_grad()
def spectrum(
    host: Host,
    tokens: Tensor,
    *,
    writes: int = 40,
    timing: Timing = "after_token",
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Spectrum:
    """Audit every recurrent head on passages `[B, T]`, with `writes` random positions a layer.

    Raises InputError where the passages are too short to leave a next token to score.
    """
    batch, length = tokens.shape
    if length < 4:
        raise InputError(f"the audit needs passages of at least 4 tokens, not {length}")
    generator = torch.Generator().manual_seed(seed)
    tables, decays = [], dict[Site, float]()
    for done, (index, layer) in enumerate(host.layers.items()):
        run = native_run(host, tokens, index)
        passage = torch.randint(batch, (writes,), generator=generator)
        position = torch.randint(1, length - 2, (writes,), generator=generator)
        tables.append(_layer(run, passage, position, timing))
        decay = run.streams[index].log_decay.exp().mean((0, 1, 3))
        decays |= {Site(index, head): float(decay[head]) for head in range(layer.heads)}
        if progress is not None:
            progress(done + 1, len(host.layers))
    table = pd.concat(tables, ignore_index=True)
    return Spectrum(heads_of(table, decays), writes, timing, seed, table)


def _layer(run: NativeRun, passage: Tensor, position: Tensor, timing: Timing) -> pd.DataFrame:
    """One row a head and place `[R]`."""
    stream, writes = run.streams[run.layer], len(passage)
    heads = stream.key.shape[2]
    update, _ = delta_values(stream)
    key, value = stream.key[passage, position], update[passage, position]  # [R, H, d]
    singular = torch.linalg.svdvals(replay(stream, keep=(passage, position)).states)
    size = singular.square().sum(-1).sqrt()
    share = key.norm(dim=-1) * value.norm(dim=-1) / size.clamp_min(1e-30)
    rank = singular.square().sum(-1) / singular[..., 0].square().clamp_min(1e-30)
    edits = Edits(list(range(heads)), passage, position, key, value, -torch.eye(heads).expand(writes, -1, -1))
    kl = torch.empty(writes, heads, dtype=torch.float64)
    for scored in patched_logits(run, edits, timing):
        kl[scored.which] = kl_divergence(scored.native.unsqueeze(1), scored.patched)[:, :, 0].cpu()
    columns = {
        "layer": torch.full((heads, writes), run.layer), "head": torch.arange(heads)[:, None].expand(-1, writes),
        "passage": passage.expand(heads, -1), "position": position.expand(heads, -1),
        "token": run.tokens[passage, position].expand(heads, -1),
        "state_norm": size.T, "write_share": share.T, "stable_rank": rank.T, "delete_kl": kl.T,
    }  # fmt: skip
    table = pd.DataFrame({name: x.flatten().cpu().numpy() for name, x in columns.items()})
    table["singular_values"] = list(singular.transpose(0, 1).flatten(0, 1).cpu().numpy())
    return table


def heads_of(writes: pd.DataFrame, decays: Mapping[Site, float]) -> tuple[HeadSpectrum, ...]:
    """One entry a head from the table of writes and each head's mean decay."""
    found = []
    for site, decay in decays.items():
        own = writes[(writes["layer"] == site.layer) & (writes["head"] == site.head)]
        share, rank, kl = (_middle(own[name].to_numpy()) for name in ("write_share", "stable_rank", "delete_kl"))
        relative = np.stack(own.singular_values.tolist()) / np.maximum(own.state_norm.to_numpy()[:, None], 1e-30)
        profile = tuple(float(x) for x in np.median(relative, 0))
        found.append(HeadSpectrum(site.layer, site.head, decay, share, rank, kl, profile))
    return tuple(found)


def _middle(x: NDArray[np.float64]) -> float:
    """The lower median: a value that was measured."""
    return float(np.sort(x)[(len(x) - 1) // 2])


def default_site(records: pd.DataFrame) -> Site:
    """The head with the largest deletion effect among those that remember (write share <= 0.5), else of all."""
    remembering = records[records.write_share <= MEMORY]
    among = remembering if len(remembering) else records
    best = among.iloc[int(np.argmax(among.delete_kl.to_numpy()))]
    return Site(int(best["layer"]), int(best["head"]))


def audit(host: Host, tokens: Tensor, config: SpectrumConfig | None = None) -> Result[SpectrumConfig, SpectrumSummary]:
    """The audit as a result; a record is a head, a row of the table `writes` a head and deleted write."""
    config = SpectrumConfig() if config is None else config
    found = spectrum(host, tokens, writes=config.writes, timing=config.timing, seed=config.seed)
    source = Provenance(host.name, host.revision, "all", (), tokens_hash(tokens))
    records = found.frame(found.default_site())
    summary = summarise(records, found.writes, config)
    return Result("spectrum", source, config, len(records), {}, summary, records, {"writes": found.writes})


def summarise(records: pd.DataFrame, writes: pd.DataFrame, config: SpectrumConfig) -> SpectrumSummary:
    """The summary of the two tables; everything but the decays follows from `writes`."""
    sites = [Site(int(h), int(n)) for h, n in zip(records["layer"], records["head"], strict=True)]
    heads = heads_of(writes, dict(zip(sites, records.decay.astype(float), strict=True)))
    table = pd.DataFrame([asdict(h) for h in heads])
    largest = np.array([values[0] for values in writes.singular_values]) / writes.state_norm.to_numpy()
    return SpectrumSummary(
        default_site=str(default_site(table)),
        heads=len(table),
        remembering=int((table.write_share <= MEMORY).sum()),
        stable_rank=float(table.stable_rank.median()),
        write_share=float(table.write_share.median()),
        decay=float(table.decay.median()),
        singular_share=float(np.median(np.square(largest))),
    )
