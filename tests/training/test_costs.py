"""Plans of cost: worked out by hand, and near to what is measured."""

from dataclasses import replace
from typing import NamedTuple

import pytest

from writesae.sae.presets import preset
from writesae.training import TrainConfig
from writesae.training.costs import (
    CORE,
    H100,
    capture_seconds,
    operations,
    store_bytes,
    tokens_seen,
    train_seconds,
)
from writesae.types import Site


class Shape(NamedTuple):
    family: str
    heads: int
    d_k: int
    d_v: int


LARGE = Shape("gated-deltanet", 3, 128, 128)
RUN = TrainConfig(site=Site(1, 0), features=2048)


def test_bytes_of_a_store_are_those_of_its_arrays() -> None:
    assert store_bytes(Shape("deltanet", 3, 5, 7), 11) == 11 * 3 * ((5 + 7) * 2 + 4 + 4)
    assert store_bytes(Shape("gla", 3, 5, 7), 11, width=4) == 11 * 3 * ((5 + 7) * 4 + 5 * 4 + 4)


def test_a_measured_step_costs_what_was_measured_and_others_scale_with_their_arithmetic() -> None:
    assert train_seconds(CORE, RUN, LARGE, 7.2e3) == pytest.approx(1.0)
    writes = replace(RUN, target="write-delta", features=16384)
    once, twice = (train_seconds(CORE, replace(writes, features=n), LARGE, 1000) for n in (16384, 32768))
    assert twice == pytest.approx(2 * once)
    assert operations("write", 3, 5, 7) == 2 * 3 * 12
    rank4 = replace(RUN, encoder=preset("writesae_rank4").encoder, decoder=preset("writesae_rank4").decoder)
    assert train_seconds(CORE, rank4, LARGE, 7.2e3) == pytest.approx(4.0)


def test_whole_matrices_cost_their_own() -> None:
    """The dense flat dictionary ran at 300 tokens a second, the dense encoder at 510 (2,048 features of 128 x 128)."""
    for name, rate in (("flat", 300), ("matrix", 510)):
        whole = replace(RUN, encoder=preset(name).encoder, decoder=preset(name).decoder)
        assert train_seconds(CORE, whole, LARGE, rate) == pytest.approx(1.0, rel=0.5)


@pytest.mark.parametrize(("features", "minutes"), [(2048, 1.9), (16384, 3.5)])
def test_the_papers_recipe_takes_minutes_on_a_card(features: int, minutes: float) -> None:
    assert train_seconds(H100, replace(RUN, features=features), LARGE, 100e6) == pytest.approx(60 * minutes, rel=0.05)


def test_tokens_that_a_run_sees() -> None:
    assert tokens_seen(replace(RUN, steps=7, batch=11), 1000) == 77
    assert tokens_seen(replace(RUN, epochs=3.0, validation=0.1), 1000) == pytest.approx(2700)
    assert tokens_seen(RUN, 1000) == pytest.approx(20 * 800)


def test_capture_is_two_operations_a_parameter() -> None:
    assert capture_seconds(CORE, 4.5e6, 1e6) == pytest.approx(2 * 4.5e6 * 1e6 / 45e9)
