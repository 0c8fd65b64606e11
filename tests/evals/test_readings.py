"""Every evaluation that takes firings can take them by increment: where a write raises a feature most."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor

from small_results import SITE
from writesae.causal.actions import AddMatrix, ChangeFeatures, Edit
from writesae.causal.engine import editing
from writesae.causal.schedule import At
from writesae.evals import EVALUATIONS
from writesae.evals.amplification import AmplificationConfig
from writesae.evals.amplification.measure import class_features
from writesae.evals.common.patterns import matching
from writesae.hosts import Host
from writesae.recurrence import delta_values, replay_reference
from writesae.sae import SAE, SAEConfig, TopK

OPTIONS: dict[str, dict[str, Any]] = {
    "selectivity": {"atoms": 5, "firings": 2, "top": 5},
    "readers": {"atoms": 5, "firings": 2},
    "passage_loss": {"kind": "bundle"},
    "erasure": {"firings": 5, "doses": 1.0},
    "partition": {"ks": 1},
    "atoms": {"atoms": 5, "firings": 2},
}
TABLES = {"passage_loss": "firings", "atoms": "firings"}
"""Where a result has its firings, if not in the records."""


def dictionary() -> SAE:
    return SAE(SAEConfig(32, 32, 61, sparsity=TopK(3), target="state"), torch.Generator().manual_seed(5))


@pytest.fixture(scope="module")
def most_raised(host: Host, passages: Tensor) -> tuple[Tensor, Tensor]:
    """Feature and amount at every token, `[B, T]`, from states with the delta write and without it."""
    stream, sae = host.record(passages, [SITE.layer])[SITE.layer].heads(SITE.head), dictionary()
    states = replay_reference(stream).states[:, :, 0]
    writes = torch.einsum("btk,btv->btkv", stream.key[:, :, 0], delta_values(stream)[0][:, :, 0])
    raised = (sae.preactivations(states) - sae.preactivations(states - writes)).detach().max(-1)
    return raised.indices, raised.values


@pytest.mark.parametrize("name", list(OPTIONS))
def test_firings_are_where_the_write_raises_a_feature_most(
    name: str, host: Host, passages: Tensor, most_raised: tuple[Tensor, Tensor]
) -> None:
    feature, amount = most_raised
    options = OPTIONS[name] | {"reading": "increment"}
    result = EVALUATIONS[name](host, dictionary(), passages, site=SITE, **options)
    if name == "partition":
        own = result.records[(result.records.k == 0) & (result.records.native_write == "delta")]
        assert own.firings.tolist() == feature.flatten().bincount(minlength=61).tolist()
        return
    table: pd.DataFrame = result.tables[TABLES.get(name, "records")]
    if name == "erasure":
        table = table[table.condition == "delete"]
    assert len(table) > 3
    for row in table.to_dict("records"):
        assert row["feature"] == feature[row["passage"], row["position"]]
        if "coefficient" in row:
            assert row["coefficient"] == pytest.approx(float(amount[row["passage"], row["position"]]), rel=1e-3)


@pytest.fixture(scope="module")
def raised(host: Host, passages: Tensor) -> Tensor:
    """By how much each token's write raises the features that it raises most, as many as its state has active, else 0;
    from states with the delta write and without it, `[B, T, 61]`."""
    stream, sae = host.record(passages, [SITE.layer])[SITE.layer].heads(SITE.head), dictionary()
    states = replay_reference(stream).states[:, :, 0]
    writes = torch.einsum("btk,btv->btkv", stream.key[:, :, 0], delta_values(stream)[0][:, :, 0])
    amount = (sae.preactivations(states) - sae.preactivations(states - writes)).detach()
    active = (sae.encode(states.flatten(0, 1)).value > 0).sum(-1).view(amount.shape[:2]).clamp_min(1)
    rank = amount.argsort(-1, descending=True).argsort(-1)
    return amount.clamp_min(0) * (rank < active.unsqueeze(-1))


def test_features_of_a_class_of_tokens_by_increment(host: Host, passages: Tensor, raised: Tensor) -> None:
    result = EVALUATIONS["boundary"](host, dictionary(), passages, site=SITE, pattern="e", reading="increment")
    fires, inside = raised > 0, matching(host, passages, "e")
    assert result.records.firings.tolist() == fires.sum((0, 1)).tolist()
    assert result.records.firings_inside.tolist() == fires[inside].sum(0).tolist()
    assert "features, read by increment, fire more" in result.finding
    by_state = EVALUATIONS["boundary"](host, dictionary(), passages, site=SITE, pattern="e")
    assert by_state.records.firings.tolist() != result.records.firings.tolist()
    config = AmplificationConfig(top=3, reading="increment")
    found = class_features(host, dictionary(), SITE, passages, inside, config)
    own = found[found.condition == "class"]
    rates = fires[inside].float().mean(0) - fires[~inside].float().mean(0)
    assert own.feature.tolist() == rates.topk(3).indices.tolist()


def test_an_increment_is_amplified_and_not_the_state(host: Host, passages: Tensor, raised: Tensor) -> None:
    """Three times what a token's write adds of a feature, by hand, and nothing of one that it does not raise."""
    place = 11
    (feature, *_), amount = raised[0, place].nonzero()[:, 0].tolist(), raised[0, place]
    silent = int((amount == 0).nonzero()[0])
    matrix = 2 * amount[feature] * dictionary().atom_matrices()[feature].detach()
    change = ChangeFeatures(dictionary(), (feature, silent), 3.0, reading="increment")
    logits = []
    for what in (change, AddMatrix(matrix)):
        with editing(host, [Edit(SITE, what, At((place,)), "after_token")]):
            logits.append(host.run(passages[:1], keep=0))
    torch.testing.assert_close(logits[0], logits[1], rtol=1e-4, atol=1e-4)
    assert (logits[0] - host.run(passages[:1], keep=0)).abs().max() > 1e-3
    assert str(change).endswith("read by increment by 3")


def test_amplification_takes_it(host: Host, passages: Tensor) -> None:
    options: dict[str, Any] = {
        "pattern": "e", "top": 3, "new_tokens": 5, "found_on": 4, "prompt": 9, "timings": "after_token", "doses": 9.0,
    }  # fmt: skip
    state, increment = (
        EVALUATIONS["amplification"](host, dictionary(), passages, site=SITE, reading=reading, **options)
        for reading in ("state", "increment")
    )
    assert "With its features, read by increment, amplified" in increment.finding
    assert increment.more["features"].feature.tolist() != state.more["features"].feature.tolist()


def test_a_dictionary_of_writes_is_read_by_its_code_and_not_twice(host: Host, passages: Tensor) -> None:
    sae = SAE(SAEConfig(32, 32, 61, sparsity=TopK(3), target="write-delta"), torch.Generator().manual_seed(5))
    sae.b_enc.data += 0.01  # the code has its offset, an increment has none
    few = passages[:2]
    result = EVALUATIONS["substitution"](host, sae, few, site=SITE, firings=5)
    assert list(result.records.reading.unique()) == ["write"]
    assert "read by" not in result.finding
    state, increment = (
        EVALUATIONS["partition"](host, sae, few, site=SITE, reading=reading).records
        for reading in ("state", "increment")
    )
    pd.testing.assert_frame_equal(state, increment)


def test_every_way_has_its_own_line_and_mark(host: Host, passages: Tensor) -> None:
    result = EVALUATIONS["substitution"](host, dictionary(), passages, site=SITE, firings=5, horizon=2)
    plots = {plot.name: plot.figure for plot in result.panel.plots}
    cells = result.summary.main
    assert len(cells) == 8  # two timings, two forms of the write, two readings
    lines = [trace for trace in plots["steps-wins"].data if trace.mode == "lines+markers"]
    assert len({(line.line.color, line.line.dash) for line in lines}) == len(cells)
    dots = [trace.marker for trace in plots["wins"].data if trace.mode == "markers"]
    assert len({(dot.color, dot.line.color, dot.symbol) for dot in dots}) == len(cells)
