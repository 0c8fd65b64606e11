"""`recall` as a whole on memory hosts, its parts by hand, and hosts that do not remember."""

from __future__ import annotations

import math
from dataclasses import replace
from importlib import import_module
from itertools import permutations
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from memory_hosts import binding_cells, card, memory_host
from references import delta_values_reference
from slow_protocol import joint_cache_copy_logits
from writesae.attribution import attribute
from writesae.causal.actions import Transplant, Write
from writesae.causal.closed_form import closed_form, toward
from writesae.causal.targets import LogProbability
from writesae.cli.eval import fitting
from writesae.corpus.facts import FactPassages, draw_facts, vocabulary
from writesae.errors import InputError
from writesae.evals import recall
from writesae.evals.common.stats import Interval, Share
from writesae.evals.recall.changed import Cell, answered, changed, written_form
from writesae.evals.recall.changes import changes
from writesae.evals.recall.elsewhere import exchanged, installed, writes_at
from writesae.evals.recall.figures import typical
from writesae.evals.recall.located import binding, cells_of, deleted, groups_of, located
from writesae.evals.recall.measure import DRAWN, FOUND_ON
from writesae.evals.recall.prices import log_odds, prices, ranked
from writesae.evals.recall.recovery import bound
from writesae.evals.recall.sufficient import AllInstead, AtomInstead
from writesae.evals.recall.summary import Cost, _costs, chance
from writesae.hosts import Host
from writesae.page.shares import _of_facts
from writesae.recurrence import replay_reference
from writesae.sae import SAE, Flat, Record, SAEConfig, TopK
from writesae.types import Site, Target

SMALL = {
    "facts": 5, "counts": (2, 7), "gap": 3, "found_on": 2, "reach": 6, "pairs_on": 5, "baselines": ("random",),
    "names": 11, "things": 13,
}  # fmt: skip


@pytest.fixture(scope="module")
def memory() -> Host:
    return memory_host("memory-gdn")


@pytest.fixture(scope="module")
def cell() -> Cell:
    (found,) = binding_cells("memory-gdn")
    return found


@pytest.fixture(scope="module")
def told(memory: Host) -> FactPassages:
    return draw_facts(vocabulary(memory.tokenizer).first(17, 19), 3, 5, (11, 29))


def exact_sae(memory: Host, cell: Cell, target: Target = "state", flat: bool = False) -> SAE:
    """A dictionary whose atoms are the mean writes of the 11 x 13 pairs that `SMALL` plays with."""
    words = vocabulary(memory.tokenizer, card("memory-gdn")["pattern"]).first(11, 13)
    held = bound(memory, draw_facts(words, 150, 5, 31), cell)
    matrices = held.key[:, :, None] * held.value[:, None, :]
    pairs, which = np.unique(np.stack([held.name, held.thing]), axis=1, return_inverse=True)
    mean = torch.zeros(pairs.shape[1], 32, 32).index_add_(0, torch.from_numpy(which), matrices)
    u, _, vh = torch.linalg.svd(mean)
    decoder = {"decoder": Flat()} if flat else {}
    sae = SAE(SAEConfig(32, 32, len(mean), sparsity=TopK(3), target=target, **decoder))  # type: ignore[arg-type]
    with torch.no_grad():
        for part, side in (("v", u[:, :, 0]), ("w", vh[:, 0])):
            getattr(sae, f"{part}_enc")[:, 0] = side
            if not flat:
                getattr(sae, f"{part}_dec")[:, 0] = side
        if flat:
            sae.dec[:] = u[:, :, :1] * vh[:, :1]
    sae.record = Record("memory-gdn", None, cell.site)
    return sae


def test_a_host_with_true_atoms(memory: Host, cell: Cell, passages: torch.Tensor) -> None:
    result = recall(memory, exact_sae(memory, cell), passages[:5], **SMALL)  # type: ignore[arg-type]
    found = result.summary
    assert found.native.value == 1
    assert [(one.facts, one.right.n) for one in found.recalled] == [(2, 10), (5, 25), (7, 35)]
    assert found.cells == (str(cell),)
    gone, increment, state = (
        found.cost("delete"), found.cost("atom", reading="increment"), found.cost("atom", reading="state")
    )  # fmt: skip
    assert gone is not None
    assert increment is not None
    assert state is not None
    assert gone.right.value <= 0.1
    assert gone.lost > 7
    assert gone.others_right > 0.95
    assert increment.right.value >= 0.9
    assert increment.back > 0.9
    assert state.right.value < increment.right.value
    for name, right in (("random", 0.1), ("attention", 0.1)):
        cost = found.cost(name)
        assert cost is not None
        assert cost.right.value <= right
    other = found.cost("other")
    assert other is not None
    assert other.right.value > 0.95
    assert other.right.n == 3 * 25  # the three other heads, one at a time
    moved = {one.kind: one.right.value for one in found.moved}
    assert moved["exchanged"] > 0.9
    assert moved["installed"] > 0.9
    assert moved["without"] < 0.2
    ranks = {one.how: one for one in found.ranked}
    assert ranks["exact"].first.value > 0.6
    assert ranks["exact"].reciprocal > ranks["exact"].chance_reciprocal
    own, random = found.recovered
    assert (own.dictionary, random.dictionary) == ("states", "random")
    assert own.matched.value > 0.9
    assert random.best.value == 0
    spot = max((spot for spot in found.spots if spot.head >= 0), key=lambda spot: spot.lost)
    assert (spot.name, spot.offset, spot.token) == (str(cell.site), 3, "thing")
    assert f"held by {cell}" in result.finding
    said = result.more["said"]
    assert (said.condition == "native").sum() == 5
    assert said[(said.condition == "delete") & (said.fact == 2)].asked.tolist() == [0, 1, 2, 3, 4]


def test_states_and_writes_side_by_side_are_as_each_alone(memory: Host, cell: Cell, passages: torch.Tensor) -> None:
    """Dictionaries of writes have one reading, and flat ones are cut."""
    options: dict[str, Any] = SMALL | {"cells": (str(cell),), "tried": 1, "counts": (5,), "reach": 1}
    options |= {"readings": "increment", "baselines": ()}
    states, writes = exact_sae(memory, cell, flat=True), exact_sae(memory, cell, "write-delta")
    both, alone = (
        recall(memory, [states, writes], passages[:2], **options),
        recall(memory, writes, passages[:2], **options),
    )
    for how in ({"dictionary": "states", "reading": "increment"}, {"dictionary": "writes", "reading": "write"}):
        atom = both.summary.cost("atom", **how)
        assert atom is not None
        assert atom.right.value == 1
    cut = both.summary.cost("flat_svd", dictionary="states")
    assert cut is not None
    assert cut.right.value == 1
    assert both.summary.cost("flat_svd", dictionary="writes") is None
    for name in ("records", "said", "recovery"):
        mine = both.tables[name][both.tables[name].dictionary == "writes"].reset_index(drop=True)
        others = alone.tables[name][alone.tables[name].dictionary == "writes"].reset_index(drop=True)
        pd.testing.assert_frame_equal(mine, others)
    assert [one.dictionary for one in both.summary.recovered] == ["states", "writes"]
    with pytest.raises(InputError, match=r"two dictionaries of writes of L1\.H1 were given: give one"):
        recall(memory, [writes, writes], passages[:2], **options)


def test_the_share_of_the_state_is_drawn_beside_other_tests(memory: Host, cell: Cell, passages: torch.Tensor) -> None:
    options: dict[str, Any] = SMALL | {"cells": (str(cell),), "tried": 1, "counts": (5,), "reach": 1, "baselines": ()}
    result = recall(memory, exact_sae(memory, cell), passages[:2], **options)
    told = draw_facts(vocabulary(memory.tokenizer).first(11, 13), 2, 5, (DRAWN, 0, FOUND_ON, 5))
    stream = memory.record(torch.from_numpy(told.tokens), [1])[1].heads(1)
    at = torch.arange(2)[:, None], torch.from_numpy(told.begin) + 3
    norms = (x[:, :, 0].norm(dim=-1) for x in (stream.key, delta_values_reference(stream)))
    states = replay_reference(stream).states[:, :, 0].flatten(2).norm(dim=-1)
    share = float((math.prod(x[at] for x in norms) / states[at]).median())
    assert result.shares == {"L1.H1": {"delta": pytest.approx(share, rel=1e-4)}}
    points = _of_facts(result)
    assert [(p.head, p.reading, p.share) for p in points] == [
        ("memory-gdn L1.H1+3", reading, result.shares["L1.H1"]["delta"]) for reading in ("state", "increment")
    ]
    assert points[0].wins < points[1].wins == 1


def test_without_a_dictionary_and_with_one_of_another_head(memory: Host, cell: Cell, passages: torch.Tensor) -> None:
    options = SMALL | {"cells": (str(cell),), "tried": 1, "counts": (5,), "reach": 1}
    result = recall(memory, passages[:2], **options)  # type: ignore[arg-type]
    assert result.summary.cost("atom") is None
    assert result.summary.recovered == ()
    assert len(result.panel.plots) == 4
    for bad in ("L1.H1", "L1.H1+x", "L1.H9+3"):
        with pytest.raises(InputError, match=r"such as L1\.H1\+3|heads 0 to 1"):
            recall(memory, passages[:2], **(options | {"cells": (bad,)}))  # type: ignore[arg-type]
    sae = exact_sae(memory, cell)
    sae.record = Record("memory-gdn", None, Site(2, 0))
    with pytest.raises(InputError, match=r"by L1\.H1\+3 .* no dictionary of L1\.H1 among those of states \(L2\.H0\)"):
        recall(memory, sae, passages[:2], **options)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="leave out the site"):
        recall(memory, passages[:2], site="L1.H1")


def test_a_host_that_does_not_remember_is_refused_with_its_share(host: Host, passages: torch.Tensor) -> None:
    with pytest.raises(InputError, match=r"tiny-gdn answers \d+\.\d% of 4 facts right"):
        recall(host, passages[:2], facts=4)
    with pytest.raises(InputError, match="names and"):
        recall(host, passages[:2], facts=31)


def test_writes_that_hold_a_fact_only_together_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A made-up host: a fact is lost where both of two cells of one group and one of another are gone."""
    sites = [Site(layer, head) for layer in (0, 1) for head in range(7)]
    host = type("Made", (), {"sites": sites, "layers": {}})()
    needed = {Cell(Site(0, 2), 1), Cell(Site(0, 5), 1), Cell(Site(1, 4), 3)}

    def without(_: object, __: object, cells: list[Cell], *more: object) -> pd.DataFrame:
        share = len(needed & set(cells)) / 3
        return pd.DataFrame({"lost": [9 * share**2], "right": [share < 1], "others": [0.0]})

    module = import_module("writesae.evals.recall.located")
    monkeypatch.setattr(module, "deleted", without)
    monkeypatch.setattr(module, "answered", lambda *_: None)
    table = located(host, None, [*groups_of(host, 5), *([c] for c in cells_of(host, 5))])  # type: ignore[arg-type]
    found = binding(host, None, table, 5)  # type: ignore[arg-type]
    assert set(found.cells) == needed
    assert (found.right, found.lost) == (0, 9)


def test_a_memory_of_six_heads_is_found_where_no_head_alone_costs_anything() -> None:
    name = "memory-mamba2"
    mamba, cells = memory_host(name), binding_cells(name)
    passages = draw_facts(vocabulary(mamba.tokenizer, card(name)["pattern"]), 2, 5, (11, 31))
    groups = [group for group in groups_of(mamba, 9) if group[0].offset in (2, 3, 7)]
    table = located(mamba, passages, [*groups, *([cell] for cell in cells)])
    assert table[table["head"] >= 0].lost.median() < 0.1
    found = binding(mamba, passages, table, 9)
    assert set(found.cells) <= set(cells)
    assert found.right <= 0.05
    for left in found.cells:
        fewer = deleted(mamba, passages, [cell for cell in found.cells if cell != left])
        assert fewer.right.mean() > 0.05


def test_the_exact_price_is_that_of_attribution(memory: Host, told: FactPassages) -> None:
    exact, _ = prices(memory, told)
    row, fact = 1, 3
    asked, thing = int(told.asked[row, fact]), int(told.thing[row, fact])
    tokens = torch.from_numpy(told.tokens[row, : asked + 1])
    found = attribute(memory, None, tokens.tolist(), LogProbability(thing), timing="after_token", native_write="delta")
    logits = memory.logits(tokens[None], keep=1)[:, -1]
    factor = 1 - logits.softmax(-1)[0, thing]  # of the log probability's gradient to that of the log odds
    for layer, effects in found.writes.items():
        torch.testing.assert_close(exact[layer][row, fact, : asked + 1] * factor, effects, rtol=2e-3, atol=1e-7)
        assert not exact[layer][row, fact, asked + 1 :].any()
    assert float(log_odds(logits, torch.tensor([thing]))) == pytest.approx(
        float(torch.logit(logits.double().softmax(-1)[0, thing])), rel=1e-3
    )


@pytest.mark.parametrize("timing", ["after_token", "at_token"])
def test_the_closed_price_is_the_closed_form(timing: str, memory: Host, told: FactPassages) -> None:
    _, closed = prices(memory, told, timing)  # type: ignore[arg-type]
    layer, head = 2, 1
    stream = memory.record(torch.from_numpy(told.tokens), [layer])[layer].heads(head)
    for row, fact, place in ((0, 0, 3), (2, 4, 11), (1, 1, int(told.asked[1, 1]))):
        step = int(told.asked[row, fact]) - place
        local = stream.map(lambda x, r=row, p=place: x[r : r + 1, p:])  # type: ignore[misc]
        towards = toward(memory, Site(layer, head), torch.tensor([told.thing[row, fact]]))
        update = delta_values_reference(stream)[row, place]
        expected = closed_form(local, step, stream.key[row, place], update, towards)[0, 0]
        expected = expected * (step > 0 or timing == "at_token")
        torch.testing.assert_close(closed[layer][row, fact, place, head], expected, rtol=1e-4, atol=1e-6)


def test_ranks_by_hand() -> None:
    """Two heads, five tokens, the question at the fourth: the fifth token does not count."""
    one, yes = np.array([[1]]), np.array([[True]])
    passages = FactPassages(np.zeros((1, 5), np.int64), one, one, one, one, one * 3, yes)
    price = torch.tensor([[0.0, 7], [3, 1], [-9, 2], [5, 4], [99, 99]])[None, None]
    found = ranked(passages, {4: price}, [Cell(Site(4, 0), 0)])
    assert found[["passage", "fact", "rank", "writes"]].to_numpy().tolist() == [[0, 0, 4, 8]]
    both = ranked(passages, {4: price}, [Cell(Site(4, 0), 0), Cell(Site(4, 1), 2)])
    assert both["rank"].tolist() == [3]


def test_chance_is_that_of_every_order() -> None:
    orders = list(permutations(range(5)))
    first = [1 + min(order.index(0), order.index(1)) for order in orders]
    found = chance(5, 2)
    assert found[0] == pytest.approx(np.mean([rank == 1 for rank in first]))
    assert found[1] == pytest.approx(np.mean([1 / rank for rank in first]))


def test_an_exchange_is_that_of_the_slow_protocol(memory: Host, told: FactPassages, cell: Cell) -> None:
    row, fact = 1, 2
    found = exchanged(memory, told, [cell], "after_token").set_index(["passage", "fact"])
    held = bound(memory, told, cell)
    position, index = int(told.begin[row, fact]) + cell.offset, row * 5 + fact
    tokens, matrix = torch.from_numpy(told.tokens[row]), torch.outer(held.key[index], held.value[index + 1])
    horizon = len(tokens) - position - 1
    _, (logits,) = joint_cache_copy_logits(memory, tokens, position, [{cell.site: matrix}], "after_token", horizon)
    answer = logits[int(told.asked[row, fact]) - position - 1].log_softmax(-1)
    other = int(told.thing[row, fact + 1])
    assert found.nats[row, fact] == pytest.approx(float(answer[other]), abs=2e-3)
    assert found.said[row, fact] == int(answer.argmax())
    assert found.right[row, fact] == (int(answer.argmax()) == other)
    last = found.xs(4, level="fact").said[row]  # the last fact gets the first one's value
    assert last == told.thing[row, 0]


def test_an_installed_write_is_that_of_the_slow_protocol(memory: Host, told: FactPassages, cell: Cell) -> None:
    table = installed(memory, told, [cell], "after_token")
    found = table[table.kind == "installed"].set_index(["passage", "fact"])
    row, fact = 1, 2
    new = [i for i in range(5) if told.name[row + 1, i] not in told.name[row]]
    donor = new[fact % len(new)]
    held = bound(memory, told, cell)
    own, other = row * 5 + fact, (row + 1) * 5 + donor
    matrix = torch.outer(held.key[own], held.value[own]) + torch.outer(held.key[other], held.value[other])
    tokens, position = torch.from_numpy(told.tokens[row].copy()), int(told.begin[row, fact]) + cell.offset
    asked = int(told.asked[row, fact])
    tokens[asked - 2] = int(told.name[row + 1, donor])
    horizon = len(tokens) - position - 1
    _, (logits,) = joint_cache_copy_logits(memory, tokens, position, [{cell.site: matrix}], "after_token", horizon)
    answer = logits[asked - position - 1].log_softmax(-1)
    thing = int(told.thing[row + 1, donor])
    assert found.nats[row, fact] == pytest.approx(float(answer[thing]), abs=2e-3)
    assert found.right[row, fact]
    bare = table[table.kind == "without"].set_index(["passage", "fact"])
    assert bare.said[row, fact] != thing


def test_changes_at_several_tokens_of_one_head(memory: Host, told: FactPassages, cell: Cell) -> None:
    """Each token gets its own write: with two cells of a head, putting every write back changes nothing."""
    cells = [cell, Cell(cell.site, 1)]
    held = writes_at(memory, told, cells)[cell.site]
    key, value = (x.flatten(0, 1) for x in held)
    same = changed(memory, told, cells, lambda site: Transplant(Write(key, value), written_form(memory)))
    torch.testing.assert_close(
        same.nats, answered(memory, told).nats[:, None].expand_as(same.nats), atol=1e-4, rtol=1e-4
    )
    twice = [1, 1]  # the second cell's write at both: the fact's own is gone
    other = Transplant(Write(key[:, twice], value[:, twice]), written_form(memory))
    assert (changed(memory, told, cells, lambda site: other).nats - same.nats).abs().max() > 5


def test_all_active_features_and_the_cut_of_an_atom(memory: Host, told: FactPassages, cell: Cell) -> None:
    """One active feature is the atom itself, and an atom of rank one is its own largest singular pair."""
    sae = exact_sae(memory, cell, "write-delta")
    one = SAE(replace(sae.config, sparsity=TopK(1)))
    one.load_state_dict(sae.state_dict())

    def right(what: object) -> torch.Tensor:
        return changed(memory, told, [cell], lambda site: what).nats  # type: ignore[arg-type,return-value]

    atom = right(AtomInstead(one, "write", "coefficient"))
    torch.testing.assert_close(right(AllInstead(one, "write")), atom)
    torch.testing.assert_close(
        right(AtomInstead(one, "write", "coefficient", rank_one=True)), atom, rtol=1e-3, atol=1e-3
    )
    assert not torch.allclose(right(AllInstead(sae, "write")), atom)


def test_the_nearest_atom_is_not_one_that_points_the_other_way(memory: Host, told: FactPassages, cell: Cell) -> None:
    """Beside an atom of cosine 0.99 to every write of its pair stands that write turned round, exactly."""
    words = vocabulary(memory.tokenizer, card("memory-gdn")["pattern"]).first(11, 13)
    mine, sae = draw_facts(words, 2, 5, 37), exact_sae(memory, cell)
    held = bound(memory, mine, cell)
    sae = SAE(replace(sae.config, features=len(held.key) + sae.config.features))
    with torch.no_grad():
        whole = exact_sae(memory, cell)
        sae.v_dec[:, 0] = torch.cat([-held.key, whole.v_dec[:, 0]])
        sae.w_dec[:, 0] = torch.cat([held.value, whole.w_dec[:, 0]])
    for size in ("norm", "projection"):
        found = changed(memory, mine, [cell], lambda site, size=size: AtomInstead(sae, "cosine", size))  # type: ignore[misc]
        own = torch.arange(5)
        assert (found.said[:, own, own] == torch.from_numpy(mine.thing)).all()


def test_controls_are_as_many_writes_of_the_same_tokens(memory: Host, cell: Cell) -> None:
    config = recall.config()
    made = changes(memory, {}, [cell, Cell(Site(1, 0), 3)], config, 4, 0)
    others = [change.cells for change in made if change.condition == "other"]
    assert [sorted(map(str, some)) for some in others] == [["L2.H0+3", "L2.H1+3"]]
    assert [len(change.cells) for change in made if change.condition == "attention"] == [16]
    assert {change.condition for change in made} == {"delete", "attention", "other", "random"}


def test_the_example_goes_as_most_facts_do() -> None:
    bounds = Interval(0, 1)
    share = {"delete": 0.1, "random": 0.9}
    costs = tuple(
        Cost(name, "", "", "", Share(value, 9, bounds, None), 1.0, bounds, 0.5, bounds, None, 0.0, 1.0)
        for name, value in share.items()
    )
    rows = [("delete", 0, True), ("random", 0, True), ("delete", 1, False), ("random", 1, False)]
    rows += [("delete", 2, False), ("random", 2, True)]
    columns = ["condition", "dictionary", "reading", "amplitude", "fact", "asked", "right"]
    said = pd.DataFrame([(c, "", "", "", f, f, r) for c, f, r in rows], columns=columns)
    assert typical(said, costs) == 2
    assert typical(said[said.fact < 2], costs) == 0


def test_what_comes_back_is_a_share_of_what_deletion_costs() -> None:
    """Two passages: deletion costs 8 + 4 and 6 nats, the atom 2 + 1 and 0."""
    rows = {"delete": [8.0, 4.0, 6.0], "atom": [2.0, 1.0, 0.0]}
    tables = [
        pd.DataFrame({
            "condition": name, "dictionary": "", "reading": "", "amplitude": "", "passage": [0, 0, 1],
            "fact": [0, 1, 0], "lost": lost,
            "right": [x < 2 for x in lost], "others": 0.5, "others_right": 1.0,
        })
        for name, lost in rows.items()
    ]  # fmt: skip
    gone, atom = _costs(pd.concat(tables), 0)
    assert (gone.lost, gone.right.value, np.isnan(gone.back)) == (6.0, 0.0, True)
    assert atom.back == pytest.approx(1 - 3 / 18)
    assert atom.back_interval == pytest.approx((0.75, 1.0))  # a passage alone: 9 / 12, and all
    assert atom.right.value == pytest.approx(2 / 3)
    assert atom.quartiles == (0.5, 1.5)
    assert gone.wins is None
    assert atom.wins is not None
    assert atom.wins.value == 1


def test_the_command_takes_it_with_and_without_dictionaries(memory: Host, cell: Cell) -> None:
    sae = exact_sae(memory, cell)
    assert list(fitting([recall], [], ())) == [("recall", [[]])]
    assert list(fitting([recall], [sae], ())) == [("recall", [[sae]])]
    assert list(fitting([recall], [sae, sae], ())) == [("recall", [[sae], [sae]])]
    writes = exact_sae(memory, cell, "write-delta")
    assert list(fitting([recall], [sae, writes], ())) == [("recall", [[sae, writes]])]
