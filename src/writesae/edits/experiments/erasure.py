"""What does taking out a write do to the token it stands for? Dose-response at firings, and a control elsewhere.

Paper section 4, Tables 18 and 19. At each firing of a feature `dose` times the native write is taken out, and the
change of the log probability of the feature's token at the next step is measured. The control adds the mean firing
write at positions where the feature does not fire.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

import numpy as np
import pandas as pd
import torch
from scipy.stats import wilcoxon
from statsmodels.stats.multitest import multipletests
from torch import Tensor

from writesae.edits.seen import NativeWrite
from writesae.errors import InputError
from writesae.evals.patching import Edits, patched_logits
from writesae.evals.stats import Interval, clustered
from writesae.evals.writes import HeadWrites, head_writes
from writesae.hosts import Host
from writesae.hosts.fork import NativeRun, native_run
from writesae.hosts.output import head_columns, unembedding
from writesae.sae import SAE
from writesae.types import Protocol, Site


@dataclass(frozen=True)
class ErasureConfig:
    """The protocol of an erasure test."""

    doses: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0)
    """How many times the write is taken out, or added in the control."""
    firings: int = 150
    """At most so many firings, and as many other positions, drawn at random."""
    form: NativeWrite = "delta"
    timing: Protocol = "after_token"
    token: int | None = None
    """The token whose log probability is followed; by default the one the atom points at through the head."""
    seed: int = 0


@dataclass(frozen=True)
class ErasureRow:
    """One condition at one dose."""

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
class Erasure:
    """The result, with one record a place and dose."""

    site: Site
    host: str
    revision: str
    feature: int
    token: int
    config: ErasureConfig
    rows: tuple[ErasureRow, ...]
    records: pd.DataFrame = field(repr=False)


@torch.no_grad()
def erasure(
    host: Host, sae: SAE, site: Site, feature: int, tokens: Tensor, config: ErasureConfig | None = None
) -> Erasure:
    """Run the test on passages `[B, T]` with a dictionary of rank-1 atoms.

    Raises InputError where the feature does not exist, never fires, or fires at every position.
    """
    config = ErasureConfig() if config is None else config
    layer = host.check_site(site)
    if (sae.config.d_k, sae.config.d_v) != (layer.d_k, layer.d_v) or not 0 <= feature < sae.config.features:
        raise InputError(
            f"feature {feature} of {sae.config.features} atoms of {sae.config.d_k} x {sae.config.d_v} was asked for "
            f"{site}, which writes {layer.d_k} x {layer.d_v}"
        )
    run = native_run(host, tokens, site.layer)
    writes = head_writes(run, site.head)
    written = writes.written
    fired = firings(sae, writes)[..., feature]
    fired[:, 0] = fired[:, -1] = False  # rows start after a token and end before one
    quiet = ~fired
    quiet[:, 0] = quiet[:, -1] = False
    token = _pointed_at(host, sae, site, feature) if config.token is None else config.token
    generator = torch.Generator().manual_seed(config.seed)
    side = writes.side(config.form)
    key = written.key[fired].mean(0), side[fired].mean(0)
    if not fired.any() or not quiet.any():
        raise InputError(
            f"feature {feature} fires at {int(fired.sum())} of {fired.numel()} positions: nothing to compare"
        )
    tables = [
        _measure(run, site, writes, config, _draw(fired, config.firings, generator), token, None),
        _measure(run, site, writes, config, _draw(quiet, config.firings, generator), token, key),
    ]
    records = pd.concat(tables, ignore_index=True)
    return Erasure(site, host.name, host.revision, feature, token, config, _summarise(records, config.seed), records)


def firings(sae: SAE, writes: HeadWrites) -> Tensor:
    """Where each feature of a dictionary of this head fires, `[B, T, N]` bool."""
    written = writes.written
    if sae.config.target == "write-value":
        written = written._replace(update=writes.value, erase_gate=None)
    return sae.encode_written(written).dense(sae.config.features) > 0


def _pointed_at(host: Host, sae: SAE, site: Site, feature: int) -> int:
    w = sae.atoms().w[feature].float()
    columns = head_columns(host, site.layer)[site.head].float()
    return int((unembedding(host).float() @ (w.to(columns) @ columns)).argmax())


def _draw(where: Tensor, count: int, generator: torch.Generator) -> Tensor:
    places = where.nonzero()
    return places[torch.randperm(len(places), generator=generator)[:count]]


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
    groups = [(cast(tuple[str, float], name), part) for name, part in records.groupby(["condition", "dose"])]
    changes = [part["change"].to_numpy() for _, part in groups]
    raw = [float(wilcoxon(x).pvalue) if np.any(x != 0) else 1.0 for x in changes]
    corrected = multipletests(raw, method="holm")[1]
    return tuple(
        ErasureRow(
            name[0], float(name[1]), len(x), float(np.median(x)), float(x.mean()),
            clustered(x, part["passage"].to_numpy(), seed), float(p),
        )
        for (name, part), x, p in zip(groups, changes, corrected, strict=True)
    )  # fmt: skip
