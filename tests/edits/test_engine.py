"""Edits by response against edited caches and dense arithmetic, on every class of host."""

from __future__ import annotations

import copy
import gc
import threading
import weakref
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from random_hosts import TIME, TOLERANCE, dictionary, first_site, relative, some_tokens, tiny_host
from writesae import edits
from writesae.causal.actions import Action
from writesae.causal.seen import Seen
from writesae.edits import (
    AddMatrix,
    Always,
    At,
    ChangeFeatures,
    Edit,
    EraseWrite,
    Firing,
    Install,
    OnTokens,
    Predicate,
    ReplaceByAtom,
    Transplant,
    editing,
    generate,
    take_write,
)
from writesae.errors import InputError
from writesae.hosts import Host, Tap
from writesae.hosts.caches import new_cache, read_state, run_cached, write_state
from writesae.recurrence import replay
from writesae.sae import SAE
from writesae.types import NativeWrite, Site, Timing

CUT = 7


def edited_logits(host: Host, edits: list[Edit], tokens: Tensor) -> Tensor:
    with torch.no_grad(), editing(host, edits):
        return host.run(tokens, keep=0)


def matrices(host: Host, size: float = 0.5) -> dict[Site, Tensor]:
    """Matrices half the size of the state for two heads in each of the first two layers, one a batch row."""
    found = {}
    generator = torch.Generator().manual_seed(3)
    for index in list(host.layers)[:2]:
        states = replay(host.record(some_tokens()[:, : CUT + 1], [index])[index]).final
        for head in (0, 2):
            noise = torch.randn(states[:, head].shape, generator=generator)
            found[Site(index, head)] = noise * (size * float(states[:, head].norm()) / float(noise.norm()))
    return found


def cache_edited(host: Host, added: dict[Site, Tensor], tokens: Tensor, steps: int) -> Tensor:
    """The reference: run to `CUT`, overwrite the cached states, go on, `steps` tokens a call."""
    live = new_cache(host)
    with host.tap():
        run_cached(host, tokens[:, : CUT + 1], live, 0)
        for site, matrix in added.items():
            state = read_state(host, live, site.layer).clone()
            state[:, site.head] += matrix
            write_state(host, live, site.layer, state)
        pieces = [run_cached(host, tokens[:, t : t + steps], live, t) for t in range(CUT + 1, TIME, steps)]
    return torch.cat(pieces, 1)


def test_edits_equal_editing_the_cache_in_prefill_and_in_decode(any_host: Host) -> None:
    """Two heads in each of two layers, another matrix in each row; prefill, then a cache and one token a call."""
    added, tokens = matrices(any_host), some_tokens()
    edits = [Edit(site, AddMatrix(matrix), At((CUT,))) for site, matrix in added.items()]
    expected = cache_edited(any_host, added, tokens, TIME)
    plain, patched = any_host.logits(tokens), edited_logits(any_host, edits, tokens)
    assert relative(patched[:, : CUT + 1], plain[:, : CUT + 1]) <= 1e-6
    assert relative(patched[:, CUT + 1 :], plain[:, CUT + 1 :]) > 1e-3
    assert relative(patched[:, CUT + 1 :], expected) <= TOLERANCE
    for prompt in (CUT + 1, CUT - 2):  # the edited token ends the prompt, or is itself decoded
        live = new_cache(any_host)
        with editing(any_host, edits):
            run_cached(any_host, tokens[:, :prompt], live, 0)
            steps = [run_cached(any_host, tokens[:, t : t + 1], live, t) for t in range(prompt, TIME)]
        got = torch.cat(steps[CUT + 1 - prompt :], 1)
        assert relative(got, cache_edited(any_host, added, tokens, 1)) <= TOLERANCE


def test_zero_edits_change_no_bit(any_host: Host) -> None:
    site = first_site(any_host)
    layer, sae = any_host.layers[site.layer], dictionary(any_host, site)
    key, value = torch.ones(layer.d_k), torch.ones(layer.d_v)
    actions: list[Action] = [
        Install(key, value, 0.0), ChangeFeatures(sae, (1, 2), 1.0), ChangeFeatures(sae, (3,), amounts=(0.0,)),
        AddMatrix(torch.zeros(layer.d_k, layer.d_v)),
    ]  # fmt: skip
    edits = [Edit(site, what, Always(), timing) for what in actions for timing in timings()]
    tokens = some_tokens()
    assert torch.equal(edited_logits(any_host, edits, tokens), any_host.logits(tokens))
    assert generate(any_host, tokens, edits, 4).tokens == generate(any_host, tokens, (), 4).tokens


def timings() -> tuple[Timing, Timing]:
    return "after_token", "at_token"


def test_erasing_and_reinstalling_a_write_restores_the_logits(any_host: Host) -> None:
    site, tokens = first_site(any_host), some_tokens()[:1]
    forms: tuple[NativeWrite, ...] = (
        ("value", "delta") if any_host.record(tokens, [site.layer])[site.layer].rank_one else ("value",)
    )
    plain = any_host.logits(tokens)
    for form in forms:
        write = take_write(any_host, tokens[0], site, CUT, form)
        for timing in timings():
            erase = Edit(site, EraseWrite(form), At((CUT,)), timing)
            back = Edit(site, Transplant(write, replaced=None), At((CUT,)), timing)
            assert relative(edited_logits(any_host, [erase], tokens), plain) > 1e-4
            assert relative(edited_logits(any_host, [erase, back], tokens), plain) <= TOLERANCE


def test_an_edit_at_its_own_token_is_a_change_of_what_the_token_reads(any_host: Host) -> None:
    """Under `at_token`, erasing the value form equals a host whose token never wrote: replayed without that write."""
    site, tokens = first_site(any_host), some_tokens()
    stream = any_host.record(tokens, [site.layer])[site.layer].heads(site.head)
    silenced = stream.map(lambda x: x.clone())
    silenced.value[:, CUT] = 0
    seen: list[Tensor] = []
    edit = Edit(site, EraseWrite("value"), At((CUT,)), "at_token")

    def note(call: object, result: object) -> object:
        seen.append(result.output[:, :, [site.head]])  # type: ignore[attr-defined]
        return result

    with torch.no_grad(), editing(any_host, [edit]), any_host.tap(Tap(after=note)):  # type: ignore[arg-type]
        any_host.run(tokens)
    assert relative(seen[0], replay(silenced).outputs) <= TOLERANCE


def test_a_row_of_a_padded_batch_is_edited_as_on_its_own(any_host: Host) -> None:
    site = first_site(any_host)
    rows = [some_tokens(1, 1, 11)[0].tolist(), some_tokens(2, 1, 5)[0].tolist()]
    layer = any_host.layers[site.layer]
    what = Install(torch.eye(layer.d_k)[0], torch.eye(layer.d_v)[1], 20.0)

    def run(which: list[list[int]], edits: list[Edit]) -> list[list[int]]:
        return generate(any_host, which, edits, 5, stop_at_end=False).tokens

    both = run(rows, [Edit(site, what, At((-2,)), row=1), Edit(site, what, At((3,)), row=0)])
    assert both[0] == run(rows[:1], [Edit(site, what, At((3,)))])[0]
    assert both[1] == run(rows[1:], [Edit(site, what, At((-2,)))])[0]


by_increment = partial(ReplaceByAtom, reading="increment")


def test_every_action_is_what_it_says(tiny: Host) -> None:
    """Each against the matrix worked out from the stream, given to the engine as a plain matrix."""
    site, tokens = Site(1, 4), some_tokens()[:1]
    sae, state_sae = dictionary(tiny, site), dictionary(tiny, site, "state")
    stream = tiny.record(tokens[:, : CUT + 1], [site.layer])[site.layer].heads(site.head)
    state = replay(stream).final[0, 0]
    native = torch.outer(stream.key[0, -1, 0], stream.value[0, -1, 0])
    write = take_write(tiny, tokens[0], site, CUT)
    delta = torch.outer(*write)
    code = sae.encode(native).dense(13)
    state_code = state_sae.encode(state).dense(13)
    atoms = sae.atom_matrices().detach()
    top = int(code.argmax())
    key, value = torch.eye(5)[2], torch.eye(7)[3]
    pre, theirs = state_sae.preactivations, state_sae.atom_matrices().detach()
    raised = {form: (pre(state) - pre(state - x)).detach() for form, x in (("value", native), ("delta", delta))}
    best = {form: theirs[x.argmax()] for form, x in raised.items()}
    cases: list[tuple[Action, Tensor]] = [
        (by_increment(state_sae), raised["delta"].max() * best["delta"] - delta),
        (by_increment(state_sae, native_write="value"), raised["value"].max() * best["value"] - native),
        (by_increment(state_sae, feature=5), raised["delta"][5] * theirs[5] - delta),
        (by_increment(state_sae, amplitude="norm"), delta.norm() * best["delta"] / best["delta"].norm() - delta),
        (by_increment(sae), code[top] * atoms[top] - delta),
        (EraseWrite("value"), -native),
        (EraseWrite("delta"), -delta),
        (ChangeFeatures(sae, (top, 1), 3.0), 2 * (code[top] * atoms[top] + code[1] * atoms[1])),
        (ChangeFeatures(state_sae, (int(state_code.argmax()),), 0.0), -state_code.max() * atoms[state_code.argmax()]),
        (ChangeFeatures(sae, (4,), amounts=(0.7,)), 0.7 * atoms[4]),
        (ChangeFeatures(sae, (top,), 0.0, (0.2,)), (0.2 - code[top]) * atoms[top]),
        (ReplaceByAtom(sae), code[top] * atoms[top] - delta),
        (ReplaceByAtom(sae, 5, "norm"), delta.norm() * atoms[5] / atoms[5].norm() - delta),
        (Install(key, value, 2.0), 2 * native.norm() * torch.outer(key, value)),
        (Transplant(write), delta - delta),
        (Transplant(write, "value"), delta - native),
    ]
    for what, expected in cases:
        got = edited_logits(tiny, [Edit(site, what, At((CUT,)))], tokens)
        wanted = edited_logits(tiny, [Edit(site, AddMatrix(expected), At((CUT,)))], tokens)
        assert relative(got, wanted) <= TOLERANCE, str(what)


def test_no_edit_makes_the_matrices_of_all_atoms(tiny: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 16,384 features those alone are built that a token needs: 1 GB a token otherwise, at 128 x 128."""
    site, made, whole = Site(1, 4), list[int](), SAE.atom_matrices

    def counted(self: SAE, features: Tensor | None = None) -> Tensor:
        matrices = whole(self, features)
        made.append(len(matrices))
        return matrices

    sae = dictionary(tiny, site)
    monkeypatch.setattr(SAE, "atom_matrices", counted)
    actions: list[Action] = [
        ChangeFeatures(sae, (2, 3), 0.0), ChangeFeatures(sae, (2, 3), amounts=(1.0, 2.0)),
        ChangeFeatures(sae, (2, 3), 0.0, (1.0, 2.0)), ReplaceByAtom(sae), ReplaceByAtom(sae, 5, "norm"),
    ]  # fmt: skip
    for what in actions:
        edited_logits(tiny, [Edit(site, what, At((CUT,)))], some_tokens())
    assert made == [2] * 5


def test_changes_of_features_in_words(tiny: Host) -> None:
    sae = dictionary(tiny, Site(1, 4))
    said = {
        "multiply features 3, 5 by 2": ChangeFeatures(sae, (3, 5), 2.0),
        "add 0.5 to features 3, 5": ChangeFeatures(sae, (3, 5), amounts=(0.5, 0.5)),
        "add 0.5, 1 to features 3, 5": ChangeFeatures(sae, (3, 5), amounts=(0.5, 1.0)),
        "clamp feature 3 to 2, feature 5 to 1": ChangeFeatures(sae, (3, 5), 0.0, (2.0, 1.0)),
        "multiply features 3 by 2, add 1 to features 3": ChangeFeatures(sae, (3,), 2.0, (1.0,)),
    }
    assert [str(what) for what in said.values()] == list(said)
    with pytest.raises(InputError, match="1 amounts were given for 2 features"):
        ChangeFeatures(sae, (3, 5), 0.0, (1.0,))
    with pytest.raises(AttributeError, match="ChangeFeatures now"):
        edits.ScaleFeatures  # noqa: B018


def test_later_edits_see_earlier_ones(tiny: Host) -> None:
    """A clamp of the state's coefficient after another edit brings it to the same value all the same."""
    site, tokens = Site(1, 4), some_tokens()[:1]
    sae = dictionary(tiny, site, "state")
    big = AddMatrix(3 * sae.atom_matrices()[2].detach())
    states: list[Tensor] = []

    def look(seen: object) -> Tensor:
        states.append(seen.state[0])  # type: ignore[attr-defined]
        return torch.tensor([False])

    edited_logits(
        tiny,
        [
            Edit(site, big, At((CUT - 1,))),
            Edit(site, EraseWrite("delta"), At((CUT,))),
            Edit(site, AddMatrix(torch.zeros(5, 7)), Predicate(look)),
        ],
        tokens,
    )
    stream = tiny.record(tokens[:, : CUT + 1], [site.layer])[site.layer].heads(site.head)
    before = replay(stream.map(lambda x: x[:, :-1])).final[0, 0] + big.matrix_
    expected = stream.log_decay[0, -1, 0].exp() * before  # without its delta write, a token only forgets
    assert relative(states[CUT], expected) <= TOLERANCE


def test_schedules(tiny: Host) -> None:
    site, tokens = Site(0, 1), some_tokens()
    sae = dictionary(tiny, site)
    what = AddMatrix(torch.ones(5, 7))
    plain = tiny.logits(tokens)

    def first_change(edit: Edit) -> list[int]:
        moved = (edited_logits(tiny, [edit], tokens) - plain).abs().amax(-1) > 1e-6
        return [int(row.nonzero()[0]) if row.any() else TIME for row in moved]

    assert first_change(Edit(site, what, At((-3,)))) == [TIME - 2] * 2
    assert first_change(Edit(site, what, At((CUT,)), "at_token")) == [CUT] * 2
    assert first_change(Edit(site, what, Always("generated"))) == [TIME] * 2
    assert first_change(Edit(site, what, Always("prompt"), "at_token")) == [0] * 2
    ids = frozenset({int(tokens[0, 4]), int(tokens[1, 6])})
    where = [int(torch.isin(row, torch.tensor(sorted(ids))).nonzero()[0]) for row in tokens]
    assert first_change(Edit(site, what, OnTokens(ids), "at_token")) == where
    stream = tiny.record(tokens, [0])[0].heads(1)
    codes = sae.encode(stream.key[:, :, 0, :, None] * stream.value[:, :, 0, None, :]).dense(13)[..., 2]
    bound = float(codes.flatten().sort().values[-4])
    fires = [int(row.nonzero()[0]) if row.any() else TIME for row in codes > bound]
    assert first_change(Edit(site, what, Firing(sae, 2, bound), "at_token")) == fires
    odd = Predicate(lambda seen: seen.position == 5)
    assert first_change(Edit(site, what, odd, "at_token")) == [5, 5]
    assert first_change(Edit(site, what, At((9,)), "at_token", row=1)) == [TIME, 9]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda m: Edit(Site(0, 1), m, At((TIME,))), "never reached: the text has positions 0 to 16"),
        (lambda m: Edit(Site(0, 1), m, At((-TIME - 1,))), "before a prompt of 17"),
        (lambda m: Edit(Site(0, 9), m, Always()), "heads 0 to 5"),
        (lambda m: Edit(Site(2, 0), m, Always()), "no recurrent layer 2"),
        (lambda m: Edit(Site(0, 1), m, Always(), row=2), "batch of 2 rows"),
        (lambda m: Edit(Site(0, 1), AddMatrix(torch.ones(7, 5)), Always()), "7 x 5"),
        (lambda m: Edit(Site(0, 1), AddMatrix(torch.full((5, 7), 3e38)), Always()), "overflows by the edit L0.H1: add"),
        (lambda m: Edit(Site(0, 1), Install(m.matrix_[:, 0], m.matrix_[0], 1e37), At((3,))), "layer 0 overflows by"),
        (lambda m: Edit(Site(1, 1), AddMatrix(torch.full((5, 7), 1e22)), At((3,))), "layer 1 overflows by"),
    ],
)
def test_bad_requests(tiny: Host, edit: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        edited_logits(tiny, [edit(AddMatrix(torch.ones(5, 7)))], some_tokens())  # type: ignore[operator]


def test_a_dictionary_of_another_host_and_bad_numbers(tiny: Host) -> None:
    other = tiny_host("kimi_linear")
    foreign = dictionary(other, Site(0, 0))
    with pytest.raises(InputError, match="7 x 7 matrices, but L0"):
        edited_logits(tiny, [Edit(Site(0, 1), ChangeFeatures(foreign, (1,), 0.0), Always())], some_tokens())
    with pytest.raises(InputError, match="features 0 to 12"):
        ChangeFeatures(foreign, (13,), 0.0)
    for bad in (float("nan"), float("inf")):
        with pytest.raises(InputError, match="finite"):
            Install(torch.ones(5), torch.ones(7), bad)
    with pytest.raises(InputError, match="positions 0 to 16"):
        take_write(tiny, some_tokens()[0], Site(0, 1), 17)


def test_nothing_is_left_behind(tiny: Host) -> None:
    tokens = some_tokens()
    before = tiny.logits(tokens)
    with pytest.raises(InputError):
        edited_logits(tiny, [Edit(Site(0, 1), AddMatrix(torch.full((5, 7), 3e38)), Always())], tokens)
    assert torch.equal(tiny.logits(tokens), before)
    assert not tiny.model._forward_hooks
    assert not tiny.model._forward_pre_hooks


def test_another_thread_s_run_is_not_edited_and_caches_are_let_go(tiny: Host) -> None:
    tokens = some_tokens()
    plain, seen = tiny.logits(tokens), []
    edit = Edit(Site(0, 1), AddMatrix(torch.ones(5, 7)), Always())
    live = new_cache(tiny)
    watched = weakref.ref(live)
    with editing(tiny, [edit]):
        run_cached(tiny, tokens, live, 0)
        thread = threading.Thread(target=lambda: seen.append(tiny.logits(tokens)))
        thread.start()
        thread.join()
        del live
        gc.collect()
        assert watched() is None
        assert relative(tiny.logits(tokens), plain) > 1e-3
    assert torch.equal(seen[0], plain)


def test_a_bfloat16_host_is_edited(tiny: Host) -> None:
    small = copy.deepcopy(tiny.model)
    nn.Module.to(small, torch.bfloat16)
    half = Host(small, None, "half", lambda: "none")
    tokens, site = some_tokens(), Site(0, 1)
    plain = half.logits(tokens)
    moved = edited_logits(half, [Edit(site, AddMatrix(torch.full((5, 7), 3.0)), At((CUT,)))], tokens)
    assert moved.dtype == plain.dtype == torch.float32
    assert torch.equal(moved[:, : CUT + 1], plain[:, : CUT + 1])
    assert relative(moved[:, CUT + 1 :], plain[:, CUT + 1 :]) > 1e-2


def test_edits_may_begin_on_a_cache_that_holds_text(tiny: Host) -> None:
    """Positions go on counting from the text's start; a cache that cannot say how much it holds needs the mask."""
    tokens = some_tokens()
    edit = Edit(Site(0, 1), AddMatrix(torch.ones(5, 7)), At((CUT,)))
    whole = edited_logits(tiny, [edit], tokens)
    live = new_cache(tiny)
    with tiny.tap():
        run_cached(tiny, tokens[:, :5], live, 0)
    with editing(tiny, [edit]):
        assert relative(run_cached(tiny, tokens[:, 5:], live, 5), whole[:, 5:]) <= TOLERANCE
    mamba = tiny_host("mamba2")
    live = new_cache(mamba)
    with mamba.tap():
        run_cached(mamba, tokens[:, :5], live, 0)
    with pytest.raises(InputError, match="does not count it"), editing(mamba, [edit]):
        run_cached(mamba, tokens[:, 5:], live, 5)


def test_where_edits_act_is_told(tiny: Host) -> None:
    site, told = Site(0, 2), []
    edits = [Edit(Site(1, 1), EraseWrite(), At((2,))), Edit(site, EraseWrite(), At((-1, 3)))]

    def note(index: int, seen: Seen, acts: torch.Tensor) -> None:
        told.append((index, seen.position[acts].tolist()))

    with editing(tiny, edits, note):
        tiny.run(some_tokens(time=11))
    assert sorted(told) == [(0, [2, 2]), (1, [3, 3]), (1, [10, 10])]
