"""Several heads edited together, in one layer and in several, against the cache-copy protocol, family by family."""

from types import SimpleNamespace
from typing import Any

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
from writesae.evals import substitution
from writesae.hosts import Host
from writesae.sae import SAE, Record
from writesae.types import Site

FAMILIES = ("qwen3_5", "fla_kda", "mamba2", "falcon_h1", "rwkv7_hf")
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
        check(wide)


def check(host: Host) -> None:
    text = some_tokens(rows=2, time=TIME)
    saes = {site: dictionary(host, site, "write-value") for site in sites_of(host)}
    records = substitution(host, saes, text, firings=4, seed=2, horizon=2).records
    compared = 0
    for row in rows(records):
        atoms, norms, states = {}, {}, []
        for site, sae in saes.items():
            at = str(site).replace(".", "_")
            v, w = (x[getattr(row, f"feature_{at}")] for x in sae.atoms())
            atom, norms[site] = torch.outer(v, w), getattr(row, f"write_norm_{at}")
            states.append(norms[site] / getattr(row, f"share_{at}"))
            size = getattr(row, f"coefficient_{at}") if row.amplitude == "coefficient" else norms[site] / atom.norm()
            atoms[site] = atom * size
        conditions = [atoms, {site: torch.zeros_like(atom) for site, atom in atoms.items()}]
        native, patched = joint_cache_copy_logits(
            host, text[row.passage], row.position, conditions, row.timing, 2, row.native_write
        )
        for condition, logits in zip(("atom", "delete"), patched, strict=True):
            for step in range(2):
                slow = kl_divergence(native[step], logits[step]).item()
                fast = getattr(row, f"step{step + 1}_kl_{condition}")
                assert fast == pytest.approx(slow, rel=1e-6, abs=1e-14), (condition, step, row.timing)
                compared += slow > 1e-9
        assert row.write_norm == pytest.approx(np.linalg.norm(list(norms.values())), rel=1e-5)
        assert row.share == pytest.approx(row.write_norm / np.linalg.norm(states), rel=1e-5)
    assert compared > 20


def test_one_head_is_the_same_test() -> None:
    host, text = tiny_host("qwen3_next"), some_tokens(time=TIME)
    site = Site(0, 4)
    sae = dictionary(host, site)
    one = substitution(host, sae, text, site=site, firings=5, seed=3)
    joint = substitution(host, {site: sae}, text, firings=5, seed=3)
    pd.testing.assert_frame_equal(one.records, joint.records)
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
    options: dict[str, Any] = {"timings": "after_token", "firings": 12}
    refusing = substitution(host, saes, text, **options)
    assert refusing.refused == {"no feature fires at L1.H3": 12 - refusing.n}
    assert 0 < refusing.n < 12
    leaving = substitution(host, saes, text, silent="leave", **options)
    assert (leaving.n, leaving.refused) == (12, {})
    alone = substitution(host, {loud: saes[loud]}, text, **options).records
    left = leaving.records["coefficient_L1.H3"] == 0
    assert left.sum() == 2 * (12 - refusing.n)  # at both amplitudes
    for column in ("kl_atom", "kl_delete", "cosine", "write_norm", "share", "kl_random"):
        np.testing.assert_allclose(leaving.records[column][left], alone[column][left], rtol=1e-4, atol=1e-9)


def test_bad_input() -> None:
    host, text = tiny_host("mamba2"), some_tokens(time=TIME)
    with pytest.raises(InputError, match="give at least one"):
        substitution(host, {}, text)
    with pytest.raises(InputError, match="heads 0 to 5"):
        substitution(host, {Site(1, 6): dictionary(host, Site(1, 0))}, text)


def test_a_second_dictionary_of_a_head_is_the_flat_one() -> None:
    host, text = tiny_host("mamba2"), some_tokens(time=TIME)
    one, other, flat = (dictionary(host, Site(0, 0), features=n) for n in (13, 17, 11))
    for sae, site in ((one, Site(0, 0)), (other, Site(1, 2)), (flat, Site(0, 0))):
        sae.record = Record(site=site)
    given = [one, other, flat]
    with pytest.raises(InputError, match=r"flat_svd needs a second, flat dictionary of L1\.H2"):
        substitution(host, given, text, firings=5, controls="flat_svd")
    with pytest.raises(InputError, match=r"two dictionaries of L0\.H0 were given: give one of a head, .*flat_svd"):
        substitution(host, given, text, firings=5)
    with pytest.raises(InputError, match=r"3 dictionaries of L0\.H0 were given; substitution takes 2 of a head"):
        substitution(host, [*given, flat], text, firings=5, controls="flat_svd")
    options: dict[str, Any] = {"firings": 5, "timings": "after_token"}
    both = substitution(host, [one, flat], text, controls="flat_svd", **options).records
    alone = substitution(host, one, text, **options).records
    pd.testing.assert_series_equal(both.kl_delete, alone.kl_delete, rtol=1e-3, atol=1e-12)
    assert (both.kl_flat_svd != both.kl_atom).all()
    assert list(both.feature) == list(alone.feature)
