"""Atoms beside what they should resemble: the writes at which they fire, and the atoms of another dictionary."""

from __future__ import annotations

from typing import NamedTuple

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from writesae.errors import InputError
from writesae.sae.codes import Codes
from writesae.sae.config import Flat
from writesae.sae.model import SAE


class WriteCosines(NamedTuple):
    """How well each feature's atom points along the writes at its firings."""

    median: Tensor
    """Median cosine over a feature's firings, `[N]`; NaN where it never fired."""
    firings: Tensor
    """Number of firings, `[N]`."""
    top: Tensor
    """Cosine of each token's strongest atom with its write, `[...]`; NaN where nothing fired."""


class Matching(NamedTuple):
    """Pairs of atoms of two dictionaries, best first."""

    first: Tensor
    """Features of the first dictionary, `[n]`."""
    second: Tensor
    """Their partners in the second, `[n]`."""
    cosine: Tensor
    """Cosine of each pair as matrices, `[n]`."""


def _unit_factors(sae: SAE) -> tuple[Tensor, Tensor]:
    """Factors `[N, r, K]`, `[N, r, V]` scaled to atoms of unit norm."""
    gram = (sae.v_dec @ sae.v_dec.mT) * (sae.w_dec @ sae.w_dec.mT)
    norm = gram.sum((1, 2)).clamp_min(0).sqrt().clamp_min(1e-30)
    return sae.v_dec / norm[:, None, None], sae.w_dec


@torch.no_grad()
def write_cosines(sae: SAE, key: Tensor, value: Tensor, codes: Codes) -> WriteCosines:
    """Cosines of atoms with the writes `key value^T` (`[..., K]`, `[..., V]`) at the firings of `codes` `[..., J]`.

    Give the native values for the paper's cosine (register and bundle atoms), the delta values for the delta write.
    Raises InputError for a flat decoder, whose atoms are no rank-1 matrices.
    """
    if isinstance(sae.config.decoder, Flat):
        raise InputError("cosines with writes were asked of a dictionary with flat atoms; they need a factored decoder")
    v, w = _unit_factors(sae)
    k = torch.nn.functional.normalize(key, dim=-1)
    u = torch.nn.functional.normalize(value, dim=-1)
    along = (v[codes.index] @ k[..., None, :, None]).squeeze(-1) * (w[codes.index] @ u[..., None, :, None]).squeeze(-1)
    cosine = along.sum(-1)
    fires = codes.value > 0
    best = codes.value.argmax(-1, keepdim=True)
    top = cosine.gather(-1, best).squeeze(-1).masked_fill(~fires.any(-1), torch.nan)
    feature, values = codes.index[fires], cosine[fires]
    firings = torch.bincount(feature, minlength=sae.config.features)
    median = values.new_full((sae.config.features,), torch.nan)
    order = values.argsort()
    order = order[feature[order].argsort(stable=True)]  # by feature, then by cosine
    ends = firings.cumsum(0)
    alive = firings > 0
    low, high = (ends - firings + (firings - 1) // 2)[alive], (ends - firings + firings // 2)[alive]
    ranked = values[order]
    median[alive] = (ranked[low] + ranked[high]) / 2
    return WriteCosines(median, firings, top)


@torch.no_grad()
def atom_cosines(first: SAE, second: SAE) -> Tensor:
    """Cosines of all atoms as matrices, `[N1, N2]`. Raises InputError where the head sizes differ."""
    sizes = [(s.config.d_k, s.config.d_v) for s in (first, second)]
    if sizes[0] != sizes[1]:
        raise InputError(f"atoms of {sizes[0][0]} x {sizes[0][1]} and {sizes[1][0]} x {sizes[1][1]} cannot be compared")
    if isinstance(first.config.decoder, Flat) or isinstance(second.config.decoder, Flat):
        flat = [torch.nn.functional.normalize(s.atom_matrices().flatten(1), dim=1) for s in (first, second)]
        return flat[0] @ flat[1].T
    (v, w), (other_v, other_w) = _unit_factors(first), _unit_factors(second)
    total = v.new_zeros(v.shape[0], other_v.shape[0])
    for i in range(v.shape[1]):
        for j in range(other_v.shape[1]):
            total.addcmul_(v[:, i] @ other_v[:, j].T, w[:, i] @ other_w[:, j].T)
    return total


def nearest_atoms(first: SAE, second: SAE) -> Matching:
    """For each atom of the first dictionary the most similar one of the second (which may serve several)."""
    cosine, partner = atom_cosines(first, second).max(1)
    order = cosine.argsort(descending=True)
    return Matching(order, partner[order], cosine[order])


def match_atoms(first: SAE, second: SAE) -> Matching:
    """One-to-one pairs with the largest total cosine (Hungarian assignment)."""
    cosines = atom_cosines(first, second)
    rows, columns = (torch.from_numpy(x) for x in linear_sum_assignment(cosines.cpu().numpy(), maximize=True))
    cosine = cosines.cpu()[rows, columns]
    order = cosine.argsort(descending=True)
    return Matching(rows[order], columns[order], cosine[order])
