"""The substitution test against the cache-copy protocol, and its bookkeeping against numbers worked out by hand."""

from dataclasses import replace

import pandas as pd
import pytest
import torch

from writesae.errors import InputError
from writesae.evals.divergence import kl_divergence
from writesae.evals.reference import cache_copy_logits
from writesae.evals.substitution import CONDITIONS, SubstitutionConfig, substitution, summarise
from writesae.hosts import Host
from writesae.recurrence import delta_values
from writesae.sae import SAE, SAEConfig, TopK
from writesae.types import Site

SITE = Site(5, 2)


def dictionary(target: str = "write-delta", d_k: int = 32) -> SAE:
    return SAE(SAEConfig(d_k, 32, 61, sparsity=TopK(3), target=target), torch.Generator().manual_seed(5))  # type: ignore[arg-type]


def rounding(kl: float) -> float:
    """What float32 does to a KL, half the variance of the logit change: noise of spread e adds e sqrt(2 KL)."""
    return 2e-6 * (2 * kl) ** 0.5


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
    for row in records.itertuples():
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
