"""Whether a dictionary has an atom for each known write: (name, thing) pairs against atoms.

A pair's write is the mean of the matrices that its head adds wherever that pair is told. An atom recovers it where
their cosine is high; one to one (Hungarian assignment) every atom counts for one pair only. What any dictionary of that
size would reach is told by others, made of the same head's writes: principal directions, k-means centres, and random
rank-1 matrices.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata
from sklearn.cluster import MiniBatchKMeans
from torch import Tensor
from torch.nn.functional import normalize

from writesae.causal.budget import passages_at_once
from writesae.causal.writes import stream_writes
from writesae.corpus.facts import FactPassages
from writesae.evals.common.share import state_norms
from writesae.evals.recall import Baseline
from writesae.evals.recall.changed import Cell, written_form
from writesae.hosts import Host
from writesae.recurrence import Stream
from writesae.sae import SAE
from writesae.sae.compare import matched
from writesae.types import Site

Floats = NDArray[np.float64]
BATCHES = 40
"""Batches of k-means, of 1,024 writes each."""
WIDE = 2048
"""Writes that principal directions are of, where a write has more numbers than there are writes."""


@dataclass(frozen=True)
class Bound:
    """The writes of one head that bind known facts."""

    key: Tensor
    """`[n, K]`."""
    value: Tensor
    """Of the native write in the host's own form (`changed.written_form`), `[n, V]`."""
    name: NDArray[np.int64]
    """Tokens, `[n]`."""
    thing: NDArray[np.int64]
    passage: NDArray[np.int64]


def recorded(host: Host, passages: FactPassages, site: Site) -> Iterator[tuple[int, Stream]]:
    """The stream of one head in some passages at a time, and the number of the first."""
    count, length = passages.tokens.shape
    at_once = passages_at_once(host, length, site.layer)
    for begin in range(0, count, at_once):
        tokens = torch.from_numpy(passages.tokens[begin : begin + at_once])
        yield begin, host.record(tokens, [site.layer])[site.layer].heads(site.head)


def sides(host: Host, stream: Stream) -> tuple[Tensor, Tensor]:
    """Key and value side of every native write of one head, `[B, T, K]` and `[B, T, V]`."""
    writes = stream_writes(stream)
    return writes.written.key, writes.side(written_form(host))


def bound(host: Host, passages: FactPassages, cell: Cell) -> Bound:
    """What a cell's head writes at each statement that stands."""
    keys, values = [], []
    row, fact = passages.stands.nonzero()
    at = torch.from_numpy(passages.begin[row, fact] + cell.offset)
    for begin, stream in recorded(host, passages, cell.site):
        key, value = sides(host, stream)
        mine = (row >= begin) & (row < begin + len(key))
        here = torch.from_numpy(row[mine] - begin), at[torch.from_numpy(mine)]
        keys.append(key[here].cpu())
        values.append(value[here].cpu())
    return Bound(torch.cat(keys), torch.cat(values), passages.name[row, fact], passages.thing[row, fact], row)


def share_of_state(host: Host, passages: FactPassages, cell: Cell) -> float:
    """The norm of a cell's write over that of its head's state after it, the median over all facts."""
    found = []
    for begin, stream in recorded(host, passages, cell.site):
        key, value = sides(host, stream)
        at = torch.from_numpy(passages.begin[begin : begin + len(key)]) + cell.offset
        here = torch.arange(len(key)).repeat_interleave(at.shape[1]), at.flatten()
        found.append(key[here].norm(dim=-1) * value[here].norm(dim=-1) / state_norms(stream, *here).clamp_min(1e-30))
    return float(torch.cat(found).median())


def written(host: Host, passages: FactPassages, site: Site, most: int, seed: int = 0) -> Tensor:
    """Writes of a head at random tokens, as unit matrices `[n, K, V]`."""
    keys, values = zip(*(sides(host, stream) for _, stream in recorded(host, passages, site)), strict=True)
    key, value = (normalize(torch.cat(x).flatten(0, 1).cpu(), dim=-1) for x in (keys, values))
    some = torch.from_numpy(np.random.default_rng(seed).permutation(len(key))[:most])
    return key[some, :, None] * value[some, None, :]


def baseline(kind: Baseline, features: int, writes: Tensor, seed: int = 0) -> Tensor:
    """Unit atoms `[N, K, V]`, as many as `features` (principal directions: as there are), of writes `[n, K, V]`."""
    flat, (k, v) = writes.flatten(1), writes.shape[1:]
    if kind == "pca":
        atoms = _principal(flat)[:features]
    elif kind == "kmeans":
        found = MiniBatchKMeans(
            min(features, len(flat)), init="random", n_init=1, max_no_improvement=None, tol=0.0, batch_size=1024,
            max_iter=max(1, BATCHES * 1024 // len(flat)), random_state=seed,
        )  # fmt: skip
        atoms = torch.from_numpy(found.fit(flat.numpy()).cluster_centers_).float()
    else:
        noise = torch.randn(features, k + v, generator=torch.Generator().manual_seed(seed))
        key, value = torch.split(noise, [k, v], 1)
        atoms = (normalize(key, dim=1)[:, :, None] * normalize(value, dim=1)[:, None, :]).flatten(1)
    return normalize(atoms, dim=1).view(-1, k, v)


def _principal(flat: Tensor) -> Tensor:
    """Directions of `[n, d]`, largest first, from the smaller of the two products; of the first writes where wide."""
    tall = flat.shape[1] <= len(flat)
    some = flat if tall else flat[:WIDE]
    vectors: Tensor = torch.linalg.eigh(some.T @ some if tall else some @ some.T).eigenvectors.T.flip(0)
    return vectors if tall else vectors @ some


def recovery(writes: Bound, dictionary: SAE | Tensor, signed: bool = True) -> pd.DataFrame:
    """How well atoms stand for pairs, and features tell them apart.

    `dictionary` is one of the head, or atoms `[N, K, V]`, which then read as they write; the sign of an atom counts
    unless it is not `signed`. A row for each pair (`of` "pair", with its `name` and `thing`), name (`thing` is -1) and
    thing (`name` is -1): `count` of its writes, `coherence` (the mean cosine of a pair's writes to their mean), `alike`
    (the largest cosine of another pair's mean to it), `best` (that of an atom), `matched` (that of the atom assigned to
    it, one to one; NaN without one), and `auroc` of one feature for it among the other writes: the best on passages
    with even numbers, measured on the others; NaN where either has none of it.
    """
    atoms = (dictionary.atom_matrices() if isinstance(dictionary, SAE) else dictionary).detach().float().cpu()
    pairs, which = np.unique(np.stack([writes.name, writes.thing], 1), axis=0, return_inverse=True)
    matrices = (writes.key[:, :, None] * writes.value[:, None, :]).flatten(1).float()
    total = torch.zeros(len(pairs), matrices.shape[1]).index_add_(0, torch.from_numpy(which), matrices)
    mean = normalize(total, dim=1)
    cosines = mean @ normalize(atoms.flatten(1), dim=1).T
    cosines = cosines if signed else cosines.abs()
    one = matched(cosines)
    taken = np.full(len(pairs), np.nan)
    taken[one.first.numpy()] = one.cosine.numpy()
    counts = np.bincount(which)
    coherence = np.bincount(which, (normalize(matrices, dim=1) * mean[which]).sum(1).numpy()) / counts

    if isinstance(dictionary, SAE):
        read = dictionary.increments(writes.key.to(dictionary.b_enc), writes.value.to(dictionary.b_enc)).cpu()
    else:
        read = matrices @ atoms.flatten(1).T
    scores, odd = (read if signed else read.abs()).numpy(), writes.passage % 2 == 1
    ranks = [rankdata(scores[half], axis=0) for half in (~odd, odd)]
    tables = [
        pd.DataFrame({
            "of": "pair", "name": pairs[:, 0], "thing": pairs[:, 1], "count": counts, "coherence": coherence,
            "alike": (mean @ mean.T).fill_diagonal_(-1).max(1).values.numpy(),
            "best": cosines.max(1).values.numpy(), "matched": taken, "auroc": _told(ranks, which, odd),
        })
    ]  # fmt: skip
    for of in ("name", "thing"):
        known, label, n = np.unique(getattr(writes, of), return_inverse=True, return_counts=True)
        told = pd.DataFrame({"of": of, "name": -1, "thing": -1, "count": n, "auroc": _told(ranks, label, odd)})
        tables.append(told.assign(**{of: known}))
    return pd.concat(tables, ignore_index=True)


def _told(ranks: Sequence[NDArray[np.float64]], label: NDArray[np.int64], odd: NDArray[np.bool_]) -> Floats:
    """AUROC, for each label, of the feature that is best for it on the other half; NaN where a half has no such row."""
    labels = int(label.max()) + 1
    even, held = (_aurocs(ranks[half], label[odd == half], labels) for half in (0, 1))
    told: Floats = held[np.arange(labels), np.nan_to_num(even).argmax(1)]
    told[np.isnan(even).all(1)] = np.nan
    return told


def _aurocs(ranks: NDArray[np.float64], label: NDArray[np.int64], labels: int) -> Floats:
    """Of every feature, whose values have these `ranks` `[n, N]`, for every label against all others, `[labels, N]`."""
    member = (label == np.arange(labels)[:, None]).astype(float)
    inside = member.sum(1, keepdims=True)
    with np.errstate(invalid="ignore"):
        found: Floats = (member @ ranks - inside * (inside + 1) / 2) / (inside * (len(label) - inside))
    return found
