"""Several heads edited together, in one layer and in several, against the cache-copy protocol, family by family."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from random_hosts import dictionary, host_parameter, some_tokens, tiny_host
from slow_protocol import cache_copy_logits, joint_cache_copy_logits
from writesae.causal.divergence import kl_divergence
from writesae.causal.precision import in_float64, widened
from writesae.causal.writes import stream_writes
from writesae.errors import InputError
from writesae.evals.old.substitution import SubstitutionConfig, first_and_second, joint_substitution, substitution
from writesae.hosts import Host
from writesae.sae import SAE
from writesae.types import NativeWrite, Site

FAMILIES: dict[str, NativeWrite] = {
    "qwen3_5": "delta", "fla_kda": "delta", "mamba2": "delta", "falcon_h1": "value", "rwkv7_hf": "value",
}  # fmt: skip
"""Family -> what counts as a write."""
TIME = 19


def sites_of(host: Host) -> list[Site]:
    """Two heads of the first layer and one of the last."""
    first, *_, last = host.layers.values()
    return [Site(first.index, 0), Site(first.index, first.heads - 1), Site(last.index, 1)]


def rows(table: pd.DataFrame) -> list[SimpleNamespace]:
    return [SimpleNamespace(**{str(k).replace(".", "_"): v for k, v in r.items()}) for r in table.to_dict("records")]


@pytest.mark.parametrize("name", [host_parameter(name) for name in FAMILIES])
def test_equals_copied_caches(name: str) -> None:
    wide = widened(tiny_host(name))
    with in_float64():  # where nothing is lost to rounding
        check(wide, FAMILIES[name])


def check(host: Host, native_write: NativeWrite) -> None:
    text = some_tokens(rows=2, time=TIME)
    saes = {site: dictionary(host, site, "write-value") for site in sites_of(host)}
    config = SubstitutionConfig(firings=4, seed=2, horizon=2, native_write=native_write)
    records = joint_substitution(host, saes, text, config).records
    compared = 0
    for row in rows(records):
        atoms, norms = {}, {}
        for site, sae in saes.items():
            at = str(site).replace(".", "_")
            v, w = (x[getattr(row, f"feature_{at}")] for x in sae.atoms())
            atoms[site], norms[site] = torch.outer(v, w), getattr(row, f"write_norm_{at}")
            atoms[site] = atoms[site] * getattr(row, f"coefficient_{at}")
        conditions = [
            atoms,
            {site: atom / atom.norm() * norms[site] for site, atom in atoms.items()},
            {site: torch.zeros_like(atom) for site, atom in atoms.items()},
        ]
        native, patched = joint_cache_copy_logits(
            host, text[row.passage], row.position, conditions, row.protocol, 2, native_write
        )
        for condition, logits in zip(("atom", "atom_norm", "delete"), patched, strict=True):
            for step in range(2):
                slow = kl_divergence(native[step], logits[step]).item()
                fast = getattr(row, f"step{step + 1}_kl_{condition}")
                assert fast == pytest.approx(slow, rel=1e-6, abs=1e-14), (condition, step, row.protocol)
                compared += slow > 1e-9
        assert row.write_norm == pytest.approx(np.linalg.norm(list(norms.values())), rel=1e-5)
    assert compared > 20


def test_one_head_is_the_same_test() -> None:
    host, text = tiny_host("qwen3_next"), some_tokens(time=TIME)
    site = Site(0, 4)
    sae, config = dictionary(host, site), SubstitutionConfig(firings=5, seed=3)
    one, joint = substitution(host, sae, site, text, config), joint_substitution(host, {site: sae}, text, config)
    pd.testing.assert_frame_equal(one.records, joint.records)
    assert joint.sites == (site,)
    assert one.provenance == joint.provenance


def test_the_slow_protocols_agree_on_one_head() -> None:
    host, text = tiny_host("qwen3_next"), some_tokens(rows=1, time=TIME)[0]
    site = Site(1, 2)
    stream = host.record(text[None], [1])[1].heads(2)
    write = torch.outer(stream.key[0, 7, 0], stream.value[0, 7, 0])
    matrix = torch.randn(write.shape, generator=torch.Generator().manual_seed(1))
    for timing in ("after_token", "at_token"):
        edits, conditions = [matrix - write], [{site: matrix}]
        one = cache_copy_logits(host, text, site, 7, edits, timing)
        joint = joint_cache_copy_logits(host, text, 7, conditions, timing, 1, "value")
        torch.testing.assert_close(one[1][0], joint[1][0], rtol=1e-4, atol=1e-5)


def silent_where(host: Host, site: Site, text: torch.Tensor, share: float) -> SAE:
    """A dictionary that fires at about this share of the tokens."""
    sae = dictionary(host, site)
    stream = host.record(text, [site.layer])[site.layer].heads(site.head)
    top = sae.encode_written(stream_writes(stream).written).value.max(-1).values
    sae.b_enc.data[:] = -float(torch.quantile(top, 1 - share))
    return sae


def test_silent_heads_refuse_the_place_or_are_left_alone() -> None:
    host, text = tiny_host("mamba2"), some_tokens(time=TIME)
    loud, quiet = Site(0, 1), Site(1, 3)
    saes = {loud: dictionary(host, loud), quiet: silent_where(host, quiet, text, 0.5)}
    config = SubstitutionConfig(("after_token",), firings=12)
    refusing = joint_substitution(host, saes, text, config).main
    assert refusing.refused == {"no feature fires at L1.H3": 12 - refusing.n}
    assert 0 < refusing.n < 12
    lenient = SubstitutionConfig(("after_token",), firings=12, silent="leave")
    leaving = joint_substitution(host, saes, text, lenient)
    assert (leaving.main.n, leaving.main.refused) == (12, {})
    alone = substitution(host, saes[loud], loud, text, config).records
    left = leaving.records["coefficient_L1.H3"] == 0
    assert left.sum() == 12 - refusing.n
    for column in ("kl_atom", "kl_delete", "kl_atom_norm", "cosine", "write_norm", "kl_random"):
        np.testing.assert_allclose(leaving.records[column][left], alone[column][left], rtol=1e-4, atol=1e-9)


def test_bad_input() -> None:
    host, text = tiny_host("mamba2"), some_tokens(time=TIME)
    with pytest.raises(InputError, match="at least 1 dictionary"):
        joint_substitution(host, {}, text)
    with pytest.raises(InputError, match="heads 0 to 5"):
        joint_substitution(host, {Site(1, 6): dictionary(host, Site(1, 0))}, text)


def test_a_second_dictionary_of_a_head_is_the_flat_one() -> None:
    host = tiny_host("mamba2")
    one, other, flat = (dictionary(host, Site(0, 0)) for _ in range(3))
    given = [(Site(0, 0), one), (Site(1, 2), other), (Site(0, 0), flat)]
    controlled = SubstitutionConfig(controls=("flat_svd",))
    assert first_and_second(given, controlled) == ({Site(0, 0): one, Site(1, 2): other}, {Site(0, 0): flat})
    with pytest.raises(InputError, match="without the control flat_svd"):
        first_and_second(given, SubstitutionConfig())
    with pytest.raises(InputError, match="two dictionaries a head"):
        first_and_second([*given, given[0]], controlled)
