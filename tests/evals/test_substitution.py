"""The substitution test against the cache-copy protocol, and its bookkeeping against numbers worked out by hand."""

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

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
from writesae.errors import ConfigError, InputError, OutputError
from writesae.evals.common.controls import Background, Firings, control_component, principal_pair, random_component
from writesae.evals.old.provenance import provenance
from writesae.evals.old.substitution import (
    CONDITIONS,
    SubstitutionConfig,
    detail,
    substitution,
    substitution_at,
    summarise,
)
from writesae.hosts import Host
from writesae.recurrence import delta_values, replay_reference
from writesae.recurrence.written import Written
from writesae.sae import SAE, Flat, Linear, SAEConfig, TopK
from writesae.types import NativeWrite, Site

SITE = Site(5, 2)


def dictionary(target: str = "write-delta", d_k: int = 32) -> SAE:
    return SAE(SAEConfig(d_k, 32, 61, sparsity=TopK(3), target=target), torch.Generator().manual_seed(5))  # type: ignore[arg-type]


def rows(table: pd.DataFrame) -> list[SimpleNamespace]:
    """The records one by one."""
    return [SimpleNamespace(**{str(k): v for k, v in record.items()}) for record in table.to_dict("records")]


def rounding(kl: float) -> float:
    """What float32 does to a KL, half the variance of the logit change: noise of spread e adds e sqrt(2 KL)."""
    return 2e-6 * math.sqrt(2 * kl)


@pytest.mark.parametrize("native_write", ["delta", "value"])
@pytest.mark.parametrize("target", ["state", "write-delta"])
def test_equals_editing_a_copied_cache(host: Host, passages: torch.Tensor, native_write: str, target: str) -> None:
    config = SubstitutionConfig(firings=3, seed=3, native_write=native_write)  # type: ignore[arg-type]
    sae = dictionary(target)
    sae.v_enc.data.mul_(20)  # large coefficients, so that KLs stand well above the rounding of float32 logits
    records = substitution(host, sae, SITE, passages, config).records
    stream = host.record(passages, [SITE.layer])[SITE.layer].heads(SITE.head)
    written = stream.value if native_write == "value" else delta_values(stream)[0]
    atoms = sae.atoms()
    for row in rows(records):
        write = torch.outer(stream.key[row.passage, row.position, 0], written[row.passage, row.position, 0])
        atom = torch.outer(atoms.v[row.feature], atoms.w[row.feature])
        edits = [row.coefficient * atom - write, atom * write.norm() / atom.norm() - write, -write]
        tokens, timing = passages[row.passage], row.protocol
        native, patched = cache_copy_logits(host, tokens, SITE, row.position, edits, timing)
        for name, logits in zip(("atom", "atom_norm", "delete"), patched, strict=True):
            slow = kl_divergence(native[0], logits[0]).item()
            fast = getattr(row, f"kl_{name}")
            assert abs(fast - slow) <= 1e-4 * slow + rounding(slow), (name, timing)
        assert row.write_norm == pytest.approx(write.norm().item(), rel=1e-5)
        assert row.cosine == pytest.approx(((write * atom).sum() / write.norm() / atom.norm()).item(), abs=1e-5)


def test_random_controls_have_the_norms_they_claim(host: Host, passages: torch.Tensor) -> None:
    sae = dictionary()
    few, config = passages[:2], SubstitutionConfig(firings=7, seed=1)
    table = substitution(host, sae, SITE, few, config).records
    assert (table.kl_random != table.kl_random_norm).all()
    again = substitution(host, sae, SITE, few, config).records
    pd.testing.assert_frame_equal(table, again)
    other = substitution(host, sae, SITE, few, replace(config, seed=2)).records
    assert not table.position.equals(other.position)


def test_summary_by_hand() -> None:
    columns = {f"kl_{name}": [1.0, 1.0, 1.0, 1.0] for name in CONDITIONS}
    table = pd.DataFrame(columns | {"passage": [0, 0, 1, 1], "cosine": [0.1, 0.2, 0.3, 0.4]})
    table["kl_atom"] = [0.5, 0.5, 2.0, 1.0]  # two strict wins, a loss and a tie against delete = 1
    table["kl_random"] = [3.0, 0.7, 3.0, 3.0]
    table["kl_atom_norm"] = [2.0, 2.0, 2.0, 0.0]
    s = summarise(table, {"no feature fires": 3}, seed=0)
    assert (s.n, s.attempted, s.win_rate, s.win_rate_norm, s.strict_chain) == (4, 7, 0.5, 0.25, 0.25)
    assert s.median_kl["atom"] == 0.75
    assert s.median_cosine == pytest.approx(0.25)
    # Wilson for 2 of 4 at z = 1.959964: centre 1/2, half-width z sqrt(n/4 + z^2/4) / (n + z^2) = 0.34996
    assert s.interval.low == pytest.approx(0.15004, abs=1e-4)
    assert s.interval.high == pytest.approx(0.84996, abs=1e-4)
    assert (s.interval_clustered.low, s.interval_clustered.high) == (0.0, 1.0)  # passages win 2/2 and 0/2


def test_bad_input(host: Host, passages: torch.Tensor) -> None:
    for settings, complaint in (
        ({"horizon": 0}, "too small"),
        ({"memory": 0.0}, "above 0"),
        ({"timings": ()}, "empty"),
    ):
        with pytest.raises(ConfigError, match=complaint):
            SubstitutionConfig(**settings)
    with pytest.raises(InputError, match="31 x 32"):
        substitution(host, dictionary(d_k=31), SITE, passages)
    with pytest.raises(InputError, match="hold only"):
        substitution(host, dictionary(), SITE, passages[:1, :9], SubstitutionConfig(firings=7))
    silent = dictionary()
    silent.b_enc.data.fill_(-1e9)
    with pytest.raises(InputError, match="no feature of the dictionary fires"):
        substitution(host, silent, SITE, passages, SubstitutionConfig(firings=7))
    with pytest.raises(InputError, match="heads 0 to 5"):
        substitution(host, dictionary(), Site(5, 6), passages)


@pytest.mark.rwkv7
def test_states_of_rwkv7_are_encoded_as_they_are() -> None:
    pytest.importorskip("rwkv7_hf")
    other, site = tiny_host("rwkv7_hf"), Site(0, 1)
    text = torch.randint(3, other.vocabulary, (2, 19), generator=torch.Generator().manual_seed(0))
    sae = random_dictionary(other, site, "state")
    protocol = SubstitutionConfig(("after_token",), "value", firings=17)
    records = substitution(other, sae, site, text, protocol).records
    states = replay_reference(other.record(text, [0])[0]).states[:, :, 1]
    codes = sae.encode(states)
    for row in rows(records):
        top = codes.value[row.passage, row.position].max(0)
        assert row.coefficient == pytest.approx(float(top.values), rel=1e-4)
        assert row.feature == int(codes.index[row.passage, row.position, top.indices])


@pytest.mark.rwkv7
def test_rwkv7_has_native_writes_only() -> None:
    pytest.importorskip("rwkv7_hf")
    other, site = tiny_host("rwkv7_hf"), Site(0, 1)
    text = torch.randint(3, other.vocabulary, (2, 19), generator=torch.Generator().manual_seed(0))
    with pytest.raises(InputError, match="not one of write-delta"):
        substitution(other, random_dictionary(other, site, "write-delta"), site, text, SubstitutionConfig(firings=6))
    with pytest.raises(InputError, match="takes a dictionary of its native writes"):
        provenance(other, site, text, random_dictionary(other, site, "state"))
    with pytest.raises(InputError, match="no delta write"):
        substitution(other, random_dictionary(other, site), site, text, SubstitutionConfig(firings=6))


def test_several_steps_and_the_other_direction_equal_copied_caches(host: Host, passages: torch.Tensor) -> None:
    config = SubstitutionConfig(firings=3, seed=5, horizon=3, direction="patched||native")
    sae = dictionary()
    records = substitution(host, sae, SITE, passages, config).records
    stream = host.record(passages, [SITE.layer])[SITE.layer].heads(SITE.head)
    written = delta_values(stream)[0]
    for row in rows(records):
        write = torch.outer(stream.key[row.passage, row.position, 0], written[row.passage, row.position, 0])
        native, patched = cache_copy_logits(
            host, passages[row.passage], SITE, row.position, [-write], row.protocol, horizon=3
        )
        slow = kl_divergence(native, patched[0], "patched||native")
        assert abs(row.kl_delete - slow.mean().item()) <= 1e-4 * slow.mean().item() + rounding(slow.max().item())
        assert row.top1_delete == (native[0].argmax() != patched[0][0].argmax()).item()


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
        assert int(cosines.argmax()) in alive - {int(firings.feature[r])}

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


def test_detail_by_hand() -> None:
    table = pd.DataFrame(
        {f"kl_{name}": [1.0] * 8 for name in CONDITIONS} | {f"top1_{n}": [True, False] * 4 for n in CONDITIONS}
    )
    table["feature"] = [0, 0, 0, 0, 1, 1, 1, 1]
    table["kl_delete"] = [1.0, 2, 3, 4, 5, 6, 7, 8]
    table["kl_atom"] = [2.0, 1, 2, 9, 4, 4, 4, 4]  # loses at the first and the fourth
    d = detail(table, 0)
    assert d.failures_by_quartile == (0.5, 0.5, 0.0, 0.0)
    assert d.paired_delta == pytest.approx((6 - 2) / 8)
    greater = np.sign(np.subtract.outer(table.kl_delete.to_numpy(), table.kl_atom.to_numpy())).mean()
    assert d.cliffs_delta == pytest.approx(greater)
    # |atom - delete| is 1 1 1 5 1 2 3 4: the four ones rank 2.5, the five ranks 8, and these two are the losses
    assert d.wilcoxon.statistic == 2.5 + 8
    assert d.wins_against["random"] == 0.0
    assert d.top1_disruption["delete"] == 0.5
    assert (d.interval_by_feature.low, d.interval_by_feature.high) == (0.5, 1.0)


def test_resumes_from_finished_passages(host: Host, passages: torch.Tensor, tmp_path: Path) -> None:
    config, sae = SubstitutionConfig(firings=19, seed=1), dictionary()
    text = passages.repeat(3, 1)  # two parts
    coefficients = substitution(host, sae, SITE, text, config).records.coefficient
    sae.b_enc.data[:] = -float(coefficients.median())  # half of them no longer fire
    whole = substitution(host, sae, SITE, text, config, folder=tmp_path / "run")
    parts = sorted((tmp_path / "run").glob("part-*.parquet"))
    assert len(parts) == 2
    kept = pd.read_parquet(parts[0]).assign(kl_atom=7.0)  # what is finished is not made again
    kept.to_parquet(parts[0])
    parts[1].unlink()
    again = substitution(host, sae, SITE, text, config, folder=tmp_path / "run")
    assert (again.records.kl_atom == 7).sum() == len(kept)
    assert again.main.refused == whole.main.refused
    assert whole.main.refused == {"no feature fires": 19 - whole.main.n}
    rest = again.records[again.records.kl_atom != 7].reset_index(drop=True)
    expected = whole.records[~whole.records.passage.isin(kept.passage)].reset_index(drop=True)
    pd.testing.assert_frame_equal(rest, expected)
    with pytest.raises(OutputError, match="another evaluation"):
        substitution(host, sae, SITE, text, replace(config, seed=2), folder=tmp_path / "run")


def test_every_head_of_a_layer_and_what_was_refused(host: Host, passages: torch.Tensor) -> None:
    silent = dictionary()
    silent.b_enc.data.fill_(-1e9)
    saes = {Site(5, 0): dictionary(), Site(5, 1): silent, Site(2, 3): dictionary()}
    many = substitution_at(host, saes, passages, SubstitutionConfig(firings=5, timings=("after_token",)))
    assert list(many.results) == [Site(5, 0), Site(2, 3)]
    assert "fires" in many.refused["L5.H1"]
    table = many.table("after_token")
    assert table.site.tolist() == ["L5.H0", "L2.H3"]
    assert many.pooled("after_token").n == table.n.sum()
    with pytest.raises(InputError, match="none of 1 heads"):
        substitution_at(host, {Site(5, 1): silent}, passages, SubstitutionConfig(firings=5))


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
    form: NativeWrite = "value" if layer.family == "rwkv7" else "delta"
    sae = random_dictionary(other, site, f"write-{form}", 31)  # type: ignore[arg-type]
    settings = SubstitutionConfig(firings=6, horizon=horizon, native_write=form)
    records = substitution(other, sae, site, text, settings).records
    stream, atoms = other.record(text, [site.layer])[site.layer].heads(site.head), sae.atoms()
    update = stream.value if form == "value" else delta_values(stream)[0]
    for row in rows(records):
        write = torch.outer(stream.key[row.passage, row.position, 0], update[row.passage, row.position, 0])
        atom = torch.outer(atoms.v[row.feature], atoms.w[row.feature])
        edits = [row.coefficient * atom - write, atom * write.norm() / atom.norm() - write, -write]
        native, patched = cache_copy_logits(other, text[row.passage], site, row.position, edits, row.protocol, horizon)
        for condition, logits in zip(("atom", "atom_norm", "delete"), patched, strict=True):
            slow = kl_divergence(native, logits)
            assert getattr(row, f"kl_{condition}") == pytest.approx(slow.mean().item(), rel=1e-6, abs=1e-14)
