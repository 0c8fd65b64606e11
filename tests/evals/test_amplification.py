"""`amplification`: the class's features by hand, doses that change nothing, and text that is used once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from torch import Tensor

from random_hosts import dictionary
from writesae.causal.writes import stream_writes
from writesae.errors import InputError
from writesae.evals import amplification
from writesae.evals.amplification import AmplificationConfig
from writesae.evals.amplification.measure import class_features
from writesae.evals.common.patterns import matches, matching
from writesae.evals.common.result import Result
from writesae.hosts import Host
from writesae.types import Site

SITE, ABOVE = Site(5, 0), Site(6, 1)
NAMES = r"^ [A-Z][a-z]+$"
OPTIONS: dict[str, Any] = {
    "pattern": NAMES, "top": 3, "new_tokens": 7, "found_on": 4, "prompt": 9, "timings": "after_token",
}  # fmt: skip


def measured(host: Host, tokens: Tensor, **more: Any) -> Result[Any, Any]:
    """Two heads together."""
    saes = {site: dictionary(host, site, features=31) for site in (SITE, ABOVE)}
    return amplification(host, saes, tokens, **(OPTIONS | more))


def test_it_counts_tokens_and_dose_one_changes_nothing(host: Host, passages: Tensor) -> None:
    assert matches(host, host.tokenizer.encode(" France at war"), NAMES) == [True, False, False]
    result = measured(host, passages, doses=(1.0, 9.0), timings=("after_token", "at_token"))
    summary = result.summary
    assert set(summary.features) == set(summary.other_features) == {"L5.H0", "L6.H1"}
    for site, features in summary.features.items():
        assert len(features) == len(set(features) - set(summary.other_features[site])) == 3
    assert len(summary.cells) == 2 * 2 * 2
    for row in summary.cells:
        assert row.change.n == 3
        if row.dose == 1:
            assert (row.mean, row.change.mean, row.changed, row.cohens_d, row.change.p) == (summary.native, 0, 0, 0, 1)
    assert result.records.passage.unique().tolist() == [4, 5, 6]
    for record in result.records.to_dict("records"):
        assert 0 <= record["count"] <= 7


def test_features_of_the_class_fire_more_inside_it(host: Host, passages: Tensor) -> None:
    """Rates from dense codes; the control's features fire too, and are not of the class."""
    sae, inside = dictionary(host, SITE, features=31), matching(host, passages, NAMES)
    config = AmplificationConfig(top=3)
    found = class_features(host, sae, SITE, passages, inside, config)
    fires = stream_writes(host.record(passages, [5])[5].heads(0)).encode(sae).dense(31) > 0
    rates = fires[inside].float().mean(0), fires[~inside].float().mean(0)
    own = found[found.condition == "class"]
    assert own.feature.tolist() == (rates[0] - rates[1]).topk(3).indices.tolist()
    np.testing.assert_allclose(found.inside, rates[0][found.feature.tolist()], rtol=1e-6)
    np.testing.assert_allclose(found.outside, rates[1][found.feature.tolist()], rtol=1e-6)
    others = found[found.condition == "other_atom"]
    assert len(others) == 3
    assert (others.inside + others.outside > 0).all()
    again = class_features(host, sae, SITE, passages, inside, AmplificationConfig(top=3, seed=1))
    assert again[again.condition == "other_atom"].feature.tolist() != others.feature.tolist()


def test_no_text_is_used_twice(host: Host, passages: Tensor) -> None:
    """What follows a prompt in its passage is not read, and the passages of the features are not continued."""
    first = measured(host, passages, doses=(3.0,))
    other = passages.clone()
    other[4:, 9:] = 7
    assert measured(host, other, doses=(3.0,)).records.equals(first.records)
    other = passages.clone()
    other[:4] = passages[:4].flip(1)
    native = (x.records.query("condition == 'native'") for x in (first, measured(host, other, doses=(3.0,))))
    pd.testing.assert_frame_equal(next(native), next(native))


def test_sampled_continuations_say_how_they_were_sampled(host: Host, passages: Tensor) -> None:
    options = {"doses": (3.0,), "temperature": 1.1, "top_k": 40, "seed": 3}
    result = measured(host, passages, **options)
    assert (result.config.temperature, result.config.top_k, result.config.seed) == (1.1, 40, 3)
    assert "sampled at temperature 1.1" in result.panel.note
    fewer = measured(host, passages[:6], **options)
    both = result.records[result.records.passage < 6].reset_index(drop=True)
    pd.testing.assert_frame_equal(fewer.records, both)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pattern": "zzzzzz"}, "0 of .* tokens match 'zzzzzz'"),
        ({"pattern": "("}, "no regular expression"),
        ({"pattern": "."}, "both kinds are needed"),
        ({"found_on": 7}, "7 passages were given, of which 7"),
        ({"prompt": 54}, "prompts of 54 tokens"),
        ({"top": 30}, "many others are needed"),
        ({"top_k": 3}, "no effect on greedy"),
    ],
)
def test_bad_input_is_one_line(options: dict[str, Any], message: str, host: Host, passages: Tensor) -> None:
    with pytest.raises(InputError, match=message):
        measured(host, passages, **options)
