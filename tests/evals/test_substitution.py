"""The substitution test against the cache-copy protocol, and its bookkeeping against numbers worked out by hand."""

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from random_hosts import dictionary as random_dictionary
from random_hosts import host_parameter, tiny_host
from slow_protocol import cache_copy_logits
from writesae.causal.divergence import kl_divergence
from writesae.causal.precision import in_float64, widened
from writesae.causal.writes import HeadWrites
from writesae.errors import ConfigError, InputError
from writesae.evals import partition, substitution
from writesae.evals.common.conditions import CELL, CONDITIONS
from writesae.evals.common.controls import Background, Firings, control_component, principal_pair, random_component
from writesae.evals.common.stats import wilson
from writesae.evals.substitution import SubstitutionConfig
from writesae.evals.substitution.summary import Cell, summarise
from writesae.hosts import Host
from writesae.recurrence import delta_values, replay_reference
from writesae.recurrence.written import Written
from writesae.sae import SAE, Flat, Linear, SAEConfig, TopK
from writesae.types import Site

SITE = Site(5, 2)


def dictionary(target: str = "write-delta", d_k: int = 32) -> SAE:
    return SAE(SAEConfig(d_k, 32, 61, sparsity=TopK(3), target=target), torch.Generator().manual_seed(5))  # type: ignore[arg-type]


def rows(table: pd.DataFrame) -> list[SimpleNamespace]:
    """The records one by one."""
    return [SimpleNamespace(**{str(k): v for k, v in record.items()}) for record in table.to_dict("records")]


def rounding(kl: float) -> float:
    """What float32 does to a KL, half the variance of the logit change: noise of spread e adds e sqrt(2 KL)."""
    return 2e-6 * math.sqrt(2 * kl)


def check_rows(
    records: pd.DataFrame, host: Host, site: Site, passages: torch.Tensor, sae: SAE, horizon: int, tolerance: float
) -> int:
    """Every record against copied caches; returns how many KLs were well above the rounding of float32."""
    stream = host.record(passages, [site.layer])[site.layer].heads(site.head)
    states = replay_reference(stream).states[:, :, 0]
    atoms, compared, float32 = sae.atoms(), 0, records.kl_atom.dtype != float or host.dtype == torch.float32
    for row in rows(records):
        value = stream.value if row.native_write == "value" else delta_values(stream)[0]
        write = torch.outer(stream.key[row.passage, row.position, 0], value[row.passage, row.position, 0])
        atom = torch.outer(atoms.v[row.feature], atoms.w[row.feature])
        size = {
            "coefficient": row.coefficient,
            "norm": write.norm() / atom.norm(),
            "projection": (write * atom).sum() / atom.square().sum(),
        }[row.amplitude]
        if row.reading == "increment":  # the slow way: the state with the write and without it
            state = states[row.passage, row.position]
            raised = (sae.preactivations(state) - sae.preactivations(state - write)).detach()
            assert row.coefficient == pytest.approx(float(raised.max()), rel=1e-3)
            assert float(raised[row.feature]) == pytest.approx(float(raised.max()), rel=1e-3)
        edits = [size * atom - write, -write]
        tokens = passages[row.passage]
        native, patched = cache_copy_logits(host, tokens, site, row.position, edits, row.timing, horizon)
        for name, logits in zip(("atom", "delete"), patched, strict=True):
            slow = kl_divergence(native, logits, row.direction)
            noise = rounding(slow.max().item()) if float32 else 1e-14
            assert abs(getattr(row, f"kl_{name}") - slow.mean().item()) <= tolerance * slow.mean().item() + noise, name
            assert getattr(row, f"top1_{name}") == (native[0].argmax() != logits[0].argmax()).item()
            compared += int(slow.mean().item() > 1e-9)
        assert row.write_norm == pytest.approx(write.norm().item(), rel=1e-5)
        assert row.share == pytest.approx((write.norm() / states[row.passage, row.position].norm()).item(), rel=1e-4)
        assert row.cosine == pytest.approx(((write * atom).sum() / write.norm() / atom.norm()).item(), abs=1e-5)
    return compared


@pytest.mark.parametrize("target", ["state", "write-delta"])
def test_the_whole_grid_equals_editing_copied_caches(host: Host, passages: torch.Tensor, target: str) -> None:
    sae = dictionary(target)
    sae.v_enc.data.mul_(20)  # large coefficients, so that KLs stand well above the rounding of float32 logits
    directions, sizes = ("native||patched", "patched||native"), ("coefficient", "norm", "projection")
    readings = ["state", "increment"] if target == "state" else ["write"]
    result = substitution(host, sae, passages, site=SITE, firings=3, seed=3, directions=directions, amplitudes=sizes)
    records = result.records
    assert len(records) == 2 * 2 * len(readings) * 3 * 2 * result.n
    grid = records.groupby(list(CELL), sort=False).size()
    assert list(grid.index)[:3] == [
        ("after_token", "delta", readings[0], "coefficient", "native||patched"),
        ("after_token", "delta", readings[0], "coefficient", "patched||native"),
        ("after_token", "delta", readings[0], "norm", "native||patched"),
    ]
    assert list(records.reading.unique()) == readings
    assert check_rows(records, host, SITE, passages, sae, 1, 1e-4) > 90
    assert [(cell.amplitude, cell.reading) for cell in result.summary.main] == [
        ("coefficient", reading) for _ in range(4) for reading in readings
    ]
    assert len(result.finding) < 600
    assert result.finding.startswith(
        "How often the atom disturbs the model less than deleting the write does (after tok"
    )
    assert f"Over {len(result.summary.cells)} ways of measuring" in result.finding
    assert ("paper-text" in result.finding) == (target == "state")


@pytest.mark.parametrize("target", ["state", "write-delta"])
def test_all_active_features_together(host: Host, passages: torch.Tensor, target: str) -> None:
    """Their sum at its own size, at the write's norm and at its least-squares size, against copied caches."""
    sae, few = dictionary(target), passages[:2]
    sae.v_enc.data.mul_(20)
    records = substitution(
        host, sae, few, site=SITE, firings=5, controls=("all_active",), native_write="value", timings="after_token",
        amplitudes=("coefficient", "norm", "projection"),
    ).records  # fmt: skip
    stream = host.record(few, [5])[5].heads(2)
    states, atoms = replay_reference(stream).states[:, :, 0], sae.atom_matrices().detach()
    own = torch.einsum("btk,btv->btkv", stream.key[:, :, 0], delta_values(stream)[0][:, :, 0])
    codes = sae.encode(states if target == "state" else own).dense(61)
    for row in rows(records):
        at = (row.passage, row.position)
        write = torch.outer(stream.key[*at, 0], stream.value[*at, 0])
        amount = codes[at]
        if row.reading == "increment":
            raised = (sae.preactivations(states[at]) - sae.preactivations(states[at] - write)).detach()
            best = raised.topk(int((amount > 0).sum()))
            amount = torch.zeros(61).scatter(0, best.indices, best.values.clamp_min(0))
        whole = torch.einsum("n,nkv->kv", amount, atoms)
        size = {
            "coefficient": 1.0,
            "norm": float(write.norm() / whole.norm()),
            "projection": float((whole * write).sum() / whole.square().sum()),
        }[row.amplitude]
        native, (patched,) = cache_copy_logits(
            host, few[row.passage], SITE, row.position, [size * whole - write], "after_token"
        )
        slow = kl_divergence(native, patched).item()
        assert abs(row.kl_all_active - slow) <= 1e-3 * slow + rounding(slow)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("timings", "at_token"),
        ("native_writes", "value"),
        ("amplitudes", "norm"),
        ("directions", "patched||native"),
        ("readings", "increment"),
    ],
)
def test_a_part_of_the_grid_has_the_numbers_of_the_whole(
    host: Host, passages: torch.Tensor, name: str, value: str
) -> None:
    few, column = passages[:3], name.removesuffix("s")
    options: dict[str, Any] = {
        "firings": 11,
        "controls": ("pca", "orthogonal"),
        "directions": ("native||patched", "patched||native"),
    }
    sae = dictionary("state")
    whole = substitution(host, sae, few, site=SITE, **options).records
    one = substitution(host, sae, few, site=SITE, **options | {name: value}).records
    expected = whole[whole[column] == value].reset_index(drop=True)
    assert len(one) == len(expected) > 0
    for found in one:
        if str(found).startswith(("kl_", "floor")):
            error = (one[found] - expected[found]).abs()  # other batches round in another way
            assert (error <= 1e-4 * expected[found] + 4e-6 * np.sqrt(expected[found]) + 1e-11).all(), found
        elif not str(found).startswith("top1_"):
            pd.testing.assert_series_equal(one[found], expected[found])


def test_controls_at_both_amplitudes(host: Host, passages: torch.Tensor) -> None:
    """Against single edits: at the norm a control is as large as the write, and turned as its projection is."""
    sae, controls = dictionary(), ("pca", "other_atom")
    records = substitution(
        host, sae, passages[:2], site=SITE, firings=5, controls=controls, timings="after_token", native_write="value"
    ).records
    at = {size: own.reset_index(drop=True) for size, own in records.groupby("amplitude")}
    assert (at["norm"].kl_delete == at["coefficient"].kl_delete).all()
    stream = host.record(passages[:2], [5])[5].heads(2)
    key, value = stream.key[:, :, 0], stream.value[:, :, 0]
    x, y = principal_pair(key.flatten(0, 1), value.flatten(0, 1))
    for i, row in enumerate(rows(at["norm"])):
        k, v = key[row.passage, row.position], value[row.passage, row.position]
        write, size = torch.outer(k, v), float((k @ x) * (v @ y))
        turned = torch.outer(x, y) * write.norm() * (1 if size >= 0 else -1)
        edits = [torch.outer(x, y) * size - write, turned - write]
        native, patched = cache_copy_logits(host, passages[row.passage], SITE, row.position, edits, "after_token")
        slow = [kl_divergence(native, logits).item() for logits in patched]
        assert abs(at["coefficient"].kl_pca[i] - slow[0]) <= 1e-3 * slow[0] + rounding(slow[0])
        assert abs(row.kl_pca - slow[1]) <= 1e-3 * slow[1] + rounding(slow[1])


def test_random_matrices_are_drawn_anew_for_another_seed(host: Host, passages: torch.Tensor) -> None:
    sae, few = dictionary(), passages[:2]
    table, again, other = (
        substitution(host, sae, few, site=SITE, firings=7, seed=s, native_write="delta").records for s in (1, 1, 2)
    )
    at = {size: own.reset_index(drop=True) for size, own in table.groupby("amplitude")}
    assert (at["coefficient"].kl_random != at["norm"].kl_random).all()
    pd.testing.assert_frame_equal(table, again)
    assert not table.position.equals(other.position)


def by_hand(n: int, **columns: object) -> pd.DataFrame:
    """Records of one cell in which every KL is 1."""
    top1 = {f"top1_{name}": [True, False] * (n // 2) for name in CONDITIONS}
    plain = {f"kl_{name}": [1.0] * n for name in CONDITIONS} | top1
    cell = ("at_token", "value", "write", "norm", "native||patched")
    about = dict(zip(CELL, cell, strict=True))
    rest = {"floor": 1e-13, "feature": 0, "cosine": 0.5, "share": 0.1, "passage": range(n)}
    return pd.DataFrame(plain).assign(**about | rest | columns)  # type: ignore[arg-type]


def only(table: pd.DataFrame) -> Cell:
    (cell,) = summarise({"records": table}, SubstitutionConfig()).cells
    return cell


def test_summary_by_hand() -> None:
    table = by_hand(4, passage=[0, 0, 1, 1], cosine=[0.1, 0.2, 0.3, 0.4])
    table["kl_atom"] = [0.5, 0.5, 2.0, 1.0]  # two strict wins, a loss and a tie against delete = 1
    table["kl_random"] = [3.0, 0.7, 3.0, 3.0]
    s = only(table)
    assert (s.timing, s.native_write, s.amplitude, s.direction) == ("at_token", "value", "norm", "native||patched")
    assert (s.wins.n, s.wins.value, s.median_kl["atom"], s.passages) == (4, 0.5, 0.75, 2)
    assert s.strict_chain == {"random": 0.25}
    assert s.wins_against["random"].value == 1
    assert s.cosine == pytest.approx(0.25)
    assert s.wins.interval == (0.0, 1.0)  # passages win 2/2 and 0/2
    assert s.wins.wilson is None


def test_wilson_stands_beside_only_where_every_firing_is_of_its_own_passage() -> None:
    table = by_hand(4, kl_atom=[0.5, 0.5, 2.0, 1.0])
    apart = only(table).wins.wilson
    # Wilson for 2 of 4 at z = 1.959964: centre 1/2, half-width z sqrt(n/4 + z^2/4) / (n + z^2) = 0.34996
    assert apart == pytest.approx((0.15004, 0.84996), abs=1e-4)
    assert only(table.assign(passage=[0, 1, 2, 2])).wins.wilson is None


def test_p_values_take_passages_and_not_firings_for_independent() -> None:
    """Twenty firings each of three passages: whatever their number, three passages cannot be significant."""
    wins = np.repeat([0.1, 0.2, 0.3], 20)
    s = only(by_hand(60, passage=np.repeat([0, 1, 2], 20), kl_atom=1 - wins))
    assert s.wilcoxon == pytest.approx((0.0, 0.25))  # the smallest two-sided p of three pairs is 2 / 2^3
    assert s.wins.interval == wilson(3, 3)


def test_effects_at_the_floor_of_rounding_decide_nothing() -> None:
    """The atom wins everywhere, but only where deletion stands ten times above rounding does that count."""
    few = only(by_hand(8, kl_atom=0.0, kl_delete=[1e-13] * 5 + [1e-3] * 3, floor=[0.0, 0.0] + [2e-13] * 6))
    assert (few.wins.value, few.floor.above, few.floor.wins.n) == (1.0, 3 / 8, 3)
    assert few.floor.verdict == "too small to decide"
    assert few.floor.median == 2e-13
    most = only(by_hand(8, kl_atom=0.0, kl_delete=[1e-13] * 4 + [1e-3] * 4, floor=2e-13))
    assert (most.floor.above, most.floor.verdict) == (0.5, "wins")
    assert only(by_hand(8, kl_atom=2.0)).floor.verdict == "loses"
    assert only(by_hand(8, kl_atom=[0.0, 2.0] * 4)).floor.verdict == "undecided"


def test_a_host_that_does_not_read_what_is_written_decides_nothing(passages: torch.Tensor) -> None:
    """The write is deleted where almost nothing hears it: a win there is one of roundings, and the finding says so."""
    quiet = tiny_host("qwen3_next")
    layer = next(iter(quiet.layers.values()))
    projection = quiet.model.get_parameter(f"{layer.name}.out_proj.weight")
    text = torch.randint(3, 101, (5, 23), generator=torch.Generator().manual_seed(0))
    sae, kept = random_dictionary(quiet, Site(0, 1)), projection.detach().clone()
    try:
        projection.data.mul_(1e-7)
        result = substitution(quiet, sae, text, site=Site(0, 1), firings=41)
    finally:
        projection.data.copy_(kept)
    assert {cell.floor.verdict for cell in result.summary.cells} == {"too small to decide"}
    assert "too small to decide" in result.finding
    assert "ways of measuring" not in result.finding
    loud = substitution(quiet, sae, text, site=Site(0, 1), firings=41)
    assert "too small" not in loud.finding


def test_bad_input(host: Host, passages: torch.Tensor) -> None:
    for settings, complaint in (
        ({"horizon": 0}, "too small"),
        ({"timings": ()}, "empty"),
        ({"directions": ("native||patched",) * 2}, "names a value twice"),
    ):
        with pytest.raises(ConfigError, match=complaint):
            SubstitutionConfig(**settings)
    with pytest.raises(InputError, match="hold only"):
        substitution(host, dictionary(), passages[:1, :9], site=SITE, firings=7)
    with pytest.raises(InputError, match="heads 0 to 5"):
        substitution(host, dictionary(), passages, site=Site(5, 6))
    with pytest.raises(InputError, match="was given native_writes twice"):
        substitution(host, dictionary(), passages, site=SITE, native_write="delta", native_writes="value")


@pytest.mark.rwkv7
def test_states_of_rwkv7_are_encoded_as_they_are() -> None:
    pytest.importorskip("rwkv7_hf")
    other, site = tiny_host("rwkv7_hf"), Site(0, 1)
    text = torch.randint(3, other.vocabulary, (2, 19), generator=torch.Generator().manual_seed(0))
    sae = random_dictionary(other, site, "state")
    records = substitution(other, sae, text, site=site, timings="after_token", firings=17).records
    assert set(records.native_write) == {"value"}  # all the forms that it has
    assert set(records.reading) == {"state", "increment"}
    states = replay_reference(other.record(text, [0])[0]).states[:, :, 1]
    codes = sae.encode(states)
    for row in rows(records[records.reading == "state"]):
        top = codes.value[row.passage, row.position].max(0)
        assert row.coefficient == pytest.approx(float(top.values), rel=1e-4)
        assert row.feature == int(codes.index[row.passage, row.position, top.indices])


@pytest.mark.rwkv7
def test_rwkv7_has_native_writes_only() -> None:
    pytest.importorskip("rwkv7_hf")
    other, site = tiny_host("rwkv7_hf"), Site(0, 1)
    text = torch.randint(3, other.vocabulary, (2, 19), generator=torch.Generator().manual_seed(0))
    with pytest.raises(InputError, match="not one of write-delta"):
        substitution(other, random_dictionary(other, site, "write-delta"), text, site=site, firings=6)
    with pytest.raises(InputError, match="not one of state"):
        partition(other, random_dictionary(other, site, "state"), text, site=site)
    with pytest.raises(InputError, match='no delta write: use native_write="value"'):
        substitution(other, random_dictionary(other, site), text, site=site, firings=6, native_write="delta")


def test_several_steps_equal_copied_caches(host: Host, passages: torch.Tensor) -> None:
    sae, direction = dictionary(), "patched||native"
    result = substitution(host, sae, passages, site=SITE, firings=3, seed=5, horizon=3, directions=direction)
    records = result.records
    assert check_rows(records, host, SITE, passages, sae, 3, 1e-4) > 20
    mean = (records.step1_kl_random + records.step2_kl_random + records.step3_kl_random) / 3
    np.testing.assert_allclose(mean, records.kl_random)


def some_firings(n: int = 5) -> tuple[Firings, HeadWrites, SAE]:
    generator = torch.Generator().manual_seed(0)
    key, update = (torch.randn(3, 7, d, generator=generator) for d in (5, 2))
    writes = HeadWrites(Written(key, update, torch.zeros(3, 7, 1)), update)
    sae = SAE(SAEConfig(5, 2, 11, sparsity=TopK(3), target="write-delta"), generator)
    passage, position = torch.tensor([0, 1, 2, 0, 1][:n]), torch.tensor([3, 1, 6, 2, 5][:n])
    codes = sae.encode_written(writes.written)
    feature, coefficient = codes.index[passage, position, 0], codes.value[passage, position, 0]
    atoms = sae.atoms()
    sides = (key[passage, position], update[passage, position], atoms.v[feature], atoms.w[feature])
    return Firings(passage, position, feature, coefficient, *sides), writes, sae


def test_every_control_is_what_it_is_called() -> None:
    firings, writes, sae = some_firings()
    flat = SAE(SAEConfig(5, 2, 7, Linear(), TopK(2), Flat(), target="write-delta"), torch.Generator().manual_seed(3))

    codes = sae.encode_written(writes.written)
    keys, updates = writes.written.key.flatten(0, 1), writes.written.update.flatten(0, 1)
    common = Background(torch.unique(codes.index[codes.value > 0]), *principal_pair(keys, updates))

    def make(name: str) -> torch.Tensor:
        generator = torch.Generator().manual_seed(1)
        part = control_component(name, firings, writes, sae, flat, common, generator)  # type: ignore[arg-type]
        return torch.einsum("r,rk,rv->rkv", part.size, part.key, part.value)

    contribution = firings.coefficient * firings.atom_norm
    orthogonal = make("orthogonal")
    torch.testing.assert_close(orthogonal.flatten(1).norm(dim=1), contribution)
    assert torch.einsum("rkv,rk->rv", orthogonal, firings.key).abs().max() < 1e-5
    assert torch.einsum("rkv,rv->rk", orthogonal, firings.value).abs().max() < 1e-5

    other, matrices = make("other_atom"), sae.atom_matrices()
    torch.testing.assert_close(other.flatten(1).norm(dim=1), contribution)
    alive = set(codes.index[codes.value > 0].tolist())
    for r, matrix in enumerate(other):
        cosines = torch.nn.functional.cosine_similarity(matrix.flatten()[None], matrices.flatten(1))
        assert cosines.max() > 0.9999
        here = codes.index[firings.passage[r], firings.position[r]].tolist()
        assert int(cosines.argmax()) in alive - {int(firings.feature[r]), *here}

    # uncentred principal direction of the vectorised writes, by NumPy's SVD, cut to rank one
    write = torch.einsum("btk,btv->btkv", writes.written.key, writes.written.update).reshape(21, 10).numpy()
    direction = np.linalg.svd(write)[2][0].reshape(5, 2)
    left, _, right = np.linalg.svd(direction)
    unit = np.outer(left[:, 0], right[0])
    native = torch.einsum("rk,rv->rkv", firings.key, firings.value).numpy()
    expected = np.einsum("rkv,kv->r", native, unit)[:, None, None] * unit
    np.testing.assert_allclose(make("pca"), expected, atol=1e-5)

    top = flat.encode_written(writes.written)
    for r, matrix in enumerate(make("flat_svd")):
        codes_here = top.value[firings.passage[r], firings.position[r]]
        best = int(codes_here.argmax())
        atom = codes_here[best] * flat.dec[top.index[firings.passage[r], firings.position[r], best]].detach()
        u, s, v = torch.linalg.svd(atom)
        torch.testing.assert_close(matrix, s[0] * torch.outer(u[:, 0], v[0]))
    with pytest.raises(InputError, match="needs a flat dictionary"):
        control_component("flat_svd", firings, writes, sae, None, common, torch.Generator())


def test_random_and_principal_directions_are_unit() -> None:
    firings, writes, _ = some_firings()
    random = random_component(firings, torch.Generator().manual_seed(0))
    torch.testing.assert_close(random.key.norm(dim=1), torch.ones(5))
    x, y = principal_pair(writes.written.key.flatten(0, 1), writes.value.flatten(0, 1))
    assert (x.norm().item(), y.norm().item()) == pytest.approx((1, 1))


def test_effect_sizes_by_hand() -> None:
    table = by_hand(8, feature=[0, 0, 0, 0, 1, 1, 1, 1])
    table["kl_delete"] = [1.0, 2, 3, 4, 5, 6, 7, 8]
    table["kl_atom"] = [2.0, 1, 2, 9, 4, 4, 4, 4]  # loses at the first and the fourth
    d = only(table)
    assert d.failures_by_quartile == (0.5, 0.5, 0.0, 0.0)
    assert d.paired_delta == pytest.approx((6 - 2) / 8)
    greater = np.sign(np.subtract.outer(table.kl_delete.to_numpy(), table.kl_atom.to_numpy())).mean()
    assert d.cliffs_delta == pytest.approx(greater)
    # every firing is a passage: |atom - delete| is 1 1 1 5 1 2 3 4: the four ones rank 2.5, the five ranks 8, and
    # these two are the losses
    assert d.wilcoxon.statistic == 2.5 + 8
    assert d.wins_against["random"].value == 0.0
    assert d.top1["delete"] == 0.5
    assert d.by_feature == (0.5, 1.0)


FAMILIES = {"qwen3_5": 1, "zamba2": 1, "rwkv7_hf": 1, "mamba2": 2, "falcon_h1": 2, "fla_rwkv7": 2, "fla_kda": 2}
"""Family -> scored positions."""


@pytest.mark.parametrize("name", [host_parameter(name) for name in FAMILIES])
def test_other_families_equal_copied_caches(name: str) -> None:
    """In float64, where nothing is lost to rounding."""
    wide = widened(tiny_host(name))
    with in_float64():
        check_family(wide, FAMILIES[name])


def check_family(other: Host, horizon: int) -> None:
    layer = other.layers[min(other.layers)]
    site = Site(layer.index, layer.heads - 1)
    text = torch.randint(3, other.vocabulary, (2, 19), generator=torch.Generator().manual_seed(0))
    sae = random_dictionary(other, site, "write-value", 31)
    result = substitution(other, sae, text, site=site, firings=6, horizon=horizon)
    assert check_rows(result.records, other, site, text, sae, horizon, 1e-6) > 10
    forms = {"rwkv7": ["value"], "mamba2": ["value"]}.get(layer.family, ["delta", "value"])
    assert list(result.records.native_write.unique()) == forms
