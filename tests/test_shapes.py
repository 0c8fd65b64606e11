"""A wrong dimension is caught where it enters, while tests run; otherwise nothing is checked."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from beartype.roar import BeartypeCallHintViolation

import shapes
from writesae.recurrence import Stream, replay
from writesae.recurrence.scan import project
from writesae.sae import Codes
from writesae.sae.batch import States
from writesae.sae.loss import Dead

B, T, H, K, V, N = 2, 11, 3, 5, 7, 13


def stream(**other: torch.Tensor) -> Stream:
    key, value = torch.randn(B, T, H, K), torch.randn(B, T, H, V)
    return Stream(**{"query": key, "key": key, "value": value, "log_decay": -torch.rand(B, T, H, K)} | other)


def test_a_wrong_dimension_is_caught() -> None:
    """Of an argument, a result, a field of a dataclass and of a tuple; one letter is one size within a call."""
    v, w = torch.randn(N, K), torch.randn(N, V)
    assert project(torch.randn(B, K, V), v, w).shape == (B, N)
    assert stream(log_decay=-torch.rand(B, T, H, 1)).scalar_decay
    key, update, decay = torch.randn(B, T, K), torch.randn(B, T, V), torch.rand(B, T, 1)
    for wrong in (
        lambda: project(torch.randn(B, V, K), v, w),
        lambda: project(torch.randn(B, K, V), v, w[:-1]),
        lambda: replay(stream(), torch.randn(B, K, V)),
        lambda: stream(value=torch.randn(B, H, T, V)),
        lambda: stream(log_decay=-torch.rand(B, T, H, V)),
        lambda: States(key, update, decay, torch.randn(B, V, K)),
        lambda: Codes(torch.randn(T, 3), torch.randn(T, 3)),
        lambda: Codes(torch.zeros(T, 3, dtype=torch.int64), torch.randn(T, 4)),
        lambda: Dead(torch.zeros(N), 3, 0.1),
    ):
        with pytest.raises(BeartypeCallHintViolation):
            wrong()


def test_every_test_checks_anew() -> None:
    """The first calls of each function: a training run makes thousands that are alike."""
    v, w = torch.randn(N, K), torch.randn(N, V)
    for _ in range(shapes.MOST):
        project(torch.randn(B, K, V), v, w)
    assert shapes.calls["writesae.recurrence.scan.project"] == shapes.MOST
    with pytest.raises(RuntimeError, match="size"):
        project(torch.randn(B, V, K), v, w)


def test_nothing_is_checked_or_loaded_outside_the_tests() -> None:
    code = (
        "import sys, torch; from writesae.sae import Codes; Codes(torch.zeros(2), torch.zeros(3));"
        "print(sorted({'jaxtyping', 'beartype'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
