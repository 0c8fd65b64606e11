"""Selectivity and readers against edited caches and hand-worked values."""

import math
from dataclasses import replace
from importlib import import_module
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from references import respond_reference
from writesae.causal.patching import Edits
from writesae.errors import InputError
from writesae.evals import readers, selectivity
from writesae.evals.common.conditions import ADDED
from writesae.evals.common.directions import directions
from writesae.evals.common.evaluation import Evaluation
from writesae.evals.common.floor import too_small
from writesae.evals.readers import ReadersConfig
from writesae.evals.readers import summary as read
from writesae.evals.readers.measure import readings
from writesae.evals.selectivity import SelectivityConfig
from writesae.evals.selectivity import summary as selective
from writesae.evals.selectivity.measure import overlaps
from writesae.hosts import Host, KernelCall, KernelResult, Tap
from writesae.hosts.fork import native_run
from writesae.recurrence import delta_values
from writesae.sae import SAE, SAEConfig, TopK
from writesae.types import NativeWrite, Site

SITE = Site(5, 2)
FORMS: tuple[NativeWrite, ...] = ("delta", "value")


def dictionary() -> SAE:
    return SAE(SAEConfig(32, 32, 61, sparsity=TopK(3), target="write-delta"), torch.Generator().manual_seed(5))


def test_overlaps_by_hand() -> None:
    change = torch.tensor([[[9.0, -8, 1, 0, 0, 0], [9.0, 0, 0, -8, 1, 0], [-9.0, 8, -1, 0, 0, 0]]])
    torch.testing.assert_close(overlaps(change, 2), torch.tensor([[0.5, 1.0]], dtype=torch.float64))
    shifted = change + torch.tensor([0.0, 100.0, -50.0])[:, None]  # a shift of all logits moves nothing
    torch.testing.assert_close(overlaps(shifted, 2), overlaps(change, 2))


def test_selectivity_by_hand() -> None:
    table = pd.DataFrame({"feature": [1, 1, 2], "overlap_random": [0.5, 0.0, 1.0], "overlap_orthogonal_to_atom": 0.25})
    table = table.assign(timing="at_token", native_write="value", floor=1e-9, kl_atom=1e-3, kl_random=1e-3)
    table["kl_orthogonal_to_atom"] = [1e-3, 1e-3, 1e-9]
    summary = selective.summarise({"records": table}, SelectivityConfig())
    cell = summary.cells[0]
    assert (cell.timing, cell.native_write, cell.atoms, cell.firings) == ("at_token", "value", 2, 3)
    assert {c.against: c.selectivity for c in summary.cells} == {"random": 0.75 / 2, "orthogonal_to_atom": 0.75}
    assert {c.against: c.among for c in summary.cells} == {"random": 0.75, "orthogonal_to_atom": 0.75}  # less the third
    assert cell.above == pytest.approx(2 / 3)
    assert not too_small(cell.above)


def test_directions_are_orthogonal_and_as_large_as_the_write(host: Host, passages: torch.Tensor) -> None:
    run, sae = native_run(host, passages[:2], 5), dictionary()
    here = pd.DataFrame({"passage": [0, 1, 1], "position": [3, 9, 30], "feature": [7, 8, 7]})
    edits = directions(run, sae, SITE, here, ADDED, FORMS, 0)
    matrices = torch.einsum("rcm,rmk,rmv->rckv", edits.weight, edits.key, edits.value)
    stream = run.streams[5].heads(2)
    update = delta_values(stream)[0]
    for r, record in enumerate(here.to_dict("records")):
        at = (record["passage"], record["position"], 0)
        norms = [stream.key[at].norm() * side[at].norm() for side in (update, stream.value)]
        torch.testing.assert_close(matrices[r].flatten(1).norm(dim=1), torch.stack(norms).repeat_interleave(3))
        atom = sae.atom_matrices()[record["feature"]].detach()
        assert torch.cosine_similarity(matrices[r, 0].flatten(), atom.flatten(), dim=0) > 0.9999
        assert (matrices[r, 2] @ atom.T).abs().max() < 1e-4
        torch.testing.assert_close(matrices[r, 3:] / norms[1], matrices[r, :3] / norms[0])


def test_selectivity_of_a_host(host: Host, passages: torch.Tensor) -> None:
    result = selectivity(host, dictionary(), passages, site=SITE, atoms=5, firings=3, top=7)
    assert result.attempted == 5 == result.n + sum(result.refused.values())
    assert [(c.timing, c.native_write, c.against) for c in result.summary.cells] == [
        (timing, form, name)
        for timing in ("after_token", "at_token")
        for form in FORMS
        for name in ("random", "orthogonal_to_atom")
    ]
    assert (result.records.groupby(["timing", "native_write", "feature"]).size() == 3).all()
    for cell in result.summary.cells:
        assert 0 <= cell.selectivity <= 1
        assert cell.above == 1
    one = selectivity(host, dictionary(), passages, site=SITE, atoms=5, firings=3, top=7, native_writes="value")
    same = result.records[result.records.native_write == "value"].reset_index(drop=True)
    pd.testing.assert_frame_equal(one.records, same, rtol=1e-2, atol=1e-7)
    with pytest.raises(InputError, match="none of 5 atoms"):
        selectivity(host, dictionary(), passages, site=SITE, atoms=5, firings=999)
    with pytest.raises(InputError, match="most moved"):
        selectivity(host, dictionary(), passages, site=SITE, top=10**6)


@pytest.mark.parametrize("evaluation", [selectivity, readers])
def test_what_moves_no_more_than_rounding_is_no_finding(
    host: Host, passages: torch.Tensor, evaluation: Evaluation[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of writes at 1e-9 of their size any two move different tokens, and nothing was shown."""

    def small(*given: Any) -> Edits:
        edits = directions(*given)
        return replace(edits, weight=edits.weight * 1e-9)

    monkeypatch.setattr(import_module(f"writesae.evals.{evaluation.name}.measure"), "directions", small)
    result = evaluation(host, dictionary(), passages[:3], site=SITE, atoms=3, firings=2)
    assert all(cell.above < 0.1 and too_small(cell.above) for cell in result.summary.cells)
    assert result.finding.startswith("Too small to decide")


def test_readings_equal_a_whole_patched_pass(host: Host, passages: torch.Tensor) -> None:
    few, sae, place = passages[:1, :23], dictionary(), 9
    run = native_run(host, few, 5)
    here = pd.DataFrame({"passage": [0], "position": [place], "feature": [7]})
    edits = directions(run, sae, SITE, here, read.ADDED, FORMS, 0)
    matrix = edits.weight[0, 0, 0] * torch.outer(edits.key[0, 0], edits.value[0, 0])
    outputs: list[torch.Tensor] = []

    def after(call: KernelCall, result: KernelResult, add: bool = True, at_token: bool = True) -> KernelResult:
        if call.layer == 6:
            outputs.append(result.output[0])
        if call.layer != 5 or not add:
            return result
        local = call.stream.heads(2).map(lambda x: x[:, place:])
        output = result.output.clone()
        output[:, place:, 2] += respond_reference(local, matrix[None, None], at_token=at_token)[:, :, 0]
        return result._replace(output=output)

    for timing, scored in (("after_token", place + 1), ("at_token", place)):
        ((_, layer, change),) = readings(run, edits, timing)  # type: ignore[arg-type]
        assert layer == 6
        assert change.shape == (1, 2 * len(FORMS) + 1, 6)
        for add in (False, True):
            host.logits(few, Tap(after=lambda c, r, a=add, t=timing == "at_token": after(c, r, a, t)))  # type: ignore[misc]
        native, edited = (output[scored] for output in outputs[-2:])
        torch.testing.assert_close(change[0, 0], (edited - native).double().norm(dim=-1), rtol=1e-3, atol=1e-6)
        assert (change[0, -1] < 1e-2 * change[0, 0]).all()


def test_readers_of_a_host_and_by_hand(host: Host, passages: torch.Tensor) -> None:
    result = readers(host, dictionary(), passages, site=SITE, atoms=3, firings=2)
    assert sorted(result.records.reader.unique()) == [f"L6.H{h}" for h in range(6)]
    assert len(result.records) == result.n * 2 * 6 * 4
    with pytest.raises(InputError, match="no recurrent layer above"):
        readers(host, dictionary(), passages, site=Site(6, 0))
    table = pd.DataFrame({"feature": [1, 1, 1, 1], "reader": ["L6.H0", "L6.H0", "L6.H1", "L6.H1"]})
    table = table.assign(timing="at_token", native_write="delta", floor=[1e-4, 1e-4, 1.0, 1e-4])
    table = table.assign(atom=[2.0, 4.0, 1.0, 1.0], random=[1.0, 0.5, 2.0, 2.0])
    (cell,) = read.summarise({"records": table}, ReadersConfig()).cells
    assert (cell.atoms, cell.heads, cell.readings) == (1, 2, 4)
    assert (cell.strongest[0].site, cell.strongest[0].ratio) == ("L6.H0", 4.0)
    assert cell.median == (4.0 + 0.5) / 2
    assert cell.mean == pytest.approx(math.sqrt(4.0 * 0.5))
    assert math.isnan(cell.interval.low)  # one atom
    assert cell.above == 0.5  # the median floor of L6.H1 is half of its smaller reading
    assert cell.above_median == 4.0
    silent = read.summarise({"records": table.assign(random=0.0)}, ReadersConfig()).cells[0]
    assert np.isnan(silent.median)
