"""The check of every price: make the edit, run the model, and look."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from writesae.attribution.effects import Attribution
from writesae.causal.actions import Edit, Transplant, Write
from writesae.causal.passages import batches, edited_logits
from writesae.causal.schedule import Places
from writesae.causal.targets import Target, check_target, positions_kept
from writesae.causal.writes import stream_writes
from writesae.errors import InputError
from writesae.hosts import Host, KernelCall, KernelResult, Tap
from writesae.types import Site, Timing


@torch.no_grad()
def edited_scores(
    host: Host,
    tokens: Tensor,
    target: Target,
    sites: Sequence[Site],
    position: Tensor,
    key: Tensor,
    value: Tensor,
    timing: Timing,
) -> Tensor:
    """The target's value for `R` edited copies of a text `[T]`: copy `r` adds `key[r] value[r]^T` to the state of
    `sites[r]` after token `position[r]`. Returns `[R]`, float32.
    """
    edits, here = [], torch.arange(len(tokens)) == position.cpu()[:, None]
    for site in dict.fromkeys(sites):
        mine = torch.tensor([own == site for own in sites])[:, None]
        places = Places(torch.where(here & mine, 0, -1))
        edits.append(Edit(site, Transplant(Write(key, value), replaced=None), places, timing))
    check_target(target, len(tokens), host.vocabulary)
    text = tokens.expand(len(sites), -1)
    runs = edited_logits(host, text, edits, positions_kept(target))
    return torch.cat([target.score(logits, text[part]) for part, logits in runs])


@torch.no_grad()
def silenced_scores(host: Host, tokens: Tensor, target: Target, silence: list[list[Site]]) -> Tensor:
    """The target's value with nothing read from some heads, as where all their writes are erased: one copy a list of
    sites, `[R]`."""
    check_target(target, len(tokens), host.vocabulary)
    text, keep, scores = tokens.expand(len(silence), -1), positions_kept(target), []
    for part in batches(host, text, 0, keep):

        def after(call: KernelCall, result: KernelResult, rows: list[list[Site]] = silence[part]) -> KernelResult:
            output = result.output.clone()
            for row, sites in enumerate(rows):
                output[row, :, [site.head for site in sites if site.layer == call.layer]] = 0
            return result._replace(output=output)

        with host.tap(Tap(after=after)):
            scores.append(target.score(host.run(text[part], keep=keep), text[part]))
    return torch.cat(scores)


@dataclass(frozen=True)
class Compared:
    """Predicted and measured changes of the target, in the order of the items."""

    items: tuple[str, ...]
    predicted: NDArray[np.float64]
    measured: NDArray[np.float64]

    @property
    def correlation(self) -> float:
        """Pearson's r."""
        return float(np.corrcoef(self.predicted, self.measured)[0, 1])

    @property
    def r2(self) -> float:
        """Unfitted: `1 - sum (measured - predicted)^2 / sum (measured - mean)^2`."""
        spread = ((self.measured - self.measured.mean()) ** 2).sum()
        return float(1 - ((self.measured - self.predicted) ** 2).sum() / spread)

    @property
    def sign_agreement(self) -> float:
        """Share of items whose sign was predicted."""
        return float((np.sign(self.predicted) == np.sign(self.measured)).mean())

    def __str__(self) -> str:
        return (
            f"{len(self.items)} items: r {self.correlation:.4f}, unfitted R2 {self.r2:.4f}, "
            f"sign agreement {self.sign_agreement:.1%}, predicted sum {self.predicted.sum():.4f}, "
            f"measured sum {self.measured.sum():.4f}"
        )


class _Deletion(NamedTuple):
    """Something rank-1 that was written once: what it is called, and what its effect was said to be."""

    name: str
    site: Site
    position: int
    key: Tensor
    """`[K]`."""
    value: Tensor
    """`[V]`; the deletion adds `-key value^T`."""
    predicted: float


def _delete(found: Attribution, deletions: list[_Deletion]) -> Compared:
    """Delete each in its own copy of the text and measure what it contributed."""
    # a copy with nothing added stands beside them, so that both carry the same rounding
    every = [deletions[0]._replace(key=torch.zeros_like(deletions[0].key)), *deletions]
    position, sites = torch.tensor([d.position for d in every]), [d.site for d in every]
    key, value = torch.stack([-d.key for d in every]), torch.stack([d.value for d in every])
    scores = edited_scores(found.host, found.tokens, found.target, sites, position, key, value, found.timing)
    measured = _numbers(scores[0].double() - scores[1:])
    return Compared(tuple(d.name for d in deletions), np.array([d.predicted for d in deletions]), measured)


T = TypeVar("T")


def _some(largest: Sequence[T], every: Iterable[T], count: int, seed: int | None) -> list[T]:
    """The largest, or with a seed as many at random."""
    if seed is None:
        return list(largest)
    all_of = list(every)
    picked = np.random.default_rng(seed).choice(len(all_of), min(count, len(all_of)), replace=False)
    return [all_of[i] for i in picked.tolist()]


def ablate_writes(found: Attribution, count: int = 20, seed: int | None = None) -> Compared:
    """Delete native writes and measure what they contributed: the `count` with the largest effects, or with a `seed`
    as many at random."""
    largest = [(c.site, c.position) for c in found.top_writes(count)]
    every = ((Site(i, h), t) for i, x in found.writes.items() for t in range(len(x)) for h in range(x.shape[1]))
    streams = found.host.record(found.tokens[None], list(found.writes))
    deletions = []
    for site, t in _some(largest, every, count, seed):
        writes = stream_writes(streams[site.layer].heads(site.head))
        key, value = writes.written.key[0, t], writes.side(found.native_write)[0, t]
        effect = float(found.writes[site.layer][t, site.head])
        deletions.append(_Deletion(f"{site} write at {t}", site, t, key, value, effect))
    return _delete(found, deletions)


def ablate_atoms(found: Attribution, count: int = 20, seed: int | None = None) -> Compared:
    """Take atoms out at the positions where they fire, at their own coefficients, and measure what they contributed:
    the `count` with the largest effects, or with a `seed` as many of all firings at random.

    Raises InputError for an attribution without a dictionary.
    """
    if not found.atoms:
        raise InputError("atoms were to be taken out, but no dictionary was priced: give `attribute` dictionaries")
    largest = [(c.site, c.position, c.feature) for c in found.top_atoms(count) if c.feature is not None]
    every = ((site, t, i) for site, x in found.atoms.items() for t, i in x.coefficient.nonzero().tolist())
    deletions = []
    for site, t, i in _some(largest, every, count, seed):
        atoms = found.atoms[site]
        key, effect = atoms.v[i] * atoms.coefficient[t, i], float(atoms.effect[t, i])
        deletions.append(_Deletion(f"{site} atom {i} at {t}", site, t, key, atoms.w[i], effect))
    return _delete(found, deletions)


def ablate_heads(found: Attribution) -> Compared:
    """Silence every head in turn, and measure what it contributed."""
    prices = {Site(layer, head): float(x) for layer, heads in found.heads.items() for head, x in enumerate(heads)}
    return _silence(found, {str(site): ([site], price) for site, price in prices.items()})


def ablate_layers(found: Attribution) -> Compared:
    """Silence all heads of a layer together, every layer in turn, and measure what they contributed."""
    heads = {layer: [Site(layer, head) for head in range(len(x))] for layer, x in found.heads.items()}
    return _silence(found, {f"layer {layer}": (heads[layer], price) for layer, price in found.layers.items()})


def _silence(found: Attribution, groups: dict[str, tuple[list[Site], float]]) -> Compared:
    """Name -> heads, and what they are said to contribute together."""
    scores = silenced_scores(found.host, found.tokens, found.target, [[], *(sites for sites, _ in groups.values())])
    predicted = np.array([price for _, price in groups.values()])
    return Compared(tuple(groups), predicted, _numbers(scores[0].double() - scores[1:]))


def _numbers(x: Tensor) -> NDArray[np.float64]:
    numbers: NDArray[np.float64] = x.detach().double().cpu().numpy()
    return numbers
