"""Portraits of atoms: what is said of each against an independent computation, and the format of other tools."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from small_results import SITE, small_sae
from writesae.causal.gradients import output_gradients
from writesae.causal.targets import LogitDifference
from writesae.cli import main
from writesae.errors import InputError
from writesae.evals import atoms
from writesae.evals.atoms.describe import contexts, together
from writesae.evals.atoms.export import write_neuronpedia
from writesae.evals.common.result import Result
from writesae.hosts import Host
from writesae.recurrence import adjoint_products


def test_tokens_by_first_order_are_those_of_the_gradient(host: Host, passages: torch.Tensor) -> None:
    result = atoms(host, small_sae(), passages, atoms=2, firings=3)
    sae = small_sae()
    for feature in result.records.feature:
        own = result.more["tokens"].query(f"feature == {feature} and path == 'first order' and rank == 0")
        up, down = (own[own.sign == sign].iloc[0] for sign in (1, -1))
        v, w = (x[[feature]] for x in sae.atoms())
        effects = []
        for firing in result.more["firings"].query(f"feature == {feature}").to_dict("records"):
            target = LogitDifference(int(up.token), int(down.token), firing["position"] + 1)
            found = output_gradients(host, passages[[firing["passage"]]], target, [SITE.layer])
            stream = found.streams[SITE.layer].heads(SITE.head)
            price = adjoint_products(stream, found.grads[SITE.layer][:, :, [SITE.head]], v, w, at_token=False)
            effects.append(firing["coefficient"] * float(price[0, firing["position"], 0]))
        assert up.score - down.score == pytest.approx(np.mean(effects), rel=2e-2)


def test_contexts_stand_at_the_quantiles_with_the_firing_marked(host: Host, passages: torch.Tensor) -> None:
    result = atoms(host, small_sae(), passages, quantiles=(1.0, 0.5), contexts=2, before=5, after=2)
    feature = int(result.records.feature.iloc[0])
    own = result.more["contexts"].query(f"feature == {feature}")
    assert own.coefficient.iloc[0] == pytest.approx(result.records.largest.iloc[0])
    for row in own.to_dict("records"):
        place = row["place"]
        assert row["tokens"][place] == host.text([int(passages[row["passage"], row["position"]])])
        assert row["values"][place] == pytest.approx(row["coefficient"])
        assert len(row["tokens"]) == len(row["values"]) <= 8
    assert (own.groupby("quantile").size() <= 2).all()


def test_features_that_fire_together_beyond_chance() -> None:
    # features 0 and 1 fire at the same 4 of 40 tokens, feature 2 at every second one
    places = [0, 11, 23, 37]
    rows = [(p // 20, p % 20, f, 1.0) for f in (0, 1) for p in places] + [
        (p // 20, p % 20, 2, 1.0) for p in range(0, 40, 2)
    ]
    fired = pd.DataFrame(rows, columns=["passage", "position", "feature", "coefficient"])
    found = together(fired, [0], torch.zeros(2, 20), 3)
    assert found.companions.iloc[0].tolist() == [1]
    assert found.lift.iloc[0].tolist() == pytest.approx([10.0])  # 4/4 of its firings, against 4/40 of all tokens


def test_contexts_take_distinct_passages_first(host: Host) -> None:
    fired = pd.DataFrame({"passage": [0, 0, 1], "position": [3, 5, 4], "feature": 7, "coefficient": [3.0, 2.0, 1.0]})
    config = atoms.configured({"quantiles": (1.0,), "contexts": 2})
    found = contexts(host, fired, [7], torch.full((2, 11), 42), config)
    assert found.passage.tolist() == [0, 1]


def test_the_format_of_other_tools(results: dict[str, Result[Any, Any]], tmp_path: Path) -> None:
    path = write_neuronpedia(results["atoms"], tmp_path / "np")
    data = json.loads(path.read_text())
    assert (data["model_id"], data["layer"], data["sae_set"]) == ("tiny-gdn", 5, "writesae-h2-write-delta")
    assert len(data["features"]) == results["atoms"].n
    for feature in data["features"]:
        assert sum(feature["freq_hist_data_bar_heights"]) == round(feature["frac_nonzero"] * 5 * 29)
        assert len(feature["pos_str"]) == len(feature["pos_values"]) == 8
        assert feature["pos_values"] == sorted(feature["pos_values"], reverse=True)
        for one in feature["activations"]:
            assert len(one["tokens"]) == len(one["values"])
            assert one["bin_min"] <= max(one["values"]) * 1.000001
    with pytest.raises(InputError, match="not a result of boundary"):
        write_neuronpedia(results["boundary"], tmp_path / "np")
    results["atoms"].save(tmp_path / "portraits")
    main(["convert", str(tmp_path / "portraits"), str(tmp_path / "command"), "--to", "neuronpedia"])
    assert (tmp_path / "command" / path.name).read_bytes() == path.read_bytes()
