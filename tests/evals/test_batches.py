"""What fits at once changes how long an evaluation takes, and nothing that it says."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from writesae.causal.budget import PASSAGES, ROWS, passages_at_once, rows_at_once
from writesae.causal.gradients import forward
from writesae.causal.precision import fits_widened, widened
from writesae.errors import InputError
from writesae.evals import population, substitution
from writesae.evals.common.firings import all_firings
from writesae.hosts import Host
from writesae.hosts.fork import native_run
from writesae.sae import SAE, Flat, Linear, SAEConfig, TopK
from writesae.types import Site

SITE = Site(5, 2)
LITTLE = 1e-6
"""GiB: one passage and one edit at a time."""


def dictionary(seed: int = 5) -> SAE:
    return SAE(SAEConfig(32, 32, 61, sparsity=TopK(3), target="write-delta"), torch.Generator().manual_seed(seed))


def same(first: pd.DataFrame, second: pd.DataFrame) -> None:
    """Equal places and atoms; numbers equal up to what float32 logits carry."""
    assert list(first) == list(second)
    assert len(first) == len(second) > 0
    for name in first:
        if name == "floor":  # one draw of rounding, another in another batch
            continue
        if str(name).startswith("kl_"):
            assert (abs(first[name] - second[name]) <= 1e-4 * first[name] + 4e-6 * np.sqrt(first[name])).all(), name
        elif first[name].dtype.kind == "f":
            np.testing.assert_allclose(first[name], second[name], rtol=1e-4, atol=1e-6)
        elif not str(name).startswith("top1_"):
            assert first[name].equals(second[name])


@pytest.mark.parametrize("name", ["substitution", "population"])
def test_effects_are_the_same_whatever_the_batch(
    name: str, host: Host, passages: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    flat = SAE(SAEConfig(32, 32, 17, Linear(), TopK(2), Flat(), "write-delta"), torch.Generator().manual_seed(3))
    options: dict[str, Any] = {"site": SITE, "timings": "after_token", "controls": ("orthogonal", "other_atom", "pca")}

    def measured() -> pd.DataFrame:
        if name == "population":
            return population(host, dictionary(), passages, atoms=7, most=3, fewest=2, **options).records
        options["controls"] = ("orthogonal", "other_atom", "pca", "flat_svd")
        return substitution(host, [dictionary(), flat], passages, firings=29, **options).records

    first = measured()
    monkeypatch.setattr("writesae.causal.budget.BUDGET", LITTLE)
    same(first, measured())


def test_random_matrices_depend_on_neither_passages_nor_controls(host: Host, passages: torch.Tensor) -> None:
    options: dict[str, Any] = {"site": SITE, "timings": "after_token", "firings": 200, "native_writes": "delta"}
    every = substitution(host, dictionary(), passages, **options).records
    again = substitution(host, dictionary(), passages, controls="orthogonal", **options).records
    same(every, again[list(every)])


def test_firings_are_the_same_whatever_the_batch(host: Host, passages: torch.Tensor) -> None:
    whole = all_firings(host, dictionary(), SITE, passages)
    pd.testing.assert_frame_equal(whole, all_firings(host, dictionary(), SITE, passages, memory=LITTLE), rtol=1e-4)


def test_a_larger_budget_takes_more_at_once(host: Host, passages: torch.Tensor) -> None:
    run = native_run(host, passages, SITE.layer)
    rows = [rows_at_once(run, 6, 1, memory) for memory in (LITTLE, 0.02, 0.05, 100.0)]
    assert rows == sorted(rows)
    assert (rows[0], rows[-1]) == (1, ROWS)
    assert rows[1] < rows[2] < ROWS
    assert rows_at_once(run, 12, 4, 0.05) < rows[2]
    groups = [passages_at_once(host, 53, SITE.layer, memory) for memory in (LITTLE, 0.01, 100.0)]
    assert (groups[0], groups[-1]) == (1, PASSAGES)
    assert 1 < groups[1] < PASSAGES
    assert passages_at_once(host, 53, SITE.layer, 0.01, graph=True) < groups[1]
    assert passages_at_once(host, 53, SITE.layer, 0.01, read=53) < groups[1]


def test_what_is_free_refuses_and_decides_nothing_else(
    host: Host, passages: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = native_run(host, passages, SITE.layer)
    sizes = set()
    for free in (2.0**29, 2.0**40):
        monkeypatch.setattr("writesae.memory.free_bytes", lambda _, free=free: free)
        sizes.add((rows_at_once(run, 6, 2, 0.05), passages_at_once(host, 53, 5, 0.05), fits_widened(host)))
    assert len(sizes) == 1
    monkeypatch.setattr("writesae.memory.free_bytes", lambda _: 2.0**10)
    for ask in (
        lambda: rows_at_once(run, 6, 2),
        lambda: passages_at_once(host, 53, 5),
        lambda: widened(host),
        lambda: forward(host, passages, [5]),
    ):
        with pytest.raises(InputError, match=r"need .* GiB are free on cpu"):
            ask()
