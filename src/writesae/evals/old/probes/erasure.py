"""What does taking out a write do to the token it stands for? Dose-response at firings, and a control elsewhere.

Paper section 4, Tables 18 and 19. At each firing of a feature `dose` times the native write is taken out, and the
change of the log probability of the feature's token at the next step is measured. The control adds the mean firing
write at positions where the feature does not fire.

Which token a feature stands for is said by the closed form (`closed`), or measured (`measured`): the token that loses
most when the write is taken out, found on one half of the passages and tested on the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from writesae.causal.closed_form import pointed_at
from writesae.causal.patching import Edits, patched_logits
from writesae.causal.writes import HeadWrites, head_writes
from writesae.errors import InputError
from writesae.evals.common.stats import Interval, clustered, holm, wilcoxon
from writesae.evals.old.provenance import provenance
from writesae.evals.old.result import Result
from writesae.hosts import Host
from writesae.hosts.fork import NativeRun, native_run
from writesae.sae import SAE
from writesae.types import NativeWrite, Site, Timing


@dataclass(frozen=True)
class ErasureConfig:
    """The protocol of an erasure test."""

    doses: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0)
    """How many times the write is taken out, or added in the control."""
    firings: int = 150
    """At most so many firings, and as many other positions, drawn at random."""
    form: NativeWrite = "delta"
    timing: Timing = "after_token"
    follow: Literal["closed", "measured"] = "closed"
    """How the token whose log probability is followed is found."""
    token: int | None = None
    """That token, where it is known."""
    seed: int = 0


@dataclass(frozen=True)
class ErasureRow:
    """One feature and condition at one dose."""

    feature: int
    token: int
    """Whose log probability is followed."""
    condition: str
    """`erase` at firings, `control` where the feature does not fire."""
    dose: float
    n: int
    median: float
    """Change of the token's log probability, nats."""
    mean: float
    interval: Interval
    """Of the mean, bootstrap over passages."""
    p: float
    """Wilcoxon signed-rank test against no change, Holm-corrected over the rows; 1 where nothing changed."""


@dataclass(frozen=True)
class ErasureSummary:
    """The result's table."""

    rows: tuple[ErasureRow, ...]


@torch.no_grad()
def erasure(
    host: Host,
    sae: SAE,
    site: Site,
    features: int | Sequence[int] | None,
    tokens: Tensor,
    config: ErasureConfig | None = None,
) -> Result[ErasureConfig, ErasureSummary]:
    """Run the test on passages `[B, T]` with a dictionary of rank-1 atoms, and some of its features: by default the one
    that fires most.

    Raises InputError where a feature does not exist, never fires, or fires at every position.
    """
    config = ErasureConfig() if config is None else config
    source = provenance(host, site, tokens, sae)
    run = native_run(host, tokens, site.layer)
    writes = head_writes(run, site.head)
    fired = firings(sae, writes)
    fired[:, 0] = fired[:, -1] = False  # rows start after a token and end before one
    if features is None:
        features = int(fired.flatten(0, 1).sum(0).argmax())
    wanted = (features,) if isinstance(features, int) else tuple(features)
    if not wanted or not all(0 <= f < sae.config.features for f in wanted):
        raise InputError(f"features {wanted} of {sae.config.features} atoms were asked for")
    tables = [_one(host, sae, site, run, writes, fired[..., f], f, config) for f in wanted]
    records = pd.concat(tables, ignore_index=True)
    places = records.groupby(["feature", "condition"])["dose"].count().sum() // len(config.doses)
    summary = ErasureSummary(_summarise(records, config.seed))
    return Result("erasure", source, config, int(places), {}, summary, records)


def _one(
    host: Host,
    sae: SAE,
    site: Site,
    run: NativeRun,
    writes: HeadWrites,
    fired: Tensor,
    feature: int,
    config: ErasureConfig,
) -> pd.DataFrame:
    quiet = ~fired
    quiet[:, 0] = quiet[:, -1] = False
    if not fired.any() or not quiet.any():
        raise InputError(
            f"feature {feature} fires at {int(fired.sum())} of {fired.numel()} positions: nothing to compare"
        )
    generator = torch.Generator().manual_seed(config.seed)
    if config.token is not None:
        token = config.token
    elif config.follow == "closed":
        token = pointed_at(host, site, sae.atoms().w[feature])
    else:
        half = torch.zeros(len(fired), dtype=torch.bool)
        half[torch.randperm(len(fired), generator=generator)[: len(fired) // 2]] = True
        half = half.to(fired.device)[:, None]
        looked, fired, quiet = fired & half, fired & ~half, quiet & ~half
        if not looked.any() or not fired.any():
            raise InputError(f"feature {feature} fires in too few passages to find its token on one half: give more")
        token = loses_most(run, site, writes, config, _draw(looked, config.firings, generator))
    side = writes.side(config.form)
    key = writes.written.key[fired].mean(0), side[fired].mean(0)
    erased = _measure(run, site, writes, config, _draw(fired, config.firings, generator), token, None)
    added = _measure(run, site, writes, config, _draw(quiet, config.firings, generator), token, key)
    return pd.concat([erased, added]).assign(feature=feature, token=token)


def firings(sae: SAE, writes: HeadWrites) -> Tensor:
    """Where each feature of a dictionary of this head fires, `[B, T, N]` bool."""
    written = writes.written
    if sae.config.target == "write-value":
        written = written._replace(update=writes.value, erase_gate=None)
    return sae.encode_written(written).dense(sae.config.features) > 0


def _draw(where: Tensor, count: int, generator: torch.Generator) -> Tensor:
    places = where.nonzero()
    return places[torch.randperm(len(places), generator=generator)[:count]]


def loses_most(run: NativeRun, site: Site, writes: HeadWrites, config: ErasureConfig, places: Tensor) -> int:
    """The token whose log probability falls most, on average, when the write is taken out once."""
    passage, position = places.T
    key, value = writes.written.key[passage, position], writes.side(config.form)[passage, position]
    weight = -torch.ones(len(places), 1, 1)
    edits = Edits([site.head], passage, position, key[:, None], value[:, None], weight)
    total = torch.zeros(1)
    for scored in patched_logits(run, edits, config.timing):
        change = scored.patched[:, 0, 0].log_softmax(-1) - scored.native[:, 0].log_softmax(-1)
        total = total.to(change.device) + change.double().sum(0)
    return int(total.argmin())


def _measure(
    run: NativeRun,
    site: Site,
    writes: HeadWrites,
    config: ErasureConfig,
    places: Tensor,
    token: int,
    added: tuple[Tensor, Tensor] | None,
) -> pd.DataFrame:
    passage, position = places.T
    key, value = writes.written.key[passage, position], writes.side(config.form)[passage, position]
    sign = -1.0
    if added is not None:
        key, value, sign = added[0].expand_as(key), added[1].expand_as(value), 1.0
    weight = sign * torch.tensor(config.doses)[None, :, None].expand(len(places), -1, -1)
    edits = Edits([site.head], passage, position, key[:, None], value[:, None], weight)
    change = np.zeros((len(places), len(config.doses)))
    for scored in patched_logits(run, edits, config.timing):
        native = scored.native[:, 0].log_softmax(-1)[:, token]
        patched = scored.patched[:, :, 0].log_softmax(-1)[..., token]
        change[scored.which.cpu().numpy()] = (patched - native[:, None]).double().cpu().numpy()
    doses = len(config.doses)
    return pd.DataFrame(
        {
            "condition": "erase" if added is None else "control",
            "passage": np.repeat(passage.cpu().numpy(), doses),
            "position": np.repeat(position.cpu().numpy(), doses),
            "dose": np.tile(config.doses, len(places)),
            "change": change.flatten(),
        }
    )


def _summarise(records: pd.DataFrame, seed: int) -> tuple[ErasureRow, ...]:
    groups = [
        (cast(tuple[int, int, str, float], name), part)
        for name, part in records.groupby(["feature", "token", "condition", "dose"])
    ]
    tests = [wilcoxon(part["change"], np.zeros(len(part))).p for _, part in groups]
    corrected = holm([1.0 if np.isnan(p) else p for p in tests])
    return tuple(
        ErasureRow(
            *name, len(part), float(part["change"].median()), float(part["change"].mean()),
            clustered(part["change"], part["passage"], seed), p,
        )
        for (name, part), p in zip(groups, corrected, strict=True)
    )  # fmt: skip
