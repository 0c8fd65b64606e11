"""Prices against measured edits on every class of host; sums; rankings; pictures; errors."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from random_hosts import ALL_HOSTS, TIME, dictionary, some_text, tiny_host
from writesae.attribution import (
    Logit,
    LogitDifference,
    LogProbability,
    TextLoss,
    ablate_atoms,
    ablate_heads,
    ablate_writes,
    atom_map,
    attribute,
    check_plot,
    small_edits,
    write_page,
)
from writesae.causal.targets import Target, describe_target
from writesae.edits import AddMatrix, At, Edit, ScaleFeatures, editing
from writesae.errors import InputError
from writesae.hosts import Host
from writesae.recurrence import adjoint_reference
from writesae.types import Site, Timing

PAIRS = 500


@pytest.fixture(params=ALL_HOSTS)
def any_host(request: pytest.FixtureRequest) -> Host:
    return tiny_host(str(request.param))


@pytest.fixture
def tiny() -> Host:
    return tiny_host("qwen3_5")


@pytest.mark.parametrize("timing", ["at_token", "after_token"])
def test_prices_correlate_with_measured_small_edits(any_host: Host, timing: Timing) -> None:
    site, text = Site(next(iter(any_host.layers)), 1), some_text()
    best = int(any_host.logits(text[None], keep=1)[0, -1].argmax())
    found = attribute(
        any_host, text, Logit((best,)), {site: dictionary(any_host, site, features=101, k=5)}, timing=timing
    )
    generator = torch.Generator().manual_seed(1)
    atom = torch.randint(0, 101, (PAIRS,), generator=generator)
    position = torch.randint(0, TIME, (PAIRS,), generator=generator)
    stream = any_host.record(text[None], [site.layer])[site.layer].heads(1)
    native = (stream.key.norm(dim=-1) * stream.value.norm(dim=-1)).median()
    compared = small_edits(found, site, atom, position, size=0.004 * float(native))
    assert compared.correlation >= 0.99
    assert compared.r2 >= 0.98


def test_the_sum_of_all_native_writes_is_the_heads_effect(any_host: Host) -> None:
    """Outputs are linear in the native values, so their effects add up to sum_t g_t . o_t, exactly."""
    found = attribute(any_host, some_text(), LogProbability(5))
    for layer, writes in found.writes.items():
        assert torch.allclose(writes.sum(0), found.heads[layer], rtol=1e-3, atol=1e-5)
    whole = sum(float(x.sum()) for x in found.writes.values())
    assert sum(found.layers.values()) == pytest.approx(whole, rel=1e-3, abs=1e-4)


def test_a_write_s_effect_is_its_contraction_with_the_dense_adjoint(tiny: Host) -> None:
    from writesae.causal.gradients import output_gradients
    from writesae.recurrence import delta_values

    text, target = some_text(), LogitDifference(5, 9)
    grads = output_gradients(tiny, text[None], target, [0])
    stream = grads.streams[0]
    for timing in ("at_token", "after_token"):
        dense = adjoint_reference(stream, grads.grads[0], timing == "at_token")[0]
        for form, side in (("value", stream.value), ("delta", delta_values(stream)[0])):
            expected = torch.einsum("thk,thkv,thv->th", stream.key[0], dense, side[0])
            got = attribute(tiny, text, target, layers=[0], timing=timing, form=form).writes[0]  # type: ignore[arg-type]
            assert torch.allclose(got, expected, rtol=1e-4, atol=1e-7)


def test_measured_edits_are_those_of_the_editing_engine(tiny: Host) -> None:
    from writesae.attribution import edited_scores

    site, text, target = Site(0, 3), some_text(), Logit((7,))
    key, value = torch.randn(5, generator=torch.Generator().manual_seed(2)), torch.ones(7)
    for timing in ("at_token", "after_token"):
        args = (torch.tensor([3]), torch.tensor([4]), key[None], value[None], timing)
        got = edited_scores(tiny, text, target, 0, *args)  # type: ignore[arg-type]
        edit = Edit(site, AddMatrix(torch.outer(key, value)), At((4,)), timing)
        with torch.no_grad(), editing(tiny, [edit]):
            expected = tiny.run(text[None])[0, -1, 7]
        assert float(got) == pytest.approx(float(expected), rel=1e-5)
        assert float(expected) != pytest.approx(float(tiny.logits(text[None])[0, -1, 7]), rel=1e-3)


@pytest.mark.parametrize("seed", [None, 1])
def test_taking_an_atom_out_is_suppressing_it(tiny: Host, seed: int | None) -> None:
    """Each measured effect against the editing engine, for dictionaries of two heads in two layers."""
    text, target = some_text(), Logit((7,))
    saes = {site: dictionary(tiny, site, features=101, k=5) for site in (Site(0, 3), Site(1, 2))}
    found = attribute(tiny, text, target, saes)
    compared = ablate_atoms(found, 9, seed)
    native = float(tiny.logits(text[None])[0, -1, 7])
    assert len({item.split()[0] for item in compared.items}) == (2 if seed else 1)  # the largest are all in layer 0
    for item, predicted, measured in zip(compared.items, compared.predicted, compared.measured, strict=True):
        site, feature, place = re.fullmatch(r"(\S+) atom (\d+) at (\d+)", item).groups()  # type: ignore[union-attr]
        where, i, t = Site.parse(site), int(feature), int(place)
        assert predicted == pytest.approx(float(found.atoms[where].effect[t, i]))
        edit = Edit(where, ScaleFeatures(saes[where], (i,), 0.0), At((t,)), "at_token")
        with torch.no_grad(), editing(tiny, [edit]):
            erased = float(tiny.run(text[None])[0, -1, 7])
        assert measured == pytest.approx(native - erased, rel=1e-3, abs=1e-6)
    with pytest.raises(InputError, match="no dictionary was priced"):
        ablate_atoms(attribute(tiny, text, target))


@pytest.mark.parametrize("target", [Logit((5, 6), position=3), LogitDifference(5, 6), LogProbability(4), TextLoss()])
def test_every_kind_of_target(tiny: Host, target: Target) -> None:
    """Against measured small edits; positions after the target's cannot matter."""
    site = Site(1, 4)
    found = attribute(tiny, some_text(), target, {site: dictionary(tiny, site, features=101, k=5)})
    atom, position = torch.arange(60), torch.arange(60) % TIME
    assert small_edits(found, site, atom, position, size=0.001).correlation >= 0.99
    if isinstance(target, Logit):
        assert all(float(x[4:].abs().max()) == 0 for x in found.writes.values())


def test_the_embedded_host_is_explained(host: Host, passages: torch.Tensor, tmp_path: Path) -> None:
    site, text = Site(5, 0), passages[0]
    best = int(host.logits(text[None], keep=1)[0, -1].argmax())
    sae = dictionary(host, site, features=101, k=5)
    found = attribute(host, text, LogProbability(best), {site: sae})
    top, atoms = found.top_writes(5), found.top_atoms(5)
    assert abs(top[0].effect) == pytest.approx(max(float(x.abs().max()) for x in found.writes.values()))
    assert [abs(c.effect) for c in top] == sorted((abs(c.effect) for c in top), reverse=True)
    assert top[0].text == host.text([int(text[top[0].position])])
    assert None not in (atoms[0].feature, atoms[0].coefficient)
    assert ablate_writes(found, 30).correlation > 0.9
    heads = ablate_heads(found)
    assert len(heads.items) == 36 + 6
    assert np.isfinite(heads.measured).all()
    figure = atom_map(found, site, 9)
    assert np.asarray(figure.data[0].z).shape == (9, len(text))
    checks = {"atoms": ablate_atoms(found, 30), "heads": heads}
    assert checks["atoms"].correlation > 0.9
    assert [len(trace.x) for trace in check_plot(found, checks).data] == [2, 30, 2, 42]
    write_page(found, tmp_path / "page.html", checks=checks)
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert all(title in page for title in ("Atoms of L5.H0", "Native writes", "Deleted for real"))
    assert "<script src=" not in page


def test_state_and_delta_dictionaries_are_read_as_they_were_trained(tiny: Host) -> None:
    from writesae.recurrence import replay

    text, site = some_text(), Site(0, 2)
    for kind in ("state", "write-delta"):
        sae = dictionary(tiny, site, kind, features=101, k=5)
        got = attribute(tiny, text, Logit((5,)), {site: sae}, layers=[]).atoms[site].coefficient
        stream = tiny.record(text[None], [0])[0].heads(2)
        states = torch.stack([replay(stream.map(lambda x, t=t: x[:, : t + 1])).final[0, 0] for t in range(TIME)])  # type: ignore[misc]
        decayed = torch.cat([torch.zeros_like(states[:1]), states[:-1]]) * stream.log_decay[0, :, 0].exp()[..., None]
        matrices = states if kind == "state" else states - decayed
        assert torch.allclose(got, sae.encode(matrices).dense(101), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (Logit((101,)), "ids 0 to 100"),
        (Logit(()), "not all among"),
        (LogProbability(3, position=TIME), "outside a prompt of 17"),
        (LogitDifference(3, 4, position=-TIME - 1), "outside a prompt of 17"),
    ],
)
def test_bad_targets(tiny: Host, target: Target, message: str) -> None:
    with pytest.raises(InputError, match=message):
        attribute(tiny, some_text(), target)


def test_targets_in_words(host: Host, tiny: Host) -> None:
    the, a = (host.tokenizer.encode(word)[0] for word in (" the", " a"))
    assert describe_target(host, Logit((the,))) == "logit of ' the'"
    assert describe_target(host, LogProbability(a, 3)) == "log probability of ' a' at position 3"
    assert describe_target(host, LogitDifference(the, a)) == "logit of ' the' minus ' a'"
    assert describe_target(tiny, Logit((5, 6))) == "logit of token 5, token 6"
    assert describe_target(tiny, TextLoss()) == "loss of the text"


def test_other_bad_requests(tiny: Host) -> None:
    foreign = dictionary(tiny_host("kimi_linear"), Site(0, 0), features=101, k=5)
    with pytest.raises(InputError, match="another host or layer"):
        attribute(tiny, some_text(), Logit((5,)), {Site(0, 0): foreign})
    with pytest.raises(InputError, match="give one text"):
        attribute(tiny, some_text()[None], Logit((5,)))
    with pytest.raises(InputError, match="needs 2 or more"):
        attribute(tiny, some_text()[:1], TextLoss())
    found = attribute(tiny, some_text(), Logit((5,)), layers=[0])
    with pytest.raises(InputError, match="has no atoms of L0"):
        atom_map(found, Site(0, 1))
