"""The atoms of two dictionaries beside each other."""

from __future__ import annotations

from typing import NamedTuple

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn.functional import normalize

from writesae.errors import InputError
from writesae.sae.config import Flat
from writesae.sae.model import SAE, atom_norms
from writesae.types import Float, Int


class Matching(NamedTuple):
    """Pairs of atoms of two dictionaries, best first."""

    first: Int[Tensor, " n"]
    """Features of the first dictionary, `[n]`."""
    second: Int[Tensor, " n"]
    """Their partners in the second, `[n]`."""
    cosine: Float[Tensor, " n"]
    """Cosine of each pair as matrices, `[n]`."""


@torch.no_grad()
def atom_cosines(first: SAE, second: SAE) -> Float[Tensor, "N M"]:
    """Cosines of all atoms as matrices, `[N1, N2]`. Raises InputError where the head sizes differ."""
    sizes = [(s.config.d_k, s.config.d_v) for s in (first, second)]
    if sizes[0] != sizes[1]:
        raise InputError(f"atoms of {sizes[0][0]} x {sizes[0][1]} and {sizes[1][0]} x {sizes[1][1]} cannot be compared")
    if isinstance(first.config.decoder, Flat) or isinstance(second.config.decoder, Flat):
        flat = [normalize(s.atom_matrices().flatten(1), dim=1) for s in (first, second)]
        return flat[0] @ flat[1].T
    v, other_v = first.v_dec.unbind(1), second.v_dec.unbind(1)
    w, other_w = first.w_dec.unbind(1), second.w_dec.unbind(1)
    pairs = [(a @ b.T) * (c @ d.T) for a, c in zip(v, w, strict=True) for b, d in zip(other_v, other_w, strict=True)]
    norms = [atom_norms(s.v_dec, s.w_dec).clamp_min(1e-30) for s in (first, second)]
    return sum(pairs[1:], pairs[0]) / torch.outer(norms[0], norms[1])


def matched(cosines: Float[Tensor, "N M"]) -> Matching:
    """One-to-one pairs of rows and columns of `cosines` `[N1, N2]` with the largest total (Hungarian assignment)."""
    cosines = cosines.cpu()
    rows, columns = (torch.from_numpy(x) for x in linear_sum_assignment(cosines.numpy(), maximize=True))
    cosine = cosines[rows, columns]
    order = cosine.argsort(descending=True)
    return Matching(rows[order], columns[order], cosine[order])
