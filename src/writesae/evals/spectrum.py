"""The audit that needs no dictionary: what each head of a host remembers, and what one of its writes is worth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass

import pandas as pd
import torch
from torch import Tensor

from writesae.errors import InputError
from writesae.evals.divergence import kl_divergence
from writesae.evals.patching import Edits, patched_logits
from writesae.hosts import Host
from writesae.hosts.fork import native_run
from writesae.recurrence import delta_values, replay
from writesae.types import Protocol, Site

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
    timing: Protocol
    seed: int

    def default_site(self) -> Site:
        """The head with the largest deletion effect among those that remember (write share <= 0.5), else of all."""
        remembering = [h for h in self.heads if h.write_share <= MEMORY] or list(self.heads)
        return max(remembering, key=lambda h: h.delete_kl).site

    def frame(self, chosen: Site | None = None) -> pd.DataFrame:
        """One row a head, with the chosen site marked."""
        table = pd.DataFrame([asdict(h) for h in self.heads])
        table["chosen"] = [h.site == chosen for h in self.heads]
        return table


@torch.no_grad()
def spectrum(
    host: Host,
    tokens: Tensor,
    *,
    writes: int = 40,
    timing: Protocol = "after_token",
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
    heads: list[HeadSpectrum] = []
    for done, (index, layer) in enumerate(host.layers.items()):
        run = native_run(host, tokens, index)
        stream = run.streams[index]
        passage = torch.randint(batch, (writes,), generator=generator)
        position = torch.randint(1, length - 2, (writes,), generator=generator)
        update, _ = delta_values(stream)
        key, value = stream.key[passage, position], update[passage, position]  # [R, H, d]
        states = replay(stream, keep=(passage, position)).states
        singular = torch.linalg.svdvals(states)
        size = singular.square().sum(-1).sqrt()
        share = key.norm(dim=-1) * value.norm(dim=-1) / size.clamp_min(1e-30)
        rank = singular.square().sum(-1) / singular[..., 0].square().clamp_min(1e-30)
        decay = stream.log_decay.exp().mean((0, 1, 3))
        delete_each = -torch.eye(layer.heads).expand(writes, -1, -1)
        edits = Edits(list(range(layer.heads)), passage, position, key, value, delete_each)
        kl = torch.empty(writes, layer.heads, dtype=torch.float64)
        for scored in patched_logits(run, edits, timing):
            kl[scored.which] = kl_divergence(scored.native.unsqueeze(1), scored.patched)[:, :, 0].cpu()
        columns = (decay, *(x.median(0).values for x in (share, rank, kl)))
        heads += [HeadSpectrum(index, h, *(float(x[h]) for x in columns)) for h in range(layer.heads)]
        if progress is not None:
            progress(done + 1, len(host.layers))
    return Spectrum(tuple(heads), writes, timing, seed)
