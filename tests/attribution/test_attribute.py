"""Prices against measured edits on every class of host; sums; rankings; pictures; errors."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import get_args

import numpy as np
import pytest
import torch

from random_hosts import ALL_HOSTS, TIME, dictionary, some_text, tiny_host
from writesae.attribution import (
    Attribution,
    Compared,
    Logit,
    LogitDifference,
    LogProbability,
    TextLoss,
    ablate_atoms,
    ablate_heads,
    ablate_layers,
    ablate_writes,
    atom_map,
    attribute,
    attribution_page,
    check_plot,
    codes,
    edited_scores,
    verdict,
    write_map,
)
from writesae.attribution.verdict import failed
from writesae.causal.targets import Target, describe_target
from writesae.edits import AddMatrix, At, ChangeFeatures, Edit, editing
from writesae.errors import InputError
from writesae.hosts import Host
from writesae.hosts.output import head_columns, unembedding
from writesae.recurrence import adjoint_reference, delta_values, replay, replay_reference
from writesae.sae import SAE, Flat, Linear, Record, SAEConfig, TopK
from writesae.types import NativeWrite, Reading, Site, Timing
from writesae.types import Target as DictionaryTarget

PAIRS = 500


@pytest.fixture(params=ALL_HOSTS)
def any_host(request: pytest.FixtureRequest) -> Host:
    return tiny_host(str(request.param))


@pytest.fixture
def tiny() -> Host:
    return tiny_host("qwen3_5")


def small_edits(found: Attribution, site: Site, atom: torch.Tensor, position: torch.Tensor, size: float) -> Compared:
    """Prices of (atom, position) pairs, `[R]` each, against central differences of edits of Frobenius norm `size`.

    Both are the target's change a unit of Frobenius norm.
    """
    atoms = found.atoms[site]
    atom, position = atom.to(atoms.v.device), position.to(atoms.v.device)
    norm = atoms.v[atom].norm(dim=-1) * atoms.w[atom].norm(dim=-1)
    key, value, sites = atoms.v[atom] / norm[:, None] * size, atoms.w[atom], [site] * len(atom)
    up, down = (
        edited_scores(found.host, found.tokens, found.target, sites, position, sign * key, value, found.timing)
        for sign in (1, -1)
    )
    items = tuple(f"atom {a} at {p}" for a, p in zip(atom.tolist(), position.tolist(), strict=True))
    return Compared(
        items, (atoms.price[position, atom] / norm).double().numpy(), ((up.double() - down) / (2 * size)).numpy()
    )


@pytest.mark.parametrize("timing", ["at_token", "after_token"])
def test_prices_correlate_with_measured_small_edits(any_host: Host, timing: Timing) -> None:
    site, text = Site(next(iter(any_host.layers)), 1), some_text()
    best = int(any_host.logits(text[None], keep=1)[0, -1].argmax())
    found = attribute(
        any_host, {site: dictionary(any_host, site, features=101, k=5)}, text, Logit((best,)), timing=timing
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
    found = attribute(any_host, None, some_text(), LogProbability(5))
    for layer, writes in found.writes.items():
        assert torch.allclose(writes.sum(0), found.heads[layer], rtol=1e-3, atol=1e-5)
    whole = sum(float(x.sum()) for x in found.writes.values())
    assert sum(found.layers.values()) == pytest.approx(whole, rel=1e-3, abs=1e-4)


def test_a_write_s_effect_is_its_contraction_with_the_dense_adjoint(tiny: Host) -> None:
    from writesae.causal.gradients import output_gradients

    text, target = some_text(), LogitDifference(5, 9)
    grads = output_gradients(tiny, text[None], target, [0])
    stream = grads.streams[0]
    for timing in ("at_token", "after_token"):
        dense = adjoint_reference(stream, grads.grads[0], timing == "at_token")[0]
        for form, side in (("value", stream.value), ("delta", delta_values(stream)[0])):
            expected = torch.einsum("thk,thkv,thv->th", stream.key[0], dense, side[0])
            got = attribute(tiny, None, text, target, layers=[0], timing=timing, native_write=form).writes[0]  # type: ignore[arg-type]
            assert torch.allclose(got, expected, rtol=1e-4, atol=1e-7)


def test_measured_edits_are_those_of_the_editing_engine(tiny: Host) -> None:

    site, text, target = Site(0, 3), some_text(), Logit((7,))
    key, value = torch.randn(5, generator=torch.Generator().manual_seed(2)), torch.ones(7)
    for timing in ("at_token", "after_token"):
        args = (torch.tensor([4]), key[None], value[None], timing)
        got = edited_scores(tiny, text, target, [site], *args)  # type: ignore[arg-type]
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
    found = attribute(tiny, saes, text, target)
    compared = ablate_atoms(found, 9, seed)
    native = float(tiny.logits(text[None])[0, -1, 7])
    assert len({item.split()[0] for item in compared.items}) == (2 if seed else 1)  # the largest are all in layer 0
    for item, predicted, measured in zip(compared.items, compared.predicted, compared.measured, strict=True):
        site, feature, place = re.fullmatch(r"(\S+) atom (\d+) at (\d+)", item).groups()  # type: ignore[union-attr]
        where, i, t = Site.parse(site), int(feature), int(place)
        assert predicted == pytest.approx(float(found.atoms[where].effect[t, i]))
        edit = Edit(where, ChangeFeatures(saes[where], (i,), 0.0), At((t,)), "at_token")
        with torch.no_grad(), editing(tiny, [edit]):
            erased = float(tiny.run(text[None])[0, -1, 7])
        assert measured == pytest.approx(native - erased, rel=1e-3, abs=1e-6)
    with pytest.raises(InputError, match="no dictionary was priced"):
        ablate_atoms(attribute(tiny, None, text, target))


@pytest.mark.parametrize("target", [Logit((5, 6), position=3), LogitDifference(5, 6), LogProbability(4), TextLoss()])
def test_every_kind_of_target(tiny: Host, target: Target) -> None:
    """Against measured small edits; positions after the target's cannot matter."""
    site = Site(1, 4)
    found = attribute(tiny, {site: dictionary(tiny, site, features=101, k=5)}, some_text(), target)
    atom, position = torch.arange(60), torch.arange(60) % TIME
    assert small_edits(found, site, atom, position, size=0.001).correlation >= 0.99
    if isinstance(target, Logit):
        assert all(float(x[4:].abs().max()) == 0 for x in found.writes.values())


def test_the_embedded_host_is_explained(host: Host, passages: torch.Tensor) -> None:
    site, text = Site(5, 0), passages[0]
    best = int(host.logits(text[None], keep=1)[0, -1].argmax())
    sae = dictionary(host, site, features=101, k=5)
    found = attribute(host, {site: sae}, text, LogProbability(best))
    top, atoms = found.top_writes(5), found.top_atoms(5)
    assert abs(top[0].effect) == pytest.approx(max(float(x.abs().max()) for x in found.writes.values()))
    assert [abs(c.effect) for c in top] == sorted((abs(c.effect) for c in top), reverse=True)
    assert top[0].text == host.text([int(text[top[0].position])])
    assert None not in (atoms[0].feature, atoms[0].coefficient)
    assert ablate_writes(found, 30).correlation > 0.9
    heads = ablate_heads(found)
    layers = ablate_layers(found)  # apart: the heads' effects would count twice
    assert (len(heads.items), len(layers.items)) == (36, 6)
    assert heads.predicted.sum() == pytest.approx(layers.predicted.sum(), rel=1e-4)
    assert np.isfinite(heads.measured).all()
    figure = atom_map(found, site, 9).figure
    assert np.asarray(figure.data[0].z).shape == (9, len(text))
    assert figure.data[0].zmin == -figure.data[0].zmax
    checks = {"atoms": ablate_atoms(found, 30), "heads": heads}
    assert checks["atoms"].correlation > 0.9
    assert [len(check_plot(name, c).figure.data[-1].x) for name, c in checks.items()] == [30, 36]
    assert set(found.plot()) == {"atoms-5-0", "writes"}
    page = attribution_page(found, checks=checks)
    assert all(title in page for title in ("Atoms of L5.H0", "Native writes", "Deleted for real: atoms"))
    assert "<script src=" not in page
    assert "var(--atom)" in str(check_plot("heads", heads).figure)  # the page's colours, and no template of its own
    assert len(write_map(found, 5).figure.data[0].z) == 6


def compared(predicted: list[float], measured: list[float]) -> Compared:
    return Compared(tuple(map(str, predicted)), np.array(predicted), np.array(measured))


def test_a_check_says_whether_prices_held() -> None:
    prices = [1.0, -2.0, 3.0, -4.0, 5.0, 0.5]
    held = verdict("atoms", compared(prices, [1.1, -2.1, 2.9, -4.2, 5.0, 0.4]))
    assert held.startswith("the prices of atoms held: signs of 100.0% (at least 90%), r 1.000 (0.8), unfitted R2 0.999")
    assert "held in sign and order, not in size" in verdict("atoms", compared(prices, [x * 5 for x in prices]))
    assert "did not hold" in verdict("heads", compared(prices, [1.0, 2.0, 3.0, -4.0, 5.0, 0.5]))
    assert "did not hold" in verdict("heads", compared(prices, [5.0, -0.1, 0.1, -0.2, 0.3, 4.0]))
    for few in (compared(prices[:4], prices[:4]), compared([0.0] * 6, prices), compared([], [])):
        assert "too few or too alike to say" in verdict("writes", few)
    small = verdict("writes", compared(prices, [x * 40 for x in prices]))
    assert "Deleting does 40 times as much as the prices say: the target is saturated" in small
    assert "saturated" not in held
    assert failed(compared(prices, [x * 40 for x in prices]))
    assert failed(compared(prices, [5.0, -0.1, 0.1, -0.2, 0.3, 4.0]))
    assert not failed(compared(prices, prices))
    assert not failed(compared(prices[:4], [1.0, 2.0, -3.0, 4.0]))


def test_words_name_the_target_and_the_text(host: Host) -> None:
    """The order of arguments that users learn, and every way to say the same."""
    sae = dictionary(host, Site(5, 0), features=101, k=5)
    sae.record = Record(host="tiny-gdn", host_revision=host.revision, site=Site(5, 0))
    prompt, word = "The capital of", host.tokenizer.encode(" France")[0]
    ids = host.tokenizer.encode(prompt)
    found = attribute(host, sae, prompt, " France")
    top = found.top_atoms(5)
    for text, target in ((ids, word), (torch.tensor(ids), Logit((word,))), (prompt, f"#{word}")):
        again = attribute(host, [sae], text, target)
        assert torch.equal(again.atoms[Site(5, 0)].effect, found.atoms[Site(5, 0)].effect)
    assert list(top.records.effect) == [c.effect for c in top]
    assert "coefficient" in str(top)
    assert f"{top[0].effect:+.4f}" in str(top)
    assert attribute(host, None, prompt).target == Logit((int(host.logits(torch.tensor([ids]))[0, -1].argmax()),))
    assert attribute(host, None, prompt, " war", against=" peace").target == LogitDifference(
        host.tokenizer.encode(" war")[0], host.tokenizer.encode(" peace")[0]
    )
    assert attribute(host, None, prompt, word, quantity="logprob", position=1).target == LogProbability(word, 1)
    shown = found._repr_html_()  # type: ignore[attr-defined]
    assert "effects are first order" in shown
    assert "logit of &#x27; France&#x27;" in shown


def test_wrong_calls_are_one_line(host: Host) -> None:
    sae, text = dictionary(host, Site(5, 0)), "The capital of"
    calls: list[tuple[str, Callable[[], object]]] = [
        ("must be a model", lambda: attribute("tiny-gdn", None, text)),  # type: ignore[arg-type]
        ("a str was given as a dictionary", lambda: attribute(host, text, " France")),  # type: ignore[arg-type]
        ("does not say which head", lambda: attribute(host, sae, text)),
        ("two dictionaries of L5.H0", lambda: attribute(host, {"L5.H0": sae, Site(5, 0): sae}, text)),  # type: ignore[arg-type]
        ("site L5.H0 was named beside 2", lambda: attribute(host, [sae, sae], text, site="L5.H0")),
        ("as text or as token ids", lambda: attribute(host, None, 5)),  # type: ignore[arg-type]
        ("2 texts were given", lambda: attribute(host, None, ["a", "b"])),
        ("a float was given as a target: give a token", lambda: attribute(host, None, text, 2.0)),  # type: ignore[arg-type]
        ("is not one token", lambda: attribute(host, None, text, "Paris")),
        ("quantity 'loss of it' is none of logit", lambda: attribute(host, None, text, quantity="loss of it")),  # type: ignore[arg-type]
        ("leave out against", lambda: attribute(host, None, text, TextLoss(), against=" a")),
        ("native_write 'both' is none of delta, value", lambda: attribute(host, None, text, native_write="both")),  # type: ignore[arg-type]
        ("no recurrent layer 3", lambda: attribute(host, None, text, layers=[3])),
        ("must be a model", lambda: codes(sae, sae, text)),  # type: ignore[arg-type]
        ("a prompt is empty", lambda: codes(host, sae, "", site="L5.H0")),
    ]
    for message, call in calls:
        with pytest.raises(InputError) as caught:
            call()
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)


def test_dictionaries_of_other_weights_are_named_where_they_are_allowed(host: Host) -> None:
    sae = dictionary(host, Site(5, 0))
    sae.record = Record(host="tiny-gdn", host_revision="0123456789ab", site=Site(5, 0))
    for ask in (
        lambda **more: attribute(host, sae, "In the", **more),
        lambda **more: codes(host, sae, "In the", **more),
    ):
        with pytest.raises(InputError, match="revision 0123456789ab, not of tiny-gdn"):
            ask()
        found = ask(allow="mismatch")
        assert "0123456789" in found.overruled[0]
        assert "allowed mismatch" in str(found)


@pytest.mark.parametrize("target", get_args(DictionaryTarget))
def test_codes_are_those_of_the_dense_encoder_with_the_words_of_their_atoms(
    host: Host, target: DictionaryTarget
) -> None:
    site, text = Site(4, 1), "In the beginning was the word"
    sae = dictionary(host, site, target, features=101, k=5)
    found = codes(host, sae, text, site="L4.H1", words=2)
    tokens = torch.tensor([host.tokenizer.encode(text)])
    stream = host.record(tokens, [4])[4].heads(1)
    states = torch.stack([replay(stream.map(lambda x, t=t: x[:, : t + 1])).final[0, 0] for t in range(tokens.shape[1])])  # type: ignore[misc]
    side = delta_values(stream)[0] if target == "write-delta" else stream.value
    writes = stream.key[0, :, 0, :, None] * side[0, :, 0, None, :]
    dense = sae.encode(states if target == "state" else writes).dense(101)
    assert len(found.records) == int((dense > 0).sum())
    rows = found.records.to_dict("records")
    for row in rows:
        assert row["value"] == pytest.approx(float(dense[row["position"], row["feature"]]), rel=1e-3)
        assert row["token"] == found.texts[row["position"]]
    assert found.records.groupby("position").value.apply(lambda x: x.is_monotonic_decreasing).all()
    feature = rows[0]["feature"]
    moved = unembedding(host) @ (sae.atoms().w[feature] @ head_columns(host, 4)[1])
    assert rows[0]["words"] == tuple(host.text([i]) for i in moved.topk(2).indices.tolist())
    assert str(feature) in str(found)
    assert "<table>" in found._repr_html_()  # type: ignore[attr-defined]


def test_codes_of_flat_dictionaries_have_no_words(host: Host) -> None:
    sae = SAE(SAEConfig(32, 32, 13, encoder=Linear(), decoder=Flat(), sparsity=TopK(3), target="write-value"))
    found = codes(host, sae, "In the beginning", site="L5.H0")
    assert len(found.records) > 0
    assert set(found.records.words) == {()}


def test_state_and_delta_dictionaries_are_read_as_they_were_trained(tiny: Host) -> None:
    text, site = some_text(), Site(0, 2)
    for kind in ("state", "write-delta"):
        sae = dictionary(tiny, site, kind, features=101, k=5)
        got = attribute(tiny, {site: sae}, text, Logit((5,)), layers=[]).atoms[site].coefficient
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
        attribute(tiny, None, some_text(), target)


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
        attribute(tiny, {Site(0, 0): foreign}, some_text(), Logit((5,)))
    with pytest.raises(InputError, match="needs 2 or more"):
        attribute(tiny, None, some_text()[:1], TextLoss())
    found = attribute(tiny, None, some_text(), Logit((5,)), layers=[0])
    with pytest.raises(InputError, match="has no atoms of L0"):
        atom_map(found, Site(0, 1))


READINGS: tuple[Reading, Reading] = ("state", "increment")


@pytest.mark.parametrize("form", ["delta", "value"])
def test_dictionaries_of_states_are_read_by_increment(host: Host, form: NativeWrite) -> None:
    """Against states with the token's write and without it: as many features as are active, those raised most."""
    site, text = Site(5, 2), torch.randint(3, 900, (29,), generator=torch.Generator().manual_seed(0))
    sae = dictionary(host, site, "state")
    found = attribute(host, sae, text, site=site, native_write=form, reading="increment")
    plain = attribute(host, sae, text, site=site, native_write=form)
    listed = codes(host, sae, text.tolist(), site=site, reading="increment", native_write=form)
    stream = host.record(text[None], [5])[5].heads(2)
    states = replay_reference(stream).states[0, :, 0]
    value = (delta_values(stream)[0] if form == "delta" else stream.value)[0, :, 0]
    writes = torch.einsum("tk,tv->tkv", stream.key[0, :, 0], value)
    raised = (sae.preactivations(states) - sae.preactivations(states - writes)).detach()
    active = (sae.encode(states).value > 0).sum(-1)
    coefficient = found.atoms[site].coefficient
    assert (coefficient > 0).sum() > 11
    for t in range(len(text)):
        best = raised[t].topk(max(1, int(active[t])))
        wanted = torch.zeros(len(raised[t])).scatter(0, best.indices, best.values.clamp_min(0))
        torch.testing.assert_close(coefficient[t], wanted, rtol=1e-3, atol=1e-5)
        own = listed.records[listed.records.position == t]
        assert own.feature.tolist() == best.indices[best.values > 0].tolist()
    torch.testing.assert_close(found.atoms[site].price, plain.atoms[site].price)
    assert not torch.equal(coefficient, plain.atoms[site].coefficient)
    assert found.to_json()["reading"] == listed.reading == "increment"
    assert "read by increment" in str(listed.sheet())
    assert "atoms, read by increment" in str(found.sheet())
    written = dictionary(host, site)
    for read in (written, None):
        with pytest.raises(InputError, match="a dictionary of writes has one reading"):
            attribute(host, read, text, site=None if read is None else site, reading="increment")
    with pytest.raises(InputError, match="a dictionary of writes has one reading"):
        codes(host, written, text.tolist(), site=site, reading="increment")
