"""Selectivity and readers against edited caches and hand-worked values."""

import pandas as pd
import pytest
import torch

from writesae.causal.patching import edit_response
from writesae.errors import InputError
from writesae.evals.old import readers as later
from writesae.evals.old import selectivity as selective
from writesae.evals.old.readers import ReadersConfig, later_outputs, readers
from writesae.evals.old.selectivity import SelectivityConfig, directions, overlaps, selectivity
from writesae.hosts import Host, KernelCall, KernelResult, Tap
from writesae.hosts.fork import Rows, native_run
from writesae.recurrence import delta_values, respond_reference
from writesae.sae import SAE, SAEConfig, TopK
from writesae.types import Site

SITE = Site(5, 2)


def dictionary() -> SAE:
    return SAE(SAEConfig(32, 32, 61, sparsity=TopK(3), target="write-delta"), torch.Generator().manual_seed(5))


def test_overlaps_by_hand() -> None:
    change = torch.tensor([[[9.0, -8, 1, 0, 0, 0], [9.0, 0, 0, -8, 1, 0], [-9.0, 8, -1, 0, 0, 0]]])
    torch.testing.assert_close(overlaps(change, 2), torch.tensor([[0.5, 1.0]], dtype=torch.float64))
    shifted = change + torch.tensor([0.0, 100.0, -50.0])[:, None]  # a shift of all logits moves nothing
    torch.testing.assert_close(overlaps(shifted, 2), overlaps(change, 2))
    table = pd.DataFrame({"feature": [1, 1, 2], "overlap_random": [0.5, 0.0, 1.0], "overlap_orthogonal": 0.25})
    s = selective.summarise(table, SelectivityConfig())
    assert (s.atoms, s.selectivity) == (2, {"random": (0.75 + 0.0) / 2, "orthogonal": 0.75})


def test_directions_are_orthogonal_and_as_large_as_the_write(host: Host, passages: torch.Tensor) -> None:
    run, sae = native_run(host, passages[:2], 5), dictionary()
    here = pd.DataFrame({"passage": [0, 1, 1], "position": [3, 9, 30], "feature": [7, 8, 7]})
    edits = directions(run, sae, SITE, here, 0)
    matrices = torch.einsum("rcm,rmk,rmv->rckv", edits.weight, edits.key, edits.value)
    stream = run.streams[5].heads(2)
    update = delta_values(stream)[0]
    for r, record in enumerate(here.to_dict("records")):
        at = (record["passage"], record["position"], 0)
        norm = stream.key[at].norm() * update[at].norm()
        torch.testing.assert_close(matrices[r].flatten(1).norm(dim=1), norm.expand(3))
        atom = sae.atom_matrices()[record["feature"]].detach()
        assert torch.cosine_similarity(matrices[r, 0].flatten(), atom.flatten(), dim=0) > 0.9999
        assert (matrices[r, 2] @ atom.T).abs().max() < 1e-4


def test_selectivity_of_a_host(host: Host, passages: torch.Tensor) -> None:
    config = SelectivityConfig(atoms=5, firings=3, top=7)
    result = selectivity(host, dictionary(), SITE, passages, config)
    assert result.attempted == 5 == result.n + sum(result.refused.values())
    assert (result.records.groupby("feature").size() == 3).all()
    assert 0 <= result.summary.selectivity["random"] <= 1
    assert selective.summarise(result.records, config) == result.summary
    with pytest.raises(InputError, match="none of 5 atoms"):
        selectivity(host, dictionary(), SITE, passages, SelectivityConfig(atoms=5, firings=999))
    with pytest.raises(InputError, match="most moved"):
        selectivity(host, dictionary(), SITE, passages, SelectivityConfig(top=10**6))


def test_readers_equal_a_whole_patched_pass(host: Host, passages: torch.Tensor) -> None:
    few, sae, place = passages[:1, :23], dictionary(), 9
    run = native_run(host, few, 5)
    edits = directions(run, sae, SITE, pd.DataFrame({"passage": [0], "position": [place], "feature": [7]}), 0)
    rows = Rows(run, edits.passage, edits.position + 1, 1, 4)
    fast = later_outputs(rows, edit_response(run, edits, "after_token", 1))
    assert set(fast) == {6}
    matrix = edits.weight[0, 0, 0] * torch.outer(edits.key[0, 0], edits.value[0, 0])
    seen: list[torch.Tensor] = []

    def after(call: KernelCall, result: KernelResult) -> KernelResult:
        if call.layer == 6:
            seen.append(result.output[0, place + 1])
        if call.layer != 5:
            return result
        local = call.stream.heads(2).map(lambda x: x[:, place:])
        output = result.output.clone()
        output[:, place:, 2] += respond_reference(local, matrix[None, None], at_token=False)[:, :, 0]
        return result._replace(output=output)

    host.logits(few)
    host.logits(few, Tap(after=after))
    torch.testing.assert_close(fast[6][0, 1], seen[0], rtol=1e-4, atol=1e-5)


def test_readers_of_a_host_and_by_hand(host: Host, passages: torch.Tensor) -> None:
    config = ReadersConfig(atoms=3, firings=2)
    result = readers(host, dictionary(), SITE, passages, config)
    assert sorted(result.records.reader.unique()) == [f"L6.H{h}" for h in range(6)]
    assert len(result.records) == result.n * 2 * 6
    assert later.summarise(result.records, config) == result.summary
    with pytest.raises(InputError, match="no recurrent layer above"):
        readers(host, dictionary(), Site(6, 0), passages)
    table = pd.DataFrame({"feature": [1, 1, 1, 1], "reader": ["L6.H0", "L6.H0", "L6.H1", "L6.H1"]})
    table = table.assign(atom=[2.0, 4.0, 1.0, 1.0], random=[1.0, 0.5, 2.0, 2.0])
    s = later.summarise(table, ReadersConfig())
    assert (s.strongest[0].site, s.strongest[0].ratio) == ("L6.H0", 4.0)
    assert s.median == (4.0 + 0.5) / 2
