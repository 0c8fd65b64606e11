"""A small real result of every evaluation on tiny-gdn, measured once a test session."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from writesae.evals import EVALUATIONS
from writesae.evals.common.result import Result
from writesae.hosts import Host
from writesae.sae import SAE, Record, SAEConfig, TopK
from writesae.types import Site

SITE, ABOVE = Site(5, 2), Site(6, 1)
SILENT = 5
"""Features of every dictionary that never fire: the first ones."""

SMALL: dict[str, dict[str, Any]] = {
    "substitution": {"firings": 11, "controls": ("orthogonal", "other_atom")},
    "population": {"atoms": 7, "most": 3, "fewest": 2},
    "partition": {"ks": (1, 3)},
    "atoms": {"atoms": 5, "firings": 2},
    "logit_shift": {"atoms": 2, "places": 3, "ranks": (0,), "epsilons": (0.1,), "horizons": (2,)},
    "fidelity": {"scopes": ("layer", "head")},
    "passage_loss": {"kind": "bundle"},
    "quality": {},
    "seeds": {},
    "spectrum": {"writes": 3},
    "selectivity": {"atoms": 3, "firings": 2, "top": 5},
    "readers": {"atoms": 2, "firings": 2},
    "boundary": {"pattern": "e"},
    "sign": {},
    "installs": {"new_tokens": 2, "magnitudes": (3.0,), "timings": ("at_token",)},
    "erasure": {"firings": 3, "doses": (1.0, 2.0)},
    "amplification": {"new_tokens": 4, "doses": (3.0,), "top": 2, "pattern": "e", "found_on": 4, "prompt": 7},
    "proper_nouns": {
        "contexts": 2,
        "prompt": 11,
        "new_tokens": 2,
        "directions": ("closed", "random"),
        "magnitudes": (3.0,),
        "timings": ("at_token",),
    },
    "recall": {
        "least": 0.0,
        "facts": 3,
        "counts": (2, 5),
        "gap": 2,
        "names": 7,
        "things": 11,
        "cells": ("L5.H2+3",),
        "reach": 2,
        "found_on": 1,
        "tried": 2,
        "amplitudes": ("coefficient", "norm"),
        "pairs_on": 3,
        "baselines": ("random",),
    },
}
"""Options that keep each evaluation short."""

SHAPES = {"proper_nouns": (41, 83), "amplification": (6, 31)}
"""Passages and their length, where 5 of 29 are too few."""


def small_sae(site: Site = SITE, seed: int = 5, silent: int = SILENT, host: Host | None = None) -> SAE:
    """A random dictionary of writes whose first features never fire."""
    sae = SAE(SAEConfig(32, 32, 61, sparsity=TopK(3), target="write-delta"), torch.Generator().manual_seed(seed))
    sae.b_enc.data[:silent] = -1e9
    sae.record = Record("tiny-gdn", None if host is None else host.revision, site, seed=seed)
    return sae


def dictionaries(name: str) -> list[SAE]:
    """Those that an evaluation is given."""
    takes = EVALUATIONS[name].takes
    if takes == "seeds":
        return [small_sae(seed=5), small_sae(seed=6)]
    if name == "fidelity":
        return [small_sae(), small_sae(ABOVE, seed=7)]
    return [] if takes in ("none", "sites") else [small_sae()]


def small_result(name: str, host: Host, tokens: Tensor, **more: Any) -> Result[Any, Any]:
    """Measure one evaluation on some passages `[B, T]`."""
    evaluation = EVALUATIONS[name]
    given: tuple[Any, ...] = (tokens,) if evaluation.takes in ("none", "sites") else (dictionaries(name), tokens)
    if evaluation.takes == "sites":
        more = {"site": SITE, **more}
    return evaluation(host, *given, **SMALL[name], **more)
