"""Replaced states against edited caches."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn.functional import cross_entropy

from references import delta_values_reference
from slow_protocol import cache_copy_logits
from writesae.errors import InputError
from writesae.evals import fidelity
from writesae.evals.fidelity import FidelityConfig
from writesae.evals.fidelity.measure import reconstructed
from writesae.evals.fidelity.summary import CONDITIONS, recovered_words, summarise
from writesae.hosts import Host
from writesae.recurrence import replay_reference
from writesae.sae import SAE, SAEConfig, TopK
from writesae.types import Site, Target

SITE = Site(5, 2)


def dictionary(target: Target = "write-delta", seed: int = 5) -> SAE:
    return SAE(SAEConfig(32, 32, 61, sparsity=TopK(3), target=target), torch.Generator().manual_seed(seed))


def dense_reconstruction(host: Host, sae: SAE, tokens: torch.Tensor, position: int) -> torch.Tensor:
    """Written out: encode dense matrices, and replay reconstructed writes."""
    stream = host.record(tokens, [5])[5].heads(2)
    if sae.config.target == "state":
        return sae.decode(sae.encode(replay_reference(stream).states[:, position, 0]))
    value = stream.value if sae.config.target == "write-value" else delta_values_reference(stream)
    writes = torch.einsum("btk,btv->btkv", stream.key[:, :, 0], value[:, :, 0])
    hats, state = sae.decode(sae.encode(writes)), torch.zeros(len(tokens), 32, 32)
    for t in range(position + 1):
        matrix = stream.log_decay[:, t, 0].exp()[:, :, None] * torch.eye(32)
        if sae.config.target == "write-value":
            assert stream.erase is not None
            matrix = matrix - torch.einsum("bk,bl->bkl", *(x[:, t, 0] for x in stream.erase))
        state = matrix @ state + hats[:, t]
    return state


@pytest.mark.parametrize("target", ["state", "write-delta", "write-value"])
def test_equals_a_cache_with_the_reconstructed_state(host: Host, passages: torch.Tensor, target: Target) -> None:
    sae, few = dictionary(target), passages[:2, :23]
    result = fidelity(host, {SITE: sae}, few, prefix=0.6)
    start = 14
    state = replay_reference(host.record(few, [5])[5].heads(2)).states[:, start - 1, 0]
    hat = dense_reconstruction(host, sae, few, start - 1)
    stream = host.record(few[:, :start], [5])[5].heads(2)
    torch.testing.assert_close(reconstructed(stream, state, sae), hat, rtol=1e-3, atol=1e-5)
    for row, record in enumerate(result.records.to_dict("records")):
        edits = [hat[row] - state[row], -state[row]]
        native, patched = cache_copy_logits(host, few[row], SITE, start - 1, edits, "after_token", horizon=22 - start)
        for name, logits in zip(CONDITIONS, (native, *patched), strict=True):
            slow = cross_entropy(logits.double(), few[row, start + 1 :], reduction="sum").item()
            assert record[f"nll_{name}"] == pytest.approx(slow, rel=1e-5)
        assert record["tokens"] == 22 - start


def test_all_heads_of_a_layer(host: Host, passages: torch.Tensor) -> None:
    many = {Site(5, head): dictionary(seed=head) for head in range(3)}
    result = fidelity(host, many, passages[:2], scopes=("layer", "head"))
    assert list(result.summary.scopes) == ["all", "L5", "L5.H0", "L5.H1", "L5.H2"]
    alone = fidelity(host, {SITE: many[SITE]}, passages[:2]).records
    own = result.records.set_index("scope").loc
    assert (own["all"].nll_zero.to_numpy() != alone.nll_zero.to_numpy()).all()
    for column in ("nll_native", "nll_reconstruction", "nll_zero"):
        np.testing.assert_allclose(own["all"][column], own["L5"][column], rtol=1e-9)
        np.testing.assert_allclose(own["L5.H2"][column], alone[column], rtol=1e-6)
    with pytest.raises(InputError, match="leaves nothing"):
        fidelity(host, {SITE: many[SITE]}, passages[:2], prefix=0.999)
    with pytest.raises(InputError, match=r"2 dictionaries of L5\.H2 were given; fidelity takes 1 of a head"):
        fidelity(host, [dictionary(), dictionary()], passages[:2], site=SITE)


def test_fidelity_by_hand() -> None:
    table = pd.DataFrame({"passage": [0, 1], "tokens": [2, 2], "nll_native": [2.0, 4.0], "scope": "all"})
    table = table.assign(nll_reconstruction=[2.5, 4.5], nll_zero=[4.0, 6.0], nll_again=[2.01, 4.0])
    scopes = table.assign(scope="L5", nll_reconstruction=[2.0, 4.0])
    s = summarise({"records": pd.concat([table, scopes])}, FidelityConfig())
    assert (s.passages, s.tokens, s.scopes["L5"].recovered) == (2, 4, 1)
    whole = s.scopes["all"]
    assert whole.perplexity == pytest.approx({"native": math.exp(1.5), "reconstruction": math.exp(1.75),
                                              "zero": math.exp(2.5)})  # fmt: skip
    assert (whole.above, s.scopes["L5"].above) == (1, 0)
    assert whole.added == pytest.approx({"reconstruction": 0.25, "zero": 1.0})
    assert whole.recovered == pytest.approx(1 - 1 / 4)
    assert recovered_words(whole) == "Loss recovered, of what zeroed states lose: 75.0\u202f%."
    none = summarise({"records": table.assign(nll_zero=[1.0, 1.0])}, FidelityConfig()).scopes["all"]
    assert "nothing to recover" in recovered_words(none)
    assert whole.intervals["reconstruction"] == pytest.approx((0.25, 0.25))
