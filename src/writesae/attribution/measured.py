"""The check of every price: make the edit, run the model, and look."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from writesae.attribution.effects import Attribution
from writesae.causal.actions import Edit, EraseWrite
from writesae.causal.passages import edited_logits, whole_passes
from writesae.causal.patching import Edits
from writesae.causal.schedule import Places
from writesae.causal.targets import Target, check_target, positions_kept
from writesae.errors import InputError
from writesae.hosts import Host
from writesae.recurrence import delta_values
from writesae.types import Site, Timing


@torch.no_grad()
def edited_scores(
    host: Host,
    tokens: Tensor,
    target: Target,
    layer: int,
    head: Tensor,
    position: Tensor,
    key: Tensor,
    value: Tensor,
    timing: Timing,
) -> Tensor:
    """The target's value for `R` edited copies of a text `[T]`: copy `r` adds `key[r] value[r]^T` to the state of
    `head[r]` after token `position[r]`. Returns `[R]`, float32.
    """
    heads, rows = sorted(set(head.tolist())), torch.arange(len(head))
    key, value = (x.unsqueeze(1).expand(-1, len(heads), -1) for x in (key, value))
    weight = (head.cpu()[:, None] == torch.tensor(heads)).float().unsqueeze(1)
    edits = Edits(heads, torch.zeros_like(rows), position, key, value, weight)
    places = torch.full((len(rows), len(tokens)), -1).scatter(1, position.cpu()[:, None], rows[:, None])
    return _scores(
        host, tokens, target, len(rows), whole_passes({layer: edits}, timing, places, torch.zeros_like(rows))
    )


@torch.no_grad()
def silenced_scores(host: Host, tokens: Tensor, target: Target, silence: list[list[Site]]) -> Tensor:
    """The target's value with all writes of some heads erased, which leaves nothing to read: one copy a list of sites,
    `[R]`."""
    edits = []
    for site in dict.fromkeys(site for sites in silence for site in sites):
        rows = torch.tensor([[0 if site in sites else -1] for sites in silence])
        edits.append(Edit(site, EraseWrite("value"), Places(rows.expand(-1, len(tokens))), "at_token"))
    return _scores(host, tokens, target, len(silence), edits)


def _scores(host: Host, tokens: Tensor, target: Target, copies: int, edits: list[Edit]) -> Tensor:
    check_target(target, len(tokens), host.vocabulary)
    text = tokens.expand(copies, -1)
    return torch.cat([
        target.score(logits, text[part]) for part, logits in edited_logits(host, text, edits, positions_kept(target))
    ])  # fmt: skip


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


def small_edits(found: Attribution, site: Site, atom: Tensor, position: Tensor, size: float) -> Compared:
    """Prices of (atom, position) pairs, `[R]` each, against central differences of edits of Frobenius norm `size`.

    Both are the target's change a unit of Frobenius norm.
    """
    atoms = found.atoms[site]
    atom, position = atom.to(atoms.v.device), position.to(atoms.v.device)
    norm = atoms.v[atom].norm(dim=-1) * atoms.w[atom].norm(dim=-1)
    key, value = atoms.v[atom] / norm[:, None] * size, atoms.w[atom]
    head = torch.full_like(atom, site.head)
    up, down = (
        edited_scores(
            found.host, found.tokens, found.target, site.layer, head, position, sign * key, value, found.timing
        )
        for sign in (1, -1)
    )
    items = tuple(f"atom {a} at {p}" for a, p in zip(atom.tolist(), position.tolist(), strict=True))
    return Compared(items, _numbers(atoms.price[position, atom] / norm), _numbers((up.double() - down) / (2 * size)))


class _Deletion(NamedTuple):
    """Something rank-1 that was written once: what it is called, and what its effect was said to be."""

    name: str
    layer: int
    head: int
    position: int
    key: Tensor
    """`[K]`."""
    value: Tensor
    """`[V]`; the deletion adds `-key value^T`."""
    predicted: float


def _delete(found: Attribution, deletions: list[_Deletion]) -> Compared:
    """Delete each in its own copy of the text and measure what it contributed."""
    items, predicted, measured = [], [], []
    for layer in sorted({d.layer for d in deletions}):
        here = [d for d in deletions if d.layer == layer]
        head, position = (torch.tensor([getattr(d, n) for d in here[:1] + here]) for n in ("head", "position"))
        # a copy with nothing added stands beside them, so that both carry the same rounding
        key = torch.stack([torch.zeros_like(here[0].key)] + [-d.key for d in here])
        value = torch.stack([here[0].value] + [d.value for d in here])
        scores = edited_scores(found.host, found.tokens, found.target, layer, head, position, key, value, found.timing)
        items += [d.name for d in here]
        predicted += [d.predicted for d in here]
        measured += (scores[0].double() - scores[1:]).tolist()
    return Compared(tuple(items), np.array(predicted), np.array(measured))


def ablate_writes(found: Attribution, count: int = 20, seed: int | None = None) -> Compared:
    """Delete native writes and measure what they contributed: the `count` with the largest effects, or with a `seed`
    as many at random."""
    if seed is None:
        chosen = [(c.site.layer, c.position, c.site.head) for c in found.top_writes(count)]
    else:
        every = [(i, t, h) for i, x in found.writes.items() for t in range(len(x)) for h in range(x.shape[1])]
        picked = np.random.default_rng(seed).choice(len(every), min(count, len(every)), replace=False)
        chosen = [every[i] for i in picked.tolist()]
    streams = found.host.record(found.tokens[None], list(found.writes))
    sides = {i: x.value if found.native_write == "value" else delta_values(x)[0] for i, x in streams.items()}
    return _delete(
        found,
        [
            _Deletion(
                f"{Site(i, h)} write at {t}", i, h, t, streams[i].key[0, t, h], sides[i][0, t, h],
                float(found.writes[i][t, h]),
            )
            for i, t, h in chosen
        ],
    )  # fmt: skip


def ablate_atoms(found: Attribution, count: int = 20, seed: int | None = None) -> Compared:
    """Take atoms out at the positions where they fire, at their own coefficients, and measure what they contributed:
    the `count` with the largest effects, or with a `seed` as many of all firings at random.

    Raises InputError for an attribution without a dictionary.
    """
    if not found.atoms:
        raise InputError("atoms were to be taken out, but no dictionary was priced: give `attribute` dictionaries")
    if seed is None:
        chosen = [(c.site, c.position, c.feature) for c in found.top_atoms(count) if c.feature is not None]
    else:
        every = [(site, t, i) for site, x in found.atoms.items() for t, i in x.coefficient.nonzero().tolist()]
        picked = np.random.default_rng(seed).choice(len(every), min(count, len(every)), replace=False)
        chosen = [every[i] for i in picked.tolist()]
    deletions = []
    for site, t, i in chosen:
        atoms = found.atoms[site]
        deletions.append(
            _Deletion(
                f"{site} atom {i} at {t}", site.layer, site.head, t, atoms.v[i] * atoms.coefficient[t, i], atoms.w[i],
                float(atoms.effect[t, i]),
            )
        )  # fmt: skip
    return _delete(found, deletions)


def ablate_heads(found: Attribution) -> Compared:
    """Silence every head in turn, then every layer, and measure what they contributed."""
    sites = [[Site(layer, head)] for layer, x in found.heads.items() for head in range(len(x))]
    layers = [[Site(layer, head) for head in range(len(x))] for layer, x in found.heads.items()]
    scores = silenced_scores(found.host, found.tokens, found.target, [[], *sites, *layers])
    predicted = [float(found.heads[s.layer][s.head]) for (s,) in sites] + list(found.layers.values())
    items = tuple([str(s) for (s,) in sites] + [f"layer {layer}" for layer in found.heads])
    return Compared(items, np.array(predicted), _numbers(scores[0].double() - scores[1:]))


def _numbers(x: Tensor) -> NDArray[np.float64]:
    numbers: NDArray[np.float64] = x.detach().double().cpu().numpy()
    return numbers
