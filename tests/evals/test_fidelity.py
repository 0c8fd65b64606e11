"""Replaced states and deleted classes against edited caches, and seeds against known copies."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn.functional import cross_entropy

from slow_protocol import cache_copy_logits
from writesae.causal.writes import head_writes
from writesae.errors import InputError
from writesae.evals import fidelity as states
from writesae.evals import passage_loss as losses
from writesae.evals import seeds as several
from writesae.evals.old.fidelity import FidelityConfig, fidelity, reconstructed
from writesae.evals.old.partition import PartitionConfig
from writesae.evals.old.passage_loss import PassageLossConfig, passage_loss, response
from writesae.evals.old.seeds import SeedsConfig, atom_cosines, seeds
from writesae.hosts import Host
from writesae.hosts.fork import native_run
from writesae.recurrence import delta_values_reference, replay_reference, respond_reference
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
    result = fidelity(host, {SITE: sae}, few, FidelityConfig(prefix=0.6))
    start = 14
    state = replay_reference(host.record(few, [5])[5].heads(2)).states[:, start - 1, 0]
    hat = dense_reconstruction(host, sae, few, start - 1)
    stream = host.record(few[:, :start], [5])[5].heads(2)
    torch.testing.assert_close(reconstructed(stream, state, sae), hat, rtol=1e-3, atol=1e-5)
    for row, record in enumerate(result.records.to_dict("records")):
        edits = [hat[row] - state[row], -state[row]]
        native, patched = cache_copy_logits(host, few[row], SITE, start - 1, edits, "after_token", horizon=22 - start)
        for name, logits in zip(states.CONDITIONS, (native, *patched), strict=True):
            slow = cross_entropy(logits.double(), few[row, start + 1 :], reduction="sum").item()
            assert record[f"nll_{name}"] == pytest.approx(slow, rel=1e-5)
        assert record["tokens"] == 22 - start
    assert states.summarise(result.records, result.more["scopes"], result.config) == result.summary


def test_all_heads_of_a_layer(host: Host, passages: torch.Tensor) -> None:
    many = {Site(5, head): dictionary(seed=head) for head in range(3)}
    result = fidelity(host, many, passages[:2])
    assert result.provenance.site == "L5.H0,L5.H1,L5.H2"
    one = fidelity(host, {SITE: many[SITE]}, passages[:2])
    assert (result.records.nll_zero != one.records.nll_zero).all()
    np.testing.assert_allclose(result.records.nll_native, one.records.nll_native, rtol=1e-6)
    with pytest.raises(InputError, match="leaves nothing"):
        fidelity(host, {SITE: many[SITE]}, passages[:2], FidelityConfig(prefix=0.999))


def test_fidelity_by_hand() -> None:
    table = pd.DataFrame({"passage": [0, 1], "tokens": [2, 2], "nll_native": [2.0, 4.0]})
    table = table.assign(nll_reconstruction=[2.5, 4.5], nll_zero=[4.0, 6.0])
    scopes = table.assign(scope="L5", nll_reconstruction=[2.0, 4.0])
    s = states.summarise(table, scopes, FidelityConfig())
    assert s.scopes["L5"].recovered == 1
    assert s.perplexity["native"] == pytest.approx(math.exp(1.5))
    assert s.delta == pytest.approx(math.exp(1.75) - math.exp(1.5))
    assert (s.nats, s.recovered) == pytest.approx((0.25, 1 - 1 / 4))
    assert (s.interval.low, s.interval.high) == pytest.approx((0.25, 0.25))


def test_response_to_many_edits_is_the_sum_of_single_ones(host: Host, passages: torch.Tensor) -> None:
    stream = host.record(passages[:2], [5])[5].heads(2)
    passage, position = torch.tensor([0, 0, 1]), torch.tensor([3, 11, 7])
    key, value = torch.randn(3, 32), torch.randn(3, 32)
    together = response(stream, passage, position, key, value)
    expected = torch.zeros_like(together)
    for j in range(3):
        row, start = int(passage[j]), int(position[j])
        local = stream.map(lambda x, r=row, s=start: x[r : r + 1, s:])  # type: ignore[misc]
        edit = torch.outer(key[j], value[j])[None, None]
        expected[row, start:] += respond_reference(local, edit, at_token=True)[0]
    torch.testing.assert_close(together, expected, rtol=1e-4, atol=1e-5)


def test_deleting_one_firing_equals_a_copied_cache(host: Host, passages: torch.Tensor) -> None:
    """A class of one feature that is the top one exactly once in a passage."""
    sae = dictionary()
    run = native_run(host, passages, 5)
    top = sae.encode_written(head_writes(run, 2).written)
    feature = top.index.gather(-1, top.value.argmax(-1, keepdim=True))[:, :, 0]
    row, chosen = next(
        (b, int(f)) for b in range(len(passages)) for f in feature[b, 2:40] if int((feature[b] == f).sum()) == 1
    )
    place = int((feature[row] == chosen).nonzero()[0])
    result = passage_loss(host, sae, SITE, passages[row : row + 1], [chosen])
    assert result.summary.firings == 1
    stream = host.record(passages[row : row + 1], [5])[5].heads(2)
    write = torch.outer(stream.key[0, place, 0], delta_values_reference(stream)[0, place, 0])
    text = passages[row]
    native, patched = cache_copy_logits(host, text, SITE, place, [-write], "at_token", horizon=len(text) - 1 - place)
    slow = [cross_entropy(x.double(), text[place + 1 :], reduction="sum").item() for x in (native, patched[0])]
    record = result.records.iloc[0]
    assert record.nll_delete - record.nll_native == pytest.approx(slow[1] - slow[0], rel=1e-2, abs=2e-5)
    with pytest.raises(InputError, match="is the top one anywhere"):
        passage_loss(host, sae, SITE, passages[row : row + 1], [next(f for f in range(61) if f not in feature[row])])


def test_passage_loss_by_hand() -> None:
    table = pd.DataFrame({"passage": [0, 1], "firings": [3, 1], "tokens": [4, 4], "nll_native": [2.0, 2.0]})
    table = table.assign(nll_atom=[2.0, 2.0], nll_delete=[2 + 4 * math.log(2), 2.0], nll_random_norm=[3.0, 3.0])
    s = losses.summarise(table, PassageLossConfig())
    assert (s.passages, s.firings, s.recovered) == (2, 4, 1)
    helps = losses.summarise(table.assign(nll_delete=[1.0, 2.0]), PassageLossConfig())
    assert math.isnan(helps.recovered)
    assert s.bits == pytest.approx({"atom": 0.0, "delete": 0.5, "random_norm": 0.25 / math.log(2)})
    assert (s.intervals["delete"].low, s.intervals["delete"].high) == pytest.approx((0.0, 1.0))


def test_seeds_know_a_copy(host: Host, passages: torch.Tensor) -> None:
    config = SeedsConfig(PartitionConfig(ks=()))
    copy, other = dictionary(), dictionary(seed=6)
    order = torch.randperm(61, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for parameter in (copy.v_enc, copy.w_enc, copy.b_enc, copy.v_dec, copy.w_dec):
            parameter.copy_(parameter[order])
    same = seeds(host, [dictionary(), copy], SITE, passages, config)
    assert same.summary.matched == 1
    assert same.summary.assigned == pytest.approx(1, abs=1e-5)
    assert set(same.summary.variation.values()) == {0.0}
    different = seeds(host, [dictionary(), copy, other], SITE, passages, config)
    assert different.summary.matched == pytest.approx(2 / 6)
    assert several.summarise(different.records, config) == different.summary
    with pytest.raises(InputError, match="at least 2"):
        seeds(host, [other], SITE, passages)


def test_atom_cosines_by_hand() -> None:
    a, b = (SAE(SAEConfig(2, 2, 2, sparsity=TopK(1))) for _ in range(2))
    with torch.no_grad():
        a.v_dec.copy_(torch.tensor([[[1.0, 0]], [[3.0, 4]]]))
        a.w_dec.copy_(torch.tensor([[[0.0, 2]], [[1.0, 0]]]))
        b.v_dec.copy_(torch.tensor([[[1.0, 0]], [[0.0, 1]]]))
        b.w_dec.copy_(torch.tensor([[[0.0, -1]], [[1.0, 1]]]))
    expected = [[1.0, 0.0], [0.0, 0.8 / math.sqrt(2)]]
    np.testing.assert_allclose(atom_cosines(a, [0, 1], b, [0, 1]), expected, atol=1e-6)
