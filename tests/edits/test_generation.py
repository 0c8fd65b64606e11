"""Generation with edits, on every class of host and on the embedded one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from transformers import GenerationConfig

from random_hosts import first_site, some_tokens
from writesae.edits import (
    AddMatrix,
    At,
    Edit,
    Install,
    Sampling,
    amplify,
    atom_direction,
    clamp,
    editing,
    erase,
    generate,
    install,
    sentence_ends,
)
from writesae.edits.dictionaries import place
from writesae.edits.directions import DirectionKind
from writesae.errors import InputError
from writesae.hosts import Host
from writesae.hosts.caches import cache_argument, new_cache
from writesae.types import Site


def strong(host: Host) -> list[Edit]:
    site = first_site(host)
    layer = host.layers[site.layer]
    what = Install(torch.eye(layer.d_k)[0], torch.eye(layer.d_v)[1], 30.0)
    return [Edit(site, what, At((-1,)), "at_token")]


def test_generation_equals_running_the_whole_text_again(any_host: Host) -> None:
    """Greedy with a cache against one edited forward pass a token, without one."""
    prompt, edits = some_tokens(5, 2, 6), strong(any_host)
    got = generate(any_host, prompt, edits, 5, stop_at_end=False).tokens
    whole = prompt
    fixed = [Edit(e.site, e.what, At((5,)), e.timing) for e in edits]
    for _ in range(5):
        with torch.no_grad(), editing(any_host, fixed):
            following = any_host.run(whole, keep=1)[:, -1].argmax(-1)
        whole = torch.cat([whole, following[:, None]], 1)
    assert got == whole[:, 6:].tolist()


def test_sampling_is_deterministic_streams_and_leaves_the_random_state(any_host: Host) -> None:
    prompt, edits = some_tokens(5, 2, 6), strong(any_host)
    steps: list[list[int]] = []
    state = torch.random.get_rng_state()
    hot = Sampling(temperature=1.3, top_p=0.95, seed=4)
    first = generate(any_host, prompt, edits, 6, hot, stop_at_end=False, on_tokens=steps.append)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert generate(any_host, prompt, edits, 6, hot, stop_at_end=False).tokens == first.tokens
    assert [list(row) for row in zip(*steps, strict=True)] == first.tokens
    others = [generate(any_host, prompt, edits, 6, Sampling(1.3, seed=s), stop_at_end=False).tokens for s in (5, 6)]
    assert any(other != first.tokens for other in others)


def test_what_is_drawn_for_a_prompt_does_not_depend_on_those_beside_it(tiny: Host) -> None:
    """Drawn alone under its number, and as often as the probabilities say."""
    prompt, hot = some_tokens(5, 3, 6), Sampling(0.7, top_k=2, seed=4)
    together = generate(tiny, prompt, (), 9, hot, stop_at_end=False).tokens
    alone = [generate(tiny, prompt[r : r + 1], (), 9, hot, stop_at_end=False, first=r).tokens[0] for r in range(3)]
    assert together == alone
    same = prompt[:1].expand(400, -1)
    said = torch.tensor(generate(tiny, same, (), 1, hot, stop_at_end=False).tokens)[:, 0]
    logits = tiny.logits(prompt[:1], keep=1)[0, -1] / 0.7
    top = logits.topk(2)
    assert set(said.tolist()) == set(top.indices.tolist())
    assert float((said == top.indices[0]).float().mean()) == pytest.approx(float(top.values.softmax(-1)[0]), abs=0.075)


def test_transformers_own_generate_in_the_context(any_host: Host) -> None:
    prompt, edits = some_tokens(5, 2, 6), strong(any_host)
    ours = generate(any_host, prompt, edits, 4, stop_at_end=False).tokens
    with editing(any_host, edits):
        out = any_host.model.generate(  # type: ignore[operator]
            prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=4, do_sample=False, pad_token_id=0,
            eos_token_id=None, **cache_argument(any_host, new_cache(any_host)),
        )  # fmt: skip
    assert out[:, 6:].tolist() == ours
    assert ours != generate(any_host, prompt, (), 4, stop_at_end=False).tokens


def test_edits_follow_the_beams_of_their_row(any_host: Host) -> None:
    """Three beams a prompt: against beams without a cache, and an edit of one row against each prompt on its own."""
    prompt = some_tokens(5, 2, 6)
    (whole,) = (Edit(e.site, e.what, At((5,)), e.timing) for e in strong(any_host))

    def beams(rows: torch.Tensor, edits: list[Edit], cached: bool = True) -> list[list[int]]:
        given = cache_argument(any_host, new_cache(any_host)) if cached else {"use_cache": False}
        with torch.no_grad(), editing(any_host, edits):
            out = any_host.model.generate(  # type: ignore[operator]
                rows, attention_mask=torch.ones_like(rows), max_new_tokens=4, do_sample=False, num_beams=3,
                num_return_sequences=2, pad_token_id=0, eos_token_id=None, **given,
            )  # fmt: skip
        found: list[list[int]] = out[:, rows.shape[1] :].tolist()
        return found

    native, edited = beams(prompt, []), beams(prompt, [whole])
    assert edited != native
    assert edited == beams(prompt, [whole], cached=False)
    one = Edit(whole.site, whole.what, whole.when, whole.timing, row=1)
    assert beams(prompt, [one]) == beams(prompt[:1], []) + beams(prompt[1:], [whole])


def test_each_row_s_own_direction_follows_its_samples(tiny: Host) -> None:
    """A matrix a row, and a row that the batch does not have, with three samples of each prompt."""
    prompt, site = some_tokens(5, 2, 6), Site(1, 4)
    matrices = 9 * torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(0))

    def samples(edits: list[Edit]) -> list[list[int]]:
        torch.manual_seed(3)
        with torch.no_grad(), editing(tiny, edits):
            out = tiny.model.generate(  # type: ignore[operator]
                prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=4, do_sample=True, pad_token_id=0,
                num_return_sequences=3, eos_token_id=None,
            )  # fmt: skip
        found: list[list[int]] = out[:, 6:].tolist()
        return found

    together = samples([Edit(site, AddMatrix(matrices), At((-1,)))])
    assert together == samples([Edit(site, AddMatrix(m), At((-1,)), row=r) for r, m in enumerate(matrices)])
    assert together != samples([])
    with pytest.raises(InputError, match="row 2 of a batch of 2 rows"):
        samples([Edit(site, AddMatrix(matrices[0]), At((-1,)), row=2)])


def test_install_by_name_on_the_embedded_host(host: Host) -> None:
    prompt = "The President of the United States said that"
    site = Site(5, 0)
    native = generate(host, prompt, (), 6)
    kinds: tuple[DirectionKind, ...] = ("closed", "exact", "random")
    for direction in kinds:
        plan = install(host, site, target=" war", direction=direction, magnitude=0.0)
        assert plan.generate(prompt, 6).tokens == native.tokens
    ids = torch.tensor([host.tokenizer.encode(prompt)])
    word = host.tokenizer.encode(" war")[0]

    def lift(direction: DirectionKind, magnitude: float) -> float:
        plan = install(
            host,
            site,
            target=" war",
            direction=direction,
            magnitude=magnitude,
            timing="at_token",
        )
        return float((plan.logits(ids) - host.logits(ids))[0, -1, word])

    assert lift("exact", 0.5) > max(lift("random", 0.5), 0)
    two = install(host, site, target=[" war", " peace"], positions=4) + erase(host, Site(4, 1), positions=At((2,)))
    assert len(two.edits([ids[0].tolist()])) == 3
    assert two.generate([prompt, "In the year of"], 3).tokens[0]


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("Paris", "splits into 'P' | 'ar' | 'is'".replace("|", r"\|")),
        ("", "splits into nothing"),
        ("#99999", "0 to 4095"),
    ],
)
def test_targets_that_are_not_one_token(host: Host, target: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        install(host, Site(5, 0), target=target)


def test_other_bad_requests(host: Host, tiny: Host) -> None:
    with pytest.raises(InputError, match="needs a target"):
        install(host, Site(5, 0))
    with pytest.raises(InputError, match="give 1 or more"):
        install(host, Site(5, 0), target=" war", positions=0)
    with pytest.raises(InputError, match="the last 3 tokens of a prompt of 2"):
        install(host, Site(5, 0), target=" war").generate("In the")
    with pytest.raises(InputError, match="prompt is empty"):
        install(host, Site(5, 0), target=" war").generate("")
    with pytest.raises(InputError, match="give the prompt"), install(host, Site(5, 0), target=" war").apply():
        pass
    with pytest.raises(InputError, match="without a tokenizer"):
        install(tiny, Site(0, 0), target=" war")
    with pytest.raises(InputError, match="cannot be combined"):
        erase(host, Site(5, 0)) + erase(tiny, Site(0, 0))
    with pytest.raises(InputError, match="0 new tokens"):
        generate(host, "In", (), 0)


def test_features_and_sentence_ends(host: Host) -> None:
    from random_hosts import dictionary

    site = Site(5, 0)
    sae = dictionary(host, site)
    ends = sentence_ends(host)
    assert host.tokenizer.encode(".")[0] in ends.ids
    assert host.tokenizer.encode(" war")[0] not in ends.ids
    direction = atom_direction(sae, 3)
    assert float(direction.key.norm()) == pytest.approx(1, abs=1e-5)
    prompt = "He came to the house. They were"
    native = generate(host, prompt, (), 6).tokens
    assert amplify(host, sae, [0, 1], factor=1.0, site=site).generate(prompt, 6).tokens == native
    assert amplify(host, sae, [0, 1], amount=40.0, site=site, positions=ends).generate(prompt, 6).tokens != native
    with pytest.raises(InputError, match="either a factor"):
        amplify(host, sae, [0])


def test_wrong_calls_are_one_line(host: Host) -> None:
    from random_hosts import dictionary

    sae = dictionary(host, Site(5, 0))
    calls: list[tuple[str, Callable[[], object]]] = [
        ("does not say which head", lambda: erase(host, sae, [1])),
        ("must be a model", lambda: erase("tiny-gdn", sae, [1], site="L5.H0")),  # type: ignore[arg-type]
        ("a dict was given as a dictionary", lambda: place(host, {}, "L5.H0")),  # type: ignore[arg-type]
        ("a float was given as a site", lambda: erase(host, 5.0)),  # type: ignore[arg-type]
        ("features belong to a dictionary", lambda: erase(host, "L5.H0", [1])),
        ("and site L4.H1 besides", lambda: erase(host, "L5.H0", site="L4.H1")),
        ("no option form: it is called native_write", lambda: erase(host, "L5.H0", form="value")),  # type: ignore[call-arg]
        ("no option when: it is called positions", lambda: erase(host, "L5.H0", when=At((1,)))),  # type: ignore[call-arg]
        ("timing 'later' is none of after_token", lambda: erase(host, "L5.H0", timing="later")),  # type: ignore[arg-type]
        ("features 99 were asked", lambda: amplify(host, sae, 99, factor=2, site="L5.H0")),
        ("such as {412: 2.0}", lambda: clamp(host, sae, [3], site="L5.H0")),  # type: ignore[arg-type]
        ("not as 7", lambda: erase(host, "L5.H0").generate(7)),  # type: ignore[arg-type]
        ("not as [[1, 'x']]", lambda: erase(host, "L5.H0").generate([[1, "x"]])),  # type: ignore[arg-type]
        ("its last is 4095", lambda: erase(host, "L5.H0").generate([4096])),
        ("2 texts were given", lambda: erase(host, "L5.H0").compare(["In", "the"])),
        ("is none of closed, exact, random", lambda: install(host, "L5.H0", target=" war", direction="best")),  # type: ignore[arg-type]
        ("not whole numbers", lambda: erase(host, "L5.H0", positions=[0.5])),  # type: ignore[list-item]
    ]
    for message, call in calls:
        with pytest.raises(InputError) as caught:
            call()
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_prompt_is_text_or_ids(host: Host) -> None:
    ids = host.tokenizer.encode("In the year")
    plan = erase(host, "L5.H0")
    expected = plan.generate("In the year", 3).tokens
    for prompt in (ids, [ids], torch.tensor(ids), torch.tensor([ids])):
        assert plan.generate(prompt, 3).tokens == expected


def test_positions_from_the_start_install_as_those_from_the_end(host: Host) -> None:
    prompt = host.tokenizer.encode("The President of the United States")
    made = [
        install(host, "L5.H0", target=" war", positions=p).edits([prompt])[0] for p in ([1, -1], [1 - len(prompt), -1])
    ]
    assert made[0].when == made[1].when
    assert torch.equal(*(edit.what.key for edit in made))  # type: ignore[attr-defined]


def test_a_dictionary_on_another_device_is_copied_to_the_layer_s(host: Host) -> None:
    from random_hosts import dictionary

    sae = dictionary(host, Site(5, 0)).to("meta")
    placed = place(host, dictionary(host, Site(5, 0)), "L5.H0")
    assert placed.sae.v_dec.device == host.device
    with pytest.raises(NotImplementedError):  # a tensor without data cannot be copied: it was tried
        place(host, sae, "L5.H0")
    assert sae.v_dec.device.type == "meta"


def test_a_checkpoint_s_own_generation_settings_take_no_part(any_host: Host) -> None:
    """A penalty, tokens that are forbidden, sampling: only the end tokens are the checkpoint's, all of them."""
    prompt = some_tokens(5, 2, 6)
    plain = generate(any_host, prompt, (), 7, stop_at_end=False)
    own = any_host.model.generation_config
    assert isinstance(own, GenerationConfig)
    third = plain.tokens[0][2]
    any_host.model.generation_config = GenerationConfig(  # type: ignore[no-untyped-call]
        repetition_penalty=1.9, suppress_tokens=plain.tokens[0][:1], do_sample=True, top_k=3, num_beams=2,
        eos_token_id=[third, 1],
    )  # fmt: skip
    try:
        assert generate(any_host, prompt, (), 7, stop_at_end=False).tokens == plain.tokens
        ended = generate(any_host, prompt, (), 7)
    finally:
        any_host.model.generation_config = own
    assert {third, 1} <= set(ended.ends)
    assert plain.ends == ()
    assert ended.sampling == Sampling()
    for found, whole in zip(ended.tokens, plain.tokens, strict=True):
        assert found == whole[: next((i for i, token in enumerate(whole) if token in ended.ends), 7)]
