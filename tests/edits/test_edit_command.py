"""`writesae edit`, what it says that it did, and the marking of changed tokens."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from random_hosts import dictionary
from writesae.artifacts import save_sae
from writesae.causal.identity import sae_hash
from writesae.cli import main
from writesae.edits import At, EraseWrite, clamp, edited, erase, install
from writesae.edits.compare import mark_changes
from writesae.hosts import Host
from writesae.sae import SAE, Record
from writesae.types import Site

PROMPT = "The President of the United States said that"
L5 = ["--site", "L5.H0"]


@pytest.fixture
def sae(host: Host) -> SAE:
    """A dictionary that knows where it belongs."""
    made = dictionary(host, Site(5, 0))
    made.record = Record(host="tiny-gdn", host_revision=host.revision, site=Site(5, 0))
    return made


@pytest.fixture
def folder(sae: SAE, tmp_path: Path) -> str:
    save_sae(sae, tmp_path / "sae")
    return str(tmp_path / "sae")


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().out.split())


def test_changed_tokens_have_no_partner() -> None:
    left, right = mark_changes([1, 2, 3, 4], [1, 9, 3, 4, 5])
    assert left == [False, True, False, False]
    assert right == [False, True, False, False, True]
    assert mark_changes([1, 2], [1, 2]) == ([False, False], [False, False])


def test_install_prints_both_sides_and_writes_files(
    host: Host, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, page = tmp_path / "edit.json", tmp_path / "edit.html"
    main(
        ["edit", "install", PROMPT, *L5, "--target", " war", "--magnitude", "8", "--positions", "4",
         "--new-tokens", "6", "--json", str(out), "--html", str(page)]
    )  # fmt: skip
    printed = said(capsys)
    data = json.loads(out.read_text(encoding="utf-8"))
    assert (len(data["unedited"]), len(data["edited"]), data["measured_on"]["host"]) == (6, 6, "tiny-gdn")
    assert (data["measured_on"]["dtype"], data["measured_on"]["revision"]) == ("float32", host.revision)
    changed = [token["id"] for token in data["unedited"]] != [token["id"] for token in data["edited"]]
    assert changed == any(token["changed"] for token in data["edited"])
    assert changed or "changed no token" in printed
    assert "at the last 4 tokens of the prompt" in data["edits"][0]
    (moved,) = data["effect"]["tokens"]
    assert moved["text"] == " war"
    assert moved["logit"][1] > moved["logit"][0]
    places = zip(range(4, 8), host.read(data_tokens := host.tokenizer.encode(PROMPT))[4:], strict=True)
    assert f"edited 4 places: {', '.join(f'{place} {text!r}' for place, text in places)}" in printed
    assert len(data_tokens) == 8
    assert f"KL {data['effect']['kl']:.4g} nats" in printed
    text = page.read_text(encoding="utf-8")
    assert all(word in text for word in ("edited 4 places", "logit", "unedited", "&#x27; war&#x27;"))


def test_what_an_edit_did_is_measured(host: Host, sae: SAE) -> None:
    """The numbers against plain edited and unedited runs."""
    tokens = torch.tensor([host.tokenizer.encode(PROMPT)])
    plan = clamp(host, sae, {3: 40.0, 5: 0.0}, positions=[2, -1], timing="at_token")
    effect = plan.compare(PROMPT, 3).effect
    before, after = (x[0, -1].double() for x in (host.logits(tokens), plan.logits(tokens)))
    best = int(before.argmax())
    (moved,) = effect.tokens
    assert (effect.step, moved.token) == (0, best)
    assert effect.kl == pytest.approx(
        float((before.softmax(-1) * (before.log_softmax(-1) - after.log_softmax(-1))).sum()), rel=1e-3
    )
    assert moved.logit == pytest.approx((float(before[best]), float(after[best])), abs=1e-4)
    assert moved.probability[1] == pytest.approx(float(after.softmax(-1)[best]), rel=1e-4)
    assert moved.rank == (1, int((after > after[best]).sum()) + 1)
    assert effect.places == (2, tokens.shape[1] - 1)
    codes = host_codes(host, sae, tokens)[0, [2, -1]] > 0
    assert [(f.feature, f.fired, f.places) for f in effect.fired] == [(i, int(codes[:, i].sum()), 2) for i in (3, 5)]


def host_codes(host: Host, sae: SAE, tokens: torch.Tensor) -> torch.Tensor:
    stream = host.record(tokens, [5])[5].heads(0)
    matrices = torch.einsum("btk,btv->btkv", stream.key[:, :, 0], stream.value[:, :, 0])
    return sae.encode(matrices).dense(sae.config.features)


def test_the_first_token_that_reads_an_edit_is_scored(host: Host) -> None:
    """Under after_token a write at the last token is read one token later; one that is never read is said so."""
    late = install(host, "L5.H0", target=" war", magnitude=9.0, positions=1).compare(PROMPT, 4).effect
    assert late.step == 1
    assert late.kl > 0
    nothing = install(host, "L5.H0", target=" war", magnitude=0.0).compare(PROMPT, 4)
    assert (nothing.effect.kl, nothing.changed) == (0, False)
    assert "no compared token reads the edit" in str(nothing)


def test_erase_and_amplify_with_a_dictionary(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--sae", folder, "--features", "1,2", "--new-tokens", "4"]
    main(["edit", "erase", PROMPT, *flags, "--positions", "2,-1"])
    printed = said(capsys)
    assert "L5.H0: multiply features 1, 2 by 0, at positions 2, -1" in printed
    assert "of the 2 places edited" in printed
    main(["edit", "amplify", PROMPT, *flags, "--amount", "60", "--positions", "sentence-ends"])
    assert "add 60 to features 1, 2" in said(capsys)
    main(["edit", "amplify", PROMPT, *flags, "--factor", "1"])
    assert "the edit changed no token" in said(capsys)


@pytest.mark.parametrize(
    ("words", "described"),
    [
        (["suppress", "--features", "1,2", "--factor", "0.25"], "multiply features 1, 2 by 0.25, always (everywhere)"),
        (["suppress", "--features", "1", "--positions", "generated"], "multiply features 1 by 0, always (generated)"),
        (["clamp", "--features", "4,2", "--value", "0"], "clamp feature 4 to 0, feature 2 to 0"),
        (["replace", "--positions", "firing:3"], "by the top atom at its coefficient, where feature 3 fires above 0"),
        (
            ["replace", "--features", "5", "--amplitude", "norm", "--positions", "-1"],
            "by atom 5 at its norm, at the last token of the prompt",
        ),
        (["replace", "--positions", "2"], "at the last 2 tokens of the prompt"),
        (["erase", "--positions", "firing:3"], "erase the native write (delta), where feature 3 fires above 0"),
        (["erase", "--positions", "at:2"], "at positions 2"),
        (["install", "--target", " war", "--positions", "prompt"], "at positions of the prompt, such as 3 or -1, not"),
    ],
)
def test_positions_and_features_mean_the_same_in_every_edit(
    words: list[str], described: str, folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        main(["edit", words[0], PROMPT, *words[1:], "--sae", folder, "--new-tokens", "3"])
    except SystemExit:
        assert described in capsys.readouterr().err
    else:
        assert described in said(capsys)


def test_a_write_is_transplanted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A write put in its own place changes nothing; another's, on top, is named."""
    flags = [*L5, "--new-tokens", "3", "--json", str(tmp_path / "t.json")]
    main(["edit", "transplant", PROMPT, "--source", PROMPT, *flags])
    assert "the edit changed no token" in said(capsys)
    main(["edit", "transplant", PROMPT, "--source", "In the year", "--positions", "at:2", "--keep", *flags])
    edits = json.loads((tmp_path / "t.json").read_text(encoding="utf-8"))["edits"]
    assert edits == ["L5.H0: transplant a write, at positions 2, after_token"]


def test_text_is_handed_out_as_it_comes(
    host: Host, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = install(host, Site(5, 0), target=" war", magnitude=20.0, timing="at_token")
    pieces: list[tuple[str, str]] = []
    found = plan.compare(PROMPT, 5, on_text=lambda side, text: pieces.append((side, text)))
    for side, tokens in (("unedited", found.unedited), ("edited", found.edited)):
        assert [text for name, text in pieces if name == side] == [token.text for token in tokens]
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    main(["edit", "erase", PROMPT, *L5, "--new-tokens", "2"])
    out = capsys.readouterr().out
    assert out.index("unedited") < out.index("edited  ") < out.index(PROMPT)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["install", PROMPT, *L5, "--target", "Paris"], "is not one token of tiny-gdn: it splits into"),
        (["install", PROMPT, *L5], "install needs --target"),
        (["install", PROMPT, "--site", "L5.H9", "--target", " war"], "heads 0 to 5, not 9"),
        (["install", PROMPT, "--site", "L3.H0", "--target", " war"], "no recurrent layer 3"),
        (["install", PROMPT, "--site", "5.0", "--target", " war"], "not written like L9.H4"),
        (["install", PROMPT, "--target", " war"], "which head is to be edited? Give --site"),
        (["install", PROMPT, *L5, "--target", " war", "--positions", "99"], "the last 99 tokens of a prompt of"),
        (["install", PROMPT, *L5, "--target", " war", "--positions", "x"], "are none of all, prompt, generated"),
        (["install", PROMPT, *L5, "--target", " war", "--magnitude", "nan"], "finite number"),
        (["install", PROMPT, *L5, "--target", " war", "--magnitude", "1e39"], "overflow"),
        (
            ["install", PROMPT, *L5, "--target", " war", "--magnitude", "1e37"],
            "layer 5 overflows by the edit L5.H0: install ' war' (exact) at 1e+37 x the native write's norm",
        ),
        (["install", "", *L5, "--target", " war"], "a prompt is empty"),
        (["erase", PROMPT, *L5, "--positions", "at:40"], "position 40, which was never reached"),
        (["erase", PROMPT, *L5, "--positions", "-40"], "before a prompt of"),
        (["erase", PROMPT, *L5, "--positions", "99"], "the last 99 tokens of a prompt of"),
        (["erase", PROMPT, *L5, "--reading", "increment"], "--reading has no effect on erase"),
        (["erase", PROMPT, *L5, "--positions", "0"], "give 1 or more"),
        (["erase", PROMPT, *L5, "--features", "3"], "features belong to a dictionary"),
        (["erase", PROMPT, *L5, "--magnitude", "3"], "--magnitude has no effect on erase"),
        (["clamp", PROMPT, *L5, "--features", "2", "--value", "0"], "clamp needs --sae"),
        (["replace", PROMPT, *L5], "replace needs --sae"),
        (["erase", PROMPT, *L5, "--positions", "never"], "'never' are none of all, prompt, generated"),
        (["erase", PROMPT, *L5, "--positions", "firing:x"], "not written like"),
        (["erase", PROMPT, *L5, "--positions", "firing:3"], "need one feature of a dictionary"),
        (["transplant", PROMPT, *L5], "transplant needs --source"),
        (["transplant", PROMPT, *L5, "--source", "In", "--source-position", "5"], "position 5 was asked"),
        (["erase", PROMPT, *L5, "--new-tokens", "0"], "give at least 1"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["edit", *arguments])
    assert exit_.value.code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("writesae: ")]
    assert len(lines) == 1
    assert message in lines[0]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--sae", "nowhere"], "nowhere"),
        (["--sae", "FOLDER", "--features", "13"], "features 13 were asked of a dictionary with features 0 to 12"),
        (["--sae", "FOLDER", "--positions", "firing:13"], "features 13 were asked"),
        ([*L5, "--json", "FOLDER/manifest.json/edit.json"], "manifest.json is a file"),
        ([*L5, "--html", "FOLDER"], "is a folder"),
        ([*L5, "--positions", "1,x"], "are not written like"),
    ],
)
def test_cheap_mistakes_are_found_before_the_host_is_loaded(
    flags: list[str], message: str, folder: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("writesae.hosts.load", lambda *_, **__: pytest.fail("the host was loaded"))
    with pytest.raises(SystemExit):
        main(["edit", "erase", PROMPT, *(flag.replace("FOLDER", folder) for flag in flags)])
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("record", "flags", "message"),
    [
        (
            {"host_revision": "0123456789abcdef"},
            [],
            "of tiny-gdn revision 0123456789ab, not of tiny-gdn revision 5c17f11d5f0b, whose weights",
        ),
        ({"host": "elsewhere", "host_revision": None}, [], "of elsewhere, not of tiny-gdn"),
        ({}, ["--site", "L4.H1"], "of L5.H0, not of L4.H1"),
    ],
)
def test_a_dictionary_of_another_host_or_head(
    record: dict[str, str], flags: list[str], message: str, sae: SAE, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Refused in one line, and named in the result where it is allowed; weights count, a folder's name does not."""
    assert sae.record is not None
    save_sae(sae, tmp_path / "sae", replace(sae.record, **record))  # type: ignore[arg-type]
    words = ["edit", "erase", PROMPT, "--sae", str(tmp_path / "sae"), "--features", "1", "--new-tokens", "2", *flags]
    with pytest.raises(SystemExit):
        main(words)
    assert message in capsys.readouterr().err
    main([*words, "--allow", "mismatch", "--json", str(tmp_path / "e.json")])
    assert f"allowed mismatch: the dictionary is {message}" in said(capsys)
    data = json.loads((tmp_path / "e.json").read_text(encoding="utf-8"))
    assert message in data["overruled"][0]
    (source,) = data["measured_on"]["dictionaries"]
    assert (source["target"], source["sha256"]) == ("write-value", sae_hash(sae))
    assert str(tmp_path) not in json.dumps(data)  # results are published


def test_weights_are_compared_not_names(host: Host, sae: SAE) -> None:
    assert sae.record is not None
    sae.record = replace(sae.record, host="./somewhere/else")
    assert erase(host, sae, [1]).overruled == ()


def test_plans_show_themselves(host: Host, sae: SAE) -> None:
    plan = erase(host, sae, [1, 2], positions=3) + edited(host, "L4.H1", EraseWrite(), positions=At((1,)))
    assert "multiply features 1, 2 by 0, at the last 3 tokens of the prompt" in repr(plan)
    found = plan.compare("<b>" + PROMPT, 2)
    shown = found._repr_html_()  # type: ignore[attr-defined]
    assert "&lt;b&gt;" in shown
    assert "<b>" not in shown
    last = len(host.tokenizer.encode("<b>" + PROMPT))
    assert found.effect.places == (1, last - 3, last - 2, last - 1)
