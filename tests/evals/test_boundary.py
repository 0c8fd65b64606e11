"""Features of a class of tokens against scikit-learn and hand-worked values."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import rankdata, wilcoxon
from sklearn.metrics import roc_auc_score

from small_results import SITE, small_sae
from writesae.causal.writes import head_writes
from writesae.errors import InputError
from writesae.evals import boundary
from writesae.evals.boundary import BoundaryConfig
from writesae.evals.boundary.measure import separation
from writesae.evals.boundary.summary import summarise
from writesae.evals.common.patterns import matching
from writesae.hosts import Host
from writesae.hosts.fork import native_run


def test_against_scikit_learn(host: Host, passages: torch.Tensor) -> None:
    sae = small_sae()
    result = boundary(host, sae, passages, pattern="e")
    codes = sae.encode_written(head_writes(native_run(host, passages, SITE.layer), SITE.head).written)
    dense = codes.dense(61).flatten(0, 1)
    inside = torch.tensor([["e" in host.text([int(t)]) for t in row] for row in passages])
    assert torch.equal(matching(host, passages, "e"), inside)
    for record in result.records[result.records.auroc.notna()].head(5).to_dict("records"):
        expected = roc_auc_score(inside.flatten().numpy(), dense[:, record["feature"]].numpy())
        assert record["auroc"] == pytest.approx(expected)
    for pattern, message in (("(", "no regular expression"), ("", "both kinds are needed")):
        with pytest.raises(InputError, match=message):
            boundary(host, sae, passages, pattern=pattern)
    with pytest.raises(InputError, match="a dictionary of writes has one reading"):
        boundary(host, sae, passages, pattern="e", reading="increment")


def test_p_is_of_passages() -> None:
    random = np.random.default_rng(5)
    codes = random.normal(size=(11, 13, 3)).clip(0).astype(np.float32)
    member = random.random((11, 13)) < 0.3
    member[2] = False  # holds no token of the class, and takes no part
    codes[..., 1] += member * random.random((11, 13))
    codes[..., 2] = 0
    found = separation(codes, member)
    for feature in (0, 1):
        ranks = rankdata(codes[..., feature]).reshape(11, 13)
        gaps = [r[m].mean() - r[~m].mean() for r, m in zip(ranks, member, strict=True) if m.any()]
        assert found.p_raw[feature] == pytest.approx(wilcoxon(gaps).pvalue)
        assert found.auroc[feature] == pytest.approx(roc_auc_score(member.ravel(), codes[..., feature].ravel()))
    assert found.p_raw[1] < 0.01
    assert found.loc[2, ["auroc", "p_raw"]].isna().all()
    assert found.firings[2] == 0


def test_few_tokens_of_the_class_decide_nothing() -> None:
    """A feature that fires at both tokens of the class and nowhere else: one passage says as much as it can."""
    codes, member = np.zeros((5, 29, 1), np.float32), np.zeros((5, 29), bool)
    codes[3, [7, 11]], member[3, [7, 11]] = 1.0, True
    found = separation(codes, member)
    assert (found.auroc[0], found.p_raw[0]) == (1.0, 1.0)


def test_by_hand() -> None:
    table = pd.DataFrame({"feature": [0, 1, 2, 3], "auroc": [0.9, 0.1, 0.6, float("nan")], "inside": 5, "outside": 8})
    table["p"] = [0.001, 0.001, 0.5, float("nan")]
    table["firings"], table["firings_inside"] = [7, 4, 3, 0], [3, 0, 1, 0]
    s = summarise({"records": table}, BoundaryConfig(top=2))
    assert (s.inside, s.outside, s.fired, s.separating) == (5, 8, 3, 1)
    assert [f.feature for f in s.best] == [0, 2]
    assert (s.best[0].inside, s.best[0].outside) == (3 / 5, 4 / 8)


def test_a_character_of_several_tokens_counts_where_it_is_complete(host: Host) -> None:
    tokens = torch.tensor([host.tokenizer.encode("日本。 a b")])
    inside = matching(host, tokens, "。")
    assert inside.sum() == 1
    assert host.text(tokens[0, : int(inside.int().argmax()) + 1].tolist()) == "日本。"
