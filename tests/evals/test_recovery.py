"""Known pairs against atoms: by hand, against scikit-learn, and at a head that binds facts."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.decomposition import TruncatedSVD
from sklearn.metrics import roc_auc_score
from torch.nn.functional import normalize

from memory_hosts import binding_cells, card, memory_host
from references import delta_values_reference
from writesae.corpus.facts import draw_facts, vocabulary
from writesae.evals.recall.recovery import Bound, baseline, bound, recovery, share_of_state, written
from writesae.recurrence.replay import replay_reference
from writesae.sae import SAE, SAEConfig, TopK

KEY, VALUE = 5, 7


def writes(passages: int = 11, seed: int = 3) -> Bound:
    """Two names x three things, each written nearly alike wherever it is told; one fact of each pair a passage."""
    random = torch.Generator().manual_seed(seed)
    name, thing = np.tile([4, 9], 3), np.repeat([21, 22, 23], 2)
    key, value = torch.randn(2, KEY, generator=random), torch.randn(3, VALUE, generator=random)
    keys, values = key.repeat(3, 1).repeat(passages, 1), value.repeat_interleave(2, 0).repeat(passages, 1)
    noise = 0.1 * torch.randn(keys.shape, generator=random)
    passage = np.repeat(np.arange(passages), 6)
    return Bound(keys + noise, values, np.tile(name, passages), np.tile(thing, passages), passage)


def test_an_atom_for_each_pair_recovers_it_one_to_one() -> None:
    held = writes()
    mean = torch.stack([
        (held.key[own, :, None] * held.value[own, None, :]).mean(0)
        for own in ((held.name == n) & (held.thing == t) for n in (4, 9) for t in (21, 22, 23))
    ])  # fmt: skip
    found = recovery(held, torch.cat([torch.randn(2, KEY, VALUE), 3 * mean])).query("of == 'pair'")
    assert found.name.tolist() == [4, 4, 4, 9, 9, 9]
    assert found.thing.tolist() == [21, 22, 23] * 2
    assert found["count"].tolist() == [11] * 6
    np.testing.assert_allclose(found[["best", "matched"]], 1, atol=1e-6)
    assert found.coherence.between(0.9, 0.9999).all()
    few = recovery(held, mean[[0, 0, 1]]).query("of == 'pair'")
    assert few.best.head(2).tolist() == pytest.approx([1, 1], abs=1e-6)
    assert few.matched.notna().sum() == 3  # one to one: three atoms for six pairs
    assert few.matched.max() == pytest.approx(1, abs=1e-6)
    turned = recovery(held, -mean).query("of == 'pair'")
    assert turned.best.max() < 0.99
    np.testing.assert_allclose(recovery(held, -mean, signed=False).query("of == 'pair'").best, 1, atol=1e-6)


def test_the_auroc_is_of_the_feature_chosen_on_the_other_passages() -> None:
    held, atoms = writes(), torch.randn(13, KEY, VALUE, generator=torch.Generator().manual_seed(7))
    found, scores = recovery(held, atoms), torch.einsum("nk,nv,akv->na", held.key, held.value, atoms).numpy()
    odd = held.passage % 2 == 1
    for _, row in found.iterrows():
        label = np.ones(len(odd), bool)
        for column, of in (("name", held.name), ("thing", held.thing)):
            label &= (of == row[column]) | (row[column] == -1)
        each = [roc_auc_score(label[~odd], scores[~odd, i]) for i in range(13)]
        assert row.auroc == pytest.approx(roc_auc_score(label[odd], scores[odd, int(np.argmax(each))]))
    assert found.of.value_counts().to_dict() == {"pair": 6, "thing": 3, "name": 2}
    once = Bound(held.key[:6], held.value[:6], held.name[:6], held.thing[:6], held.passage[:6])
    assert recovery(once, atoms).auroc.isna().all()  # no passage of an odd number


def test_a_dictionary_reads_with_its_encoder_and_is_scored_by_its_atoms() -> None:
    held, sae = writes(), SAE(SAEConfig(KEY, VALUE, 17, sparsity=TopK(3)), torch.Generator().manual_seed(1))
    plain = recovery(held, sae.atom_matrices())
    pd.testing.assert_frame_equal(recovery(held, sae), plain)
    with torch.no_grad():
        sae.v_enc.neg_()
    other = recovery(held, sae)
    assert other.best.equals(plain.best)
    assert not other.auroc.equals(plain.auroc)


@pytest.mark.parametrize("shape", [(41, KEY, VALUE), (23, KEY, VALUE)])
def test_dictionaries_that_nothing_was_trained_for(shape: tuple[int, ...]) -> None:
    given = normalize(torch.randn(shape, generator=torch.Generator().manual_seed(2)).flatten(1)).view(shape)
    for kind, count in (("pca", min(31, shape[0])), ("kmeans", min(31, shape[0])), ("random", 31)):
        atoms = baseline(kind, 31, given, seed=5)  # type: ignore[arg-type]
        assert atoms.shape == (count, KEY, VALUE)
        torch.testing.assert_close(atoms.flatten(1).norm(dim=1), torch.ones(count))
        assert torch.equal(atoms, baseline(kind, 31, given, seed=5))  # type: ignore[arg-type]
    assert torch.linalg.matrix_rank(baseline("random", 3, given)).tolist() == [1, 1, 1]
    reference = TruncatedSVD(3, algorithm="arpack").fit(given.flatten(1).numpy()).components_
    mine = baseline("pca", 3, given).flatten(1).numpy()
    np.testing.assert_allclose(np.abs((mine * reference).sum(1)), 1, atol=1e-4)


def test_the_writes_of_a_head_are_those_of_its_stream() -> None:
    host, (cell,) = memory_host("memory-gdn"), binding_cells("memory-gdn")
    passages = draw_facts(vocabulary(host.tokenizer, card("memory-gdn")["pattern"]).first(7, 13), 19, 5, (11, 19))
    held = bound(host, passages, cell)
    tokens = torch.from_numpy(passages.tokens)
    stream = host.record(tokens, [cell.site.layer])[cell.site.layer].heads(cell.site.head)
    at = torch.arange(19)[:, None], torch.from_numpy(passages.end)
    torch.testing.assert_close(held.key, stream.key[:, :, 0][at].flatten(0, 1))
    torch.testing.assert_close(held.value, delta_values_reference(stream)[:, :, 0][at].flatten(0, 1))
    assert held.name.tolist() == passages.name.flatten().tolist()
    states = replay_reference(stream).states[:, :, 0]
    norms = states[at].flatten(2).norm(dim=-1).flatten()
    shares = held.key.norm(dim=1) * held.value.norm(dim=1) / norms
    assert share_of_state(host, passages, cell) == pytest.approx(float(shares.median()), rel=1e-3)
    found = recovery(held, baseline("kmeans", 59, written(host, passages, cell.site, 331))).query("of == 'pair'")
    assert found["count"].sum() == 19 * 5
    assert found.coherence[found["count"] > 1].median() > 0.9  # a pair is written alike wherever it is told
    some = written(host, passages, cell.site, 331)
    assert some.shape == (331, 32, 32)
    torch.testing.assert_close(some.flatten(1).norm(dim=1), torch.ones(331))
