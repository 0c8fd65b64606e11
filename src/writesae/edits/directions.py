"""Which rank-1 matrix `v w^T` to write: an atom, the closed form, the exact first order, or a random one.

Closed form: `w` is what the head's output projection maps onto the target's unembedding, `W_O[h] W_U[token]`, and `v`
lies along the query that will read it. It takes the norms, gates and layers between the head and the logits as
identity. Exact first order: the leading singular pair of the gradient `G_t` of the target's logit with respect to the
state (MATH.md section 6), which is the unit rank-1 matrix that raises the logit most to first order, in this context.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from writesae.causal.closed_form import toward
from writesae.causal.gradients import Gradients, output_gradients
from writesae.causal.identity import check_features
from writesae.causal.schedule import before_prompt
from writesae.causal.targets import RowLogit
from writesae.errors import InputError
from writesae.hosts import Host
from writesae.recurrence import Stream, adjoint_reference
from writesae.sae import SAE
from writesae.types import DirectionKind as DirectionKind
from writesae.types import Site, Timing


class Direction(NamedTuple):
    """Unit key and value sides; leading axes (rows, positions) as the maker says."""

    key: Tensor
    """`[..., K]`."""
    value: Tensor
    """`[..., V]`."""


def unit(x: Tensor) -> Tensor:
    """Unit length along the last axis."""
    length: Tensor = x.norm(dim=-1, keepdim=True)
    return x / length.clamp_min(1e-30)


def atom_direction(sae: SAE, feature: int) -> Direction:
    """An atom of a dictionary with rank-1 atoms, `[K]` and `[V]`. Raises InputError for others."""
    atoms = sae.atoms()
    check_features(sae, (feature,))
    return Direction(unit(atoms.v[feature]), unit(atoms.w[feature]))


def read_key(stream: Stream) -> Tensor:
    """A key side that later queries read: the mean of a head's unit queries over the text, `[B, K]`, unit length.

    `stream` has one head.
    """
    return unit(unit(stream.query[:, :, 0]).mean(1))


def leading_pair(gradient: Tensor) -> Direction:
    """Leading singular pair of matrices `[..., K, V]`, signed so that `v^T G w >= 0`."""
    left, _, right = torch.linalg.svd(gradient, full_matrices=False)
    return Direction(left[..., :, 0], right[..., 0, :])


def state_gradients(found: Gradients, site: Site, timing: Timing) -> Tensor:
    """`G_t` of one head for every token, `[B, T, K, V]`."""
    stream = found.streams[site.layer].heads(site.head)
    grad = found.grads[site.layer][:, :, [site.head]]
    return adjoint_reference(stream, grad, timing == "at_token")[:, :, 0]


@torch.no_grad()
def continue_greedily(host: Host, tokens: Tensor, steps: int) -> Tensor:
    """Tokens `[B, T]` and the model's own `steps` most likely next ones, `[B, T + steps]`, on the host's device."""
    tokens = tokens.to(host.device)
    for _ in range(steps):
        tokens = torch.cat([tokens, host.logits(tokens, keep=1)[:, -1].argmax(-1, keepdim=True)], 1)
    return tokens


def make_many_directions(
    host: Host,
    sites: Sequence[Site],
    tokens: Tensor,
    targets: tuple[int, ...],
    kind: DirectionKind,
    positions: tuple[int, ...],
    timing: Timing = "after_token",
    lookahead: int = 1,
    seed: int = 0,
) -> dict[Site, Direction]:
    """Directions for each row and position of prompts `[B, T]`, `[B, len(positions), K]` and `[.., V]`.

    `targets` has one token a row; `positions` are negative, from the prompt's end. `exact` runs the prompt with
    `lookahead` tokens of its own greedy continuation and takes the gradient of the target's mean logit at the prompt's
    last token and those: with none, an edit at the last token would be read by nobody.
    """
    batch, time = tokens.shape
    count, layers = len(positions), {site: host.check_site(site) for site in sites}
    if any(p >= 0 for p in positions):
        raise InputError(f"positions {positions} are not all counted from the prompt's end")
    if any(p < -time for p in positions):
        raise before_prompt(positions, time)
    if kind == "random":
        generator = torch.Generator().manual_seed(seed)
        made = {}
        for site, layer in layers.items():
            key, value = (torch.randn(batch, count, d, generator=generator) for d in (layer.d_k, layer.d_v))
            made[site] = Direction(unit(key), unit(value))
        return made
    indices = sorted({site.layer for site in sites})
    if kind == "closed":
        streams, made = host.record(tokens, indices), {}
        for site in sites:
            key = read_key(streams[site.layer].heads(site.head))
            value = unit(toward(host, site, torch.tensor(targets)))
            made[site] = Direction(key[:, None].expand(-1, count, -1), value[:, None].expand(-1, count, -1))
        return made
    longer = continue_greedily(host, tokens, lookahead)
    found = output_gradients(host, longer, RowLogit(targets, last=lookahead + 1), indices)
    places = [time + p for p in positions]
    return {site: leading_pair(state_gradients(found, site, timing)[:, places]) for site in sites}
