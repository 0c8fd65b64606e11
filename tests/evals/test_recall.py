"""Facts deleted: where a host keeps them, against the slow protocol and by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from memory_hosts import HERE, binding_cells, card, memory_host
from references import delta_values_reference
from slow_protocol import joint_cache_copy_logits
from writesae.causal.actions import Action, AddMatrix
from writesae.corpus.facts import FactPassages, draw_facts, vocabulary
from writesae.errors import ConfigError, InputError
from writesae.evals.recall import RecallConfig
from writesae.evals.recall.changed import Answers, Cell, answered, changed, deletion, written_form
from writesae.evals.recall.located import binding, cells_of, costs, deleted, groups_of, located
from writesae.evals.recall.sufficient import AtomInstead, RandomInstead
from writesae.evals.recall.summary import ALL
from writesae.hosts import Host
from writesae.sae import SAE, SAEConfig, TopK
from writesae.types import Site, Timing

BATCH, FACTS = 3, 5


@pytest.fixture(scope="module")
def memory() -> Host:
    return memory_host("memory-gdn")


@pytest.fixture(scope="module")
def passages(memory: Host) -> FactPassages:
    return draw_facts(vocabulary(memory.tokenizer), BATCH, FACTS, (11, 13))


@pytest.fixture(scope="module")
def mapped(memory: Host, passages: FactPassages) -> pd.DataFrame:
    return located(memory, passages, [*groups_of(memory, 6), *([cell] for cell in cells_of(memory, 6))])


@pytest.fixture(scope="module")
def best(mapped: pd.DataFrame) -> Cell:
    """The cell whose deletion costs a fact most."""
    costly = medians(mapped).sort_values("lost").iloc[-1]
    return Cell(Site(int(costly.layer), int(costly["head"])), int(costly.offset))


def medians(mapped: pd.DataFrame) -> pd.DataFrame:
    single = mapped[mapped["head"] != ALL]
    return single.groupby(["layer", "head", "offset"], as_index=False)[["lost", "others"]].median()


def test_the_host_knows_every_fact(memory: Host, passages: FactPassages) -> None:
    answers = answered(memory, passages)
    assert answers.nats.shape == (BATCH, FACTS)
    assert np.array_equal(answers.said, passages.thing)


@pytest.mark.parametrize("timing", ["after_token", "at_token"])
@pytest.mark.parametrize("name", HERE)
def test_a_deletion_is_that_of_the_slow_protocol(name: str, timing: Timing) -> None:
    """A copied cache edited by hand, for one fact: all writes that hold it, so that the answers move. Every family."""
    host, cells, row, fact = memory_host(name), binding_cells(name), 1, 2
    passages = draw_facts(vocabulary(host.tokenizer, card(name)["pattern"]), BATCH, FACTS, (11, 13))
    found = changed(host, passages, cells, deletion(host), timing)
    position = int(passages.begin[row, fact]) + cells[0].offset
    assert {cell.offset for cell in cells} == {cells[0].offset}
    tokens, nothing = torch.from_numpy(passages.tokens[row]), torch.zeros(32, 32)
    gone = {cell.site: nothing for cell in cells}
    horizon = len(tokens) - position - 1
    _, (logits,) = joint_cache_copy_logits(host, tokens, position, [gone], timing, horizon, written_form(host))
    scored = position if timing == "at_token" else position + 1
    asked = torch.from_numpy(passages.asked[row]) - scored
    expected = logits.log_softmax(-1)[asked, torch.from_numpy(passages.thing[row])]
    torch.testing.assert_close(found.nats[row, fact], expected, rtol=1e-3, atol=1e-3)
    assert (found.nats[row, fact] - answered(host, passages).nats[row]).abs().max() > 0.5


def test_nothing_added_costs_nothing(memory: Host, passages: FactPassages) -> None:
    cells = [Cell(Site(1, 0), 3), Cell(Site(1, 1), 3), Cell(Site(2, 0), 0)]
    same = changed(memory, passages, cells, lambda site: AddMatrix(torch.zeros(32, 32)))
    torch.testing.assert_close(same.nats, answered(memory, passages).nats[:, None].expand_as(same.nats))


def test_costs_by_hand() -> None:
    """Two passages of two facts, the first told twice in the second passage: three facts stand."""
    zero = np.zeros((2, 2), np.int64)
    stands = np.array([[True, True], [False, True]])
    passages = FactPassages(zero, zero, np.array([[4, 5], [6, 7]]), zero, zero, zero, stands)
    before = Answers(torch.zeros(2, 2), torch.from_numpy(passages.thing))
    nats = torch.tensor([[[-3.0, -1.0], [0.0, -8.0]], [[-9.0, -9.0], [-9.0, -2.0]]])
    said = torch.tensor([[[9, 5], [4, 5]], [[9, 9], [9, 9]]])
    found = costs(passages, before, Answers(nats, said))
    assert found.lost.tolist() == [3.0, 8.0, 2.0]
    assert found.right.tolist() == [False, True, False]
    assert found.others.tolist()[:2] == [1.0, 0.0]
    assert found.others_right.tolist()[:2] == [1.0, 1.0]
    assert np.isnan(found.others[2])  # no other fact stands there
    assert found.neighbours.tolist()[:2] == [1.0, 0.0]
    assert found.said.tolist() == [9, 5, 9]


def test_neighbours_are_the_facts_told_just_before_and_after() -> None:
    zero = np.zeros((1, 4), np.int64)
    passages = FactPassages(zero, zero, zero + 7, zero, zero, zero, np.ones((1, 4), bool))
    before, after = torch.zeros(1, 4), -torch.tensor([[0.0, 1, 2, 4]]).expand(1, 4, 4)
    said = torch.full((1, 4, 4), 7)
    found = costs(passages, Answers(before, said[:, 0]), Answers(after, said))
    assert found.lost.tolist() == [0, 1, 2, 4]
    assert found.neighbours.tolist() == [1, 1, 2.5, 2]
    assert found.others.tolist() == pytest.approx([7 / 3, 2, 5 / 3, 1])


def test_the_map_finds_the_one_write_that_holds_a_fact(mapped: pd.DataFrame) -> None:
    """memory-gdn binds in one head at the thing's token; its other heads and tokens hold nothing of a fact."""
    table = medians(mapped).sort_values("lost")
    assert len(table) == 4 * 6
    assert len(mapped) == (4 + 2) * 6 * BATCH * FACTS
    whole = mapped[mapped["head"] == ALL].groupby(["layer", "offset"]).lost.median()
    assert whole.idxmax() == (table.layer.iloc[-1], 3)
    assert whole.max() > 5
    assert table.offset.iloc[-1] == 3
    assert table.lost.iloc[-1] > 5
    assert table.lost.iloc[:-1].max() < 0.1
    assert table.others.abs().max() < 0.05


def test_the_binding_writes_are_found_on_some_passages_and_hold_on_others(
    memory: Host, passages: FactPassages, mapped: pd.DataFrame, best: Cell
) -> None:
    held = binding(memory, passages, mapped, 6)
    assert held.cells == (best,)
    assert held.right <= 0.05
    other = deleted(memory, draw_facts(vocabulary(memory.tokenizer), 7, 8, (11, 17)), held.cells)
    assert other.lost.median() > 7
    assert other.right.mean() <= 0.05
    assert other.others_right.mean() > 0.95


def dictionary(memory: Host, passages: FactPassages, cell: Cell, strength: float = 1.0) -> SAE:
    """States' dictionary whose atoms are the writes of the passages' own facts, scaled, and as many random ones."""
    stream = memory.record(torch.from_numpy(passages.tokens), [cell.site.layer])[cell.site.layer].heads(cell.site.head)
    update = delta_values_reference(stream)
    rows = torch.arange(len(passages))[:, None]
    at = torch.from_numpy(passages.begin) + cell.offset
    key, value = (x[rows, at, 0].flatten(0, 1) for x in (stream.key, update))
    sae = SAE(SAEConfig(32, 32, 2 * len(key), sparsity=TopK(4)), torch.Generator().manual_seed(1))
    with torch.no_grad():
        for name, x in (("v", key), ("w", value)):
            unit = torch.nn.functional.normalize(x, dim=-1)[:, None]
            for side in ("dec", "enc"):
                getattr(sae, f"{name}_{side}")[: len(key)] = unit
        sae.v_enc[: len(key)] *= strength
    return sae


def test_true_atoms_bring_facts_back_and_random_matrices_do_not(
    memory: Host, passages: FactPassages, best: Cell
) -> None:
    sae, before = dictionary(memory, passages, best), answered(memory, passages)
    gone = deleted(memory, passages, [best], before=before)

    def back(what: Action) -> pd.DataFrame:
        table = costs(passages, before, changed(memory, passages, [best], lambda site: what))
        return table.assign(back=1 - table.lost / gone.lost)

    for amount in ("coefficient", "norm", "projection"):
        found = back(AtomInstead(sae, "increment", amount))
        assert found.right.all()
        assert found.back.min() > 0.99
    assert back(AtomInstead(sae, "cosine", "projection")).back.min() > 0.99
    twice = AtomInstead(dictionary(memory, passages, best, 2.0), "increment", "projection")
    assert back(twice).back.min() > 0.99  # the amount is of the write, not of the encoder
    assert back(AtomInstead(sae, "state")).right.mean() < 0.9  # the state holds older facts, too
    random = back(RandomInstead())
    assert random.right.mean() <= 0.2
    assert abs(random.back.median()) < 0.5
    assert random.equals(back(RandomInstead()))
    with pytest.raises(InputError, match="no coefficient"):
        AtomInstead(sae, "cosine")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"least": 2.0}, "least 2.0 is too large: give at most 1"),
        ({"facts": 12, "names": 11}, "12 facts a passage need as many names, not 11"),
        ({"facts": 12, "things": 5}, "12 facts a passage need as many things, not 5"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        RecallConfig(**options)


def test_cells_outside_are_refused(memory: Host, passages: FactPassages) -> None:
    for cells in ([], [Cell(Site(1, 0), -1)], [Cell(Site(1, 0), 999)]):
        with pytest.raises(InputError, match="not all inside the passages"):
            changed(memory, passages, cells, deletion(memory))
