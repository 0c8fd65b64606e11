"""Portraits of a dictionary's strongest atoms: where they fire, what they look like, what they do to the model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from writesae.causal.budget import passages_at_once
from writesae.causal.divergence import kl_divergence
from writesae.causal.patching import Edits, patched_logits
from writesae.causal.writes import head_writes
from writesae.evals.common.controls import ScoredHead, drawn
from writesae.evals.common.firings import gather, runs, top_codes
from writesae.hosts import Host
from writesae.hosts.fork import NativeRun, native_run
from writesae.sae import SAE
from writesae.types import Site, Timing


@dataclass(frozen=True)
class Context:
    """One firing in its text."""

    before: str
    token: str
    after: str
    coefficient: float


@dataclass(frozen=True)
class TokenScore:
    """A token and how much the atom moves its logit."""

    token: str
    score: float


@dataclass(frozen=True)
class AtomPortrait:
    """One atom. Firings are the tokens at which it has the top coefficient."""

    feature: int
    firings: int
    frequency: float
    """Share of tokens at which it is the top feature."""
    mean_coefficient: float
    cosine: float
    """Median cosine to the native (delta) write at its scored firings."""
    v: list[float]
    w: list[float]
    kl: dict[str, float]
    """Median KL in nats at its scored firings: atom, delete, random (at the atom's coefficient)."""
    win_rate: float
    scored: int
    """Firings behind `cosine`, `kl` and `win_rate`."""
    contexts: list[Context]
    """Strongest firings first, in distinct passages."""
    promotes: list[TokenScore]
    """Mean measured logit change, atom in place of a deleted write, largest first."""
    suppresses: list[TokenScore]


@torch.no_grad()
def portraits(
    host: Host,
    sae: SAE,
    site: Site,
    tokens: Tensor,
    *,
    atoms: int = 24,
    contexts: int = 8,
    firings: int = 16,
    timing: Timing = "after_token",
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> list[AtomPortrait]:
    """The atoms with the largest summed top coefficients over passages `[B, T]`, strongest first."""
    fired = _top_firings(host, sae, site, tokens)
    mass = fired.groupby("feature").coefficient.sum().nlargest(atoms)
    rng = np.random.default_rng(seed)
    inside = fired[fired.feature.isin(mass.index) & (fired.position > 0) & (fired.position < tokens.shape[1] - 2)]
    sample = inside.iloc[rng.permutation(len(inside))].groupby("feature").head(firings).sort_values("passage")
    sample = sample.reset_index(drop=True)
    slot = {int(feature): i for i, feature in enumerate(mass.index)}
    moved = torch.zeros(len(slot), host.vocabulary, dtype=torch.float64)
    counts = torch.bincount(torch.tensor(sample.feature.to_numpy()), minlength=sae.config.features)
    share, parts = 1 / counts.double(), []
    at_once = passages_at_once(host, tokens.shape[1], site.layer)
    for begin in range(0, len(tokens), at_once):
        part = sample[(sample.passage >= begin) & (sample.passage < begin + at_once)]
        if len(part):
            run = native_run(host, tokens[begin : begin + at_once], site.layer)
            parts.append(_effects(run, sae, site, part, begin, timing, seed, moved, slot, share))
        if progress is not None:
            progress(min(begin + at_once, len(tokens)), len(tokens))
    scored = pd.concat(parts)
    return [_portrait(host, sae, tokens, int(f), fired, scored, moved[slot[int(f)]], contexts) for f in mass.index]


def _top_firings(host: Host, sae: SAE, site: Site, tokens: Tensor) -> pd.DataFrame:
    """Every token's top feature where one fires: passage, position, feature, coefficient."""
    tables = []
    for begin, _, writes in runs(host, site, tokens):
        codes = top_codes(sae, writes)
        passage, position = (codes.value > 0).nonzero(as_tuple=True)
        columns = {
            "passage": passage + begin,
            "position": position,
            "feature": codes.feature[passage, position],
            "coefficient": codes.value[passage, position],
        }
        tables.append(pd.DataFrame({name: column.cpu().numpy() for name, column in columns.items()}))
    return pd.concat(tables, ignore_index=True)


def _effects(
    run: NativeRun,
    sae: SAE,
    site: Site,
    part: pd.DataFrame,
    begin: int,
    timing: Timing,
    seed: int,
    moved: Tensor,
    slot: dict[int, int],
    share: Tensor,
) -> pd.DataFrame:
    """Score atom, deletion and a random matrix at some firings; adds `share` of each one's logit change to `moved`.

    `begin` is the number of the run's first passage, `share` `[N]` one over a feature's firings in all passages.
    """
    passage, position, feature = (torch.tensor(part[c].tolist()) for c in ("passage", "position", "feature"))
    writes = head_writes(run, site.head)
    coefficient = torch.tensor(part.coefficient.tolist()).to(writes.value)
    firings = gather(sae, writes, passage - begin, position, feature, coefficient, "delta")
    random = drawn(ScoredHead(site, sae, writes, firings), "random", seed, begin)
    zero, one = torch.zeros_like(coefficient), torch.ones_like(coefficient)
    rows = ((coefficient, zero), (zero, zero), (zero, random.size))
    weight = torch.stack([torch.stack([-one, *row], -1) for row in rows], 1)
    edits = Edits(
        [site.head] * 3, firings.passage, position,
        torch.stack([firings.key, firings.v, random.key], 1),
        torch.stack([firings.value, firings.w, random.value], 1), weight,
    )  # fmt: skip
    kl = torch.empty(len(part), 3, dtype=torch.float64)
    for scored in patched_logits(run, edits, timing):
        for which, native, patched in zip(scored.which.tolist(), scored.native, scored.patched, strict=True):
            kl[which] = kl_divergence(native, patched)[:, 0].cpu()
        change = (scored.patched[:, 0, 0].double() - scored.patched[:, 1, 0].double()).cpu()
        atom = feature[scored.which]
        moved.index_add_(0, torch.tensor([slot[int(f)] for f in atom]), change * share[atom, None])
    measured = torch.cat([firings.cosine[:, None].double().cpu(), kl], 1).numpy()
    return part.assign(**dict(zip(("cosine", "atom", "delete", "random"), measured.T, strict=True)))


def _portrait(
    host: Host,
    sae: SAE,
    tokens: Tensor,
    feature: int,
    fired: pd.DataFrame,
    scored: pd.DataFrame,
    moved: Tensor,
    contexts: int,
) -> AtomPortrait:
    own, measured = fired[fired.feature == feature], scored[scored.feature == feature]
    best = own.sort_values("coefficient", ascending=False).drop_duplicates("passage").head(contexts)
    atoms = sae.atoms()
    up, down = moved.topk(8), (-moved).topk(8)

    def tokens_of(top: torch.return_types.topk, sign: float) -> list[TokenScore]:
        return [TokenScore(host.text([int(i)]), sign * float(s)) for s, i in zip(top.values, top.indices, strict=True)]

    return AtomPortrait(
        feature=feature,
        firings=len(own),
        frequency=len(own) / tokens.numel(),
        mean_coefficient=float(own.coefficient.mean()),
        cosine=float(measured.cosine.median()),
        v=atoms.v[feature].tolist(),
        w=atoms.w[feature].tolist(),
        kl={name: float(measured[name].median()) for name in ("atom", "delete", "random")},
        win_rate=float((measured["atom"] < measured["delete"]).mean()),
        scored=len(measured),
        contexts=[
            _context(host, tokens, int(b), int(t), float(a))
            for b, t, a in zip(best.passage, best.position, best.coefficient, strict=True)
        ],
        promotes=tokens_of(up, 1.0),
        suppresses=tokens_of(down, -1.0),
    )


def _context(host: Host, tokens: Tensor, passage: int, position: int, coefficient: float) -> Context:
    row, text = tokens[passage].tolist(), host.text
    before, after = row[max(0, position - 16) : position], row[position + 1 : position + 9]
    return Context(text(before), text([row[position]]), text(after), coefficient)
