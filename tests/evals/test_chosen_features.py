"""Chosen features and their firings: which are drawn, what stands there, what intervals resample; the presets."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from slow_protocol import cache_copy_logits
from writesae.causal.divergence import kl_divergence
from writesae.cli.eval import parse
from writesae.errors import ConfigError, InputError
from writesae.evals import boundary, partition, substitution
from writesae.evals.substitution import PRESETS, SubstitutionConfig
from writesae.evals.substitution.features import draw_features
from writesae.evals.substitution.summary import accounts
from writesae.hosts import Host
from writesae.recurrence import delta_values, replay_reference
from writesae.sae import SAE, SAEConfig, TopK
from writesae.types import Site

SITE = Site(5, 2)
FEW: dict[str, Any] = {"site": SITE, "choose": "features", "atoms": 5, "most": 7, "fewest": 2, "seed": 1}


def dictionary(target: str = "state") -> SAE:
    return SAE(SAEConfig(32, 32, 61, sparsity=TopK(3), target=target), torch.Generator().manual_seed(5))  # type: ignore[arg-type]


def test_firings_are_where_the_chosen_features_are_active_or_raised_most(host: Host, passages: Tensor) -> None:
    sae, few = dictionary(), passages[:5]
    result = substitution(host, sae, few, **FEW)
    stream = host.record(few, [5])[5].heads(2)
    states = replay_reference(stream).states[:, :, 0]
    codes = sae.encode(states).dense(61)
    writes = torch.einsum("btk,btv->btkv", stream.key[:, :, 0], delta_values(stream)[0][:, :, 0])
    raised = (sae.preactivations(states) - sae.preactivations(states - writes)).detach()
    for reading, own in result.records.groupby("reading"):
        assert own.feature.nunique() == 5
        sizes = own.groupby(["feature", "timing", "native_write", "amplitude"]).size()
        assert sizes.between(2, 7).all()
        for row in own[(own.native_write == "delta")].to_dict("records"):
            at = (row["passage"], row["position"])
            amount = codes[at] if reading == "state" else raised[at]
            assert row["coefficient"] == pytest.approx(float(amount[row["feature"]]), rel=1e-3)
            if reading == "increment":
                assert row["feature"] == int(amount.argmax())
            assert 0 < row["position"] < few.shape[1] - 2
    assert result.attempted == result.n == sum(
        len(own[["passage", "position", "feature"]].drop_duplicates()) for _, own in result.records.groupby("reading")
    )  # fmt: skip
    table, cells = result.panel.table, result.summary.cells
    assert len({cell.wins.n for cell in cells}) == 2  # of each reading: then every row says how many
    assert table.head[:3] == ("the atom", "firings", "closer than deletion")
    assert [row[1] for row in table.rows] == [str(cell.wins.n) for cell in cells]


def test_intervals_resample_what_was_drawn(host: Host, passages: Tensor) -> None:
    sae, few = dictionary("write-delta"), passages[:5]
    by_feature = substitution(host, sae, few, **FEW).summary.cells[0]
    assert by_feature.features == 5
    assert by_feature.wins.interval == by_feature.by_feature != by_feature.by_passage
    by_token = substitution(host, sae, few, site=SITE, firings=31).summary.cells[0]
    assert by_token.wins.interval == by_token.by_passage != by_token.by_feature


def test_a_finding_says_how_features_were_chosen(host: Host, passages: Tensor) -> None:
    sae, few = dictionary("write-delta"), passages[:5]
    said = substitution(host, sae, few, **FEW)
    assert "of 5 features drawn by their firings, seed 1, at most 7 firings each" in said.finding
    assert "interval by feature" in said.finding
    assert "context" in said.records
    own = said.records.feature.unique().tolist()[:2]
    named = substitution(host, sae, few, **FEW | {"features": tuple(own), "timings": "at_token"})
    assert "of 2 named features" in named.finding
    assert set(named.records.feature) == set(own)


def test_registers_are_those_of_partition(host: Host, passages: Tensor) -> None:
    sae = dictionary("write-delta")
    options = FEW | {"among": "register", "native_writes": "value", "timings": "at_token", "amplitudes": "norm"}
    chosen = substitution(host, sae, passages, **options).records
    classed = partition(host, sae, passages, site=SITE, native_writes="value")
    cosine = classed.records[classed.records.k == 0].set_index("feature").cosine
    one = classed.summary.partitions[0]
    assert (cosine[chosen.feature.unique()] >= one.classes.cut).all()


def test_features_are_drawn_by_their_firings_evenly_or_the_most_frequent() -> None:
    counts = pd.Series({7: 1000, 3: 10, 5: 10, 2: 10, 11: 400})

    def drawn(how: str, seed: int = 0, atoms: int = 2) -> list[int]:
        return draw_features(counts, SubstitutionConfig(drawn=how, atoms=atoms, seed=seed))  # type: ignore[arg-type]

    assert drawn("most") == [7, 11]
    share = {how: np.mean([7 in drawn(how, seed) for seed in range(200)]) for how in ("by_firings", "evenly")}
    assert share["by_firings"] > 0.9
    assert 0.3 < share["evenly"] < 0.5  # 2 of 5
    assert drawn("evenly", 3) == drawn("evenly", 3)
    assert drawn("by_firings", atoms=9) == [2, 3, 5, 7, 11]
    assert draw_features(counts[:0], SubstitutionConfig()) == []


def test_what_cannot_be_chosen_is_refused(host: Host, passages: Tensor) -> None:
    with pytest.raises(ConfigError, match="--choose features"):
        SubstitutionConfig(features=(3,))
    with pytest.raises(ConfigError, match="nothing fits"):
        SubstitutionConfig(most=3)
    for options, complaint in (
        ({"features": (61,)}, "the dictionary has 0 to 60"),
        ({"features": (3,), "most": 10**6, "fewest": 10**6}, "fires .* times where it can be scored, fewer than"),
        ({"most": 10**6, "fewest": 10**6}, "no feature of L5.H2"),
    ):
        with pytest.raises(InputError, match=complaint):
            substitution(host, dictionary(), passages[:2], **FEW | options)
    two = {Site(5, 2): dictionary(), Site(6, 1): dictionary()}
    with pytest.raises(InputError, match="those of one dictionary"):
        substitution(host, two, passages[:2], choose="features")


def test_sized_random_matrices_are_the_random_one_of_that_amplitude(host: Host, passages: Tensor) -> None:
    records = substitution(
        host, dictionary(), passages[:2], site=SITE, firings=5, controls=("random_coefficient", "random_norm"),
        timings="after_token",
    ).records  # fmt: skip
    at = {size: own.reset_index(drop=True) for size, own in records.groupby("amplitude", sort=False)}
    for size, own in at.items():
        for other in ("coefficient", "norm"):
            assert (own[f"kl_random_{other}"] == at[other].kl_random).all(), (size, other)
    assert (at["norm"].kl_random_norm != at["norm"].kl_random_coefficient).all()


def test_a_silent_atom_against_copied_caches(host: Host, passages: Tensor) -> None:
    """Its KL is that of one of the atoms that do not fire at the token, at the write's norm."""
    sae, few = dictionary(), passages[:2]
    records = substitution(
        host, sae, few, site=SITE, firings=3, preset="paper-script", choose="tokens", among="all"
    ).records
    stream = host.record(few, [5])[5].heads(2)
    codes, atoms = sae.encode(replay_reference(stream).states[:, :, 0]), sae.atom_matrices().detach()
    alive = set(codes.index[codes.value > 0].tolist())
    assert len(records) == 3
    for row in records.to_dict("records"):
        at = (row["passage"], row["position"])
        write = torch.outer(stream.key[*at, 0], stream.value[*at, 0])
        silent = sorted(alive - set(codes.index[at].tolist()))
        edits = [atoms[f] * (write.norm() / atoms[f].norm()) - write for f in silent]
        native, patched = cache_copy_logits(host, few[at[0]], SITE, at[1], edits, "after_token")
        slow = torch.stack([kl_divergence(native, logits).mean() for logits in patched])
        assert (slow - row["kl_other_atom"]).abs().min() <= 1e-3 * row["kl_other_atom"] + 1e-10


def test_presets_set_fields_and_mark_their_cells(host: Host, passages: Tensor) -> None:
    script = parse(["substitution", "--preset", "paper-script", "--out", "x", "--seed", "3"]).config
    assert script == substitution.configured({"seed": 3}, "paper-script")
    assert script != PRESETS["paper-script"] != SubstitutionConfig()
    with pytest.raises(InputError, match="has no preset 'paper': it has paper-text"):
        parse(["substitution", "--preset=paper", "--out", "x"])
    with pytest.raises(InputError, match="more than once"):
        parse(["substitution", "--preset=grid", "--preset", "grid", "--out", "x"])
    with pytest.raises(InputError, match="has no preset 'grid': it has none"):
        parse(["boundary", "--preset=grid", "--out", "x"])
    with pytest.raises(InputError, match="a config and preset beside it"):
        boundary(host, dictionary(), passages, config=boundary.config(), preset="grid")
    result = substitution(host, dictionary(), passages[:2], site=SITE, firings=5, preset="grid")
    cells = result.summary.cells
    assert len(cells) == 2 * 2 * 2 * 2 * 2
    found = {name: cell for cell in cells for name in accounts(cell)}
    assert list(found) == ["paper-text", "paper-script", "paper-appendix"]
    assert {cell.reading for cell in found.values()} == {"state"}
    assert {cell.native_write for cell in found.values()} == {"value"}
    plot = next(plot for plot in result.panel.plots if plot.name == "grid").figure
    texts = [text for trace in plot.data if trace.type == "scatter" for text in trace.text]
    assert len(texts) == 2 * 8 * 8  # every cell against deletion and three random kinds
    for name in found:
        assert sum(text.endswith(f"<br>{name}") for text in texts) == 2
    assert len(plot.layout.shapes) == 6
    head = result.panel.table.head
    row = result.panel.table.rows[cells.index(found["paper-text"])]
    assert row[head.index("as published")] == "paper-text"
    assert "paper-text" in str(result)
