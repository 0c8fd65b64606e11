"""Where writes are replaced: places drawn from the passages, and what stands there (the native write, the top atom)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from writesae.causal.writes import HeadWrites
from writesae.errors import InputError
from writesae.evals.common.controls import Firings
from writesae.evals.common.firings import gather, top_codes
from writesae.evals.old.substitution_config import Silent, SubstitutionConfig
from writesae.sae import SAE
from writesae.types import NativeWrite, Site


class Places(NamedTuple):
    """Tokens of some passages, each `[R]`."""

    passage: Tensor
    position: Tensor

    def within(self, begin: int, end: int) -> Places:
        """Those in the passages `begin <= b < end`, counted from `begin`."""
        here = (self.passage >= begin) & (self.passage < end)
        return Places(self.passage[here] - begin, self.position[here])


def draw(tokens: Tensor, config: SubstitutionConfig) -> Places:
    """Places without replacement in passages `[B, T]` without padding, in order: at least one token from the start,
    and far enough from the end to score. Raises InputError where there are too few."""
    batch, length = tokens.shape
    room = length - 2 - config.horizon
    if batch * max(room, 0) < config.firings:
        raise InputError(
            f"{config.firings} firings were asked for, but {batch} passages of {length} tokens hold only "
            f"{batch * max(room, 0)} places: pass more text or ask for fewer"
        )
    generator = torch.Generator().manual_seed(config.seed)
    chosen = torch.randperm(batch * room, generator=generator)[: config.firings].sort().values
    return Places(chosen // room, chosen % room + 1)


class Chosen(NamedTuple):
    """The places to score and why the others are not."""

    firings: dict[Site, Firings]
    """What stands at each place, by head; all heads hold the same places. Coefficient 0: the head is left alone."""
    refused: dict[str, int]
    """Reason -> how many places."""


def choose(
    saes: Mapping[Site, SAE],
    writes: Mapping[Site, HeadWrites],
    places: Places,
    native_write: NativeWrite,
    silent: Silent,
) -> Chosen:
    """Keep the places where every head's dictionary fires (with `silent="leave"`, where any does)."""
    codes = {site: top_codes(sae, writes[site]) for site, sae in saes.items()}
    fires = torch.stack([codes[site].value[places.passage, places.position].cpu() > 0 for site in saes])
    kept = fires.all(0) if silent == "refuse" else fires.any(0)
    refused: dict[str, int] = {}
    if len(saes) == 1 or silent == "leave":
        refused = {"no feature fires": int((~kept).sum())}
    else:
        first = fires.int().argmin(0)[~kept]  # named after the first head that is silent
        for index, site in enumerate(saes):
            refused[f"no feature fires at {site}"] = int((first == index).sum())
    passage, position = places.passage[kept], places.position[kept]
    firings = {}
    for index, (site, sae) in enumerate(saes.items()):
        coefficient = codes[site].value[passage, position]
        coefficient = torch.where(fires[index, kept].to(coefficient.device), coefficient, 0)
        feature = codes[site].feature[passage, position]
        firings[site] = gather(sae, writes[site], passage, position, feature, coefficient, native_write)
    return Chosen(firings, {reason: n for reason, n in refused.items() if n})
