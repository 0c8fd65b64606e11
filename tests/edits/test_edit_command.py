"""`writesae edit`, and the marking of changed tokens."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from random_hosts import dictionary
from writesae.artifacts import save_sae
from writesae.cli import COMMANDS, main
from writesae.edits import install
from writesae.edits.compare import compare, mark_changes
from writesae.hosts import Host
from writesae.sae import Record
from writesae.types import Site

PROMPT = "The President of the United States said that"


@pytest.fixture(autouse=True)
def listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(COMMANDS, "edit", "edit what a host writes")


def test_changed_tokens_have_no_partner() -> None:
    left, right = mark_changes([1, 2, 3, 4], [1, 9, 3, 4, 5])
    assert left == ("same", "changed", "same", "same")
    assert right == ("same", "changed", "same", "same", "changed")
    assert mark_changes([1, 2], [1, 2]) == (("same", "same"), ("same", "same"))


def test_install_prints_both_sides_and_writes_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "edit.json"
    main(
        ["edit", "install", PROMPT, "--site", "L5.H0", "--target", " war", "--magnitude", "8", "--positions", "4",
         "--new-tokens", "6", "--json", str(out)]
    )  # fmt: skip
    printed = capsys.readouterr().out
    assert "unedited" in printed
    data = json.loads(out.read_text(encoding="utf-8"))
    assert (len(data["native"]), len(data["edited"]), data["host"]) == (6, 6, "tiny-gdn")
    changed = [token["id"] for token in data["native"]] != [token["id"] for token in data["edited"]]
    assert changed == any(token["mark"] == "changed" for token in data["edited"])
    assert changed or "changed no token" in printed
    assert "at positions -4, -3, -2, -1" in data["edits"][0]


def test_erase_and_amplify_with_a_dictionary(host: Host, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site = Site(5, 0)
    save_sae(dictionary(host, site), tmp_path / "sae", Record(host="tiny-gdn", site=site))
    flags = ["--site", "L5.H0", "--dictionary", str(tmp_path / "sae"), "--features", "1,2", "--new-tokens", "4"]
    main(["edit", "erase", PROMPT, *flags, "--when", "2,-1"])
    assert "multiply features 1, 2 by 0, at positions 2, -1" in " ".join(capsys.readouterr().out.split())
    main(["edit", "amplify", PROMPT, *flags, "--amount", "60", "--when", "sentence-ends"])
    assert "add 60 to features 1, 2" in " ".join(capsys.readouterr().out.split())
    main(["edit", "amplify", PROMPT, *flags, "--factor", "1"])
    assert "the edit changed no token" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "described"),
    [
        (["suppress", "--features", "1,2", "--factor", "0.25"], "multiply features 1, 2 by 0.25, always (everywhere)"),
        (["suppress", "--features", "1", "--when", "generated"], "multiply features 1 by 0, always (generated)"),
        (["clamp", "--features", "4", "--value", "9"], "clamp feature 4 to 9"),
        (["replace", "--when", "firing:3"], "by the top atom at its coefficient, where feature 3 fires above 0"),
        (
            ["replace", "--feature", "5", "--amplitude", "norm", "--when", "-1"],
            "by atom 5 at its norm, at positions -1",
        ),
        (["erase", "--when", "firing:3"], "erase the native write (delta form), where feature 3 fires above 0"),
    ],
)
def test_the_other_edits_of_features(
    words: list[str], described: str, host: Host, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_sae(dictionary(host, Site(5, 0)), tmp_path / "sae", Record(host="tiny-gdn", site=Site(5, 0)))
    flags = ["--site", "L5.H0", "--dictionary", str(tmp_path / "sae"), "--new-tokens", "3", "--no-stream"]
    main(["edit", words[0], PROMPT, *words[1:], *flags])
    assert described in " ".join(capsys.readouterr().out.split())


def test_a_write_is_transplanted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A write put in its own place changes nothing; another's, on top, is named."""
    flags = ["--site", "L5.H0", "--new-tokens", "3", "--json", str(tmp_path / "t.json")]
    main(["edit", "transplant", PROMPT, "--source", PROMPT, *flags])
    assert "the edit changed no token" in capsys.readouterr().out
    main(["edit", "transplant", PROMPT, "--source", "In the year", "--position", "2", "--keep", *flags])
    edits = json.loads((tmp_path / "t.json").read_text(encoding="utf-8"))["edits"]
    assert edits == ["L5.H0: transplant a write, at positions 2, after_token"]


def test_text_is_handed_out_as_it_comes(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    plan = install(host, Site(5, 0), target=" war", magnitude=20.0, timing="at_token")
    pieces: list[tuple[str, str]] = []
    found = compare(plan, PROMPT, 5, on_text=lambda side, text: pieces.append((side, text)))
    for side, texts in (("unedited", found.native_texts), ("edited", found.edited_texts)):
        assert [text for name, text in pieces if name == side] == list(texts)
    main(["edit", "erase", PROMPT, "--site", "L5.H0", "--new-tokens", "2"])
    out = capsys.readouterr().out
    assert out.index("unedited") < out.index("edited  ") < out.index(PROMPT)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["install", PROMPT, "--site", "L5.H0", "--target", "Paris"], "is not one token of tiny-gdn: it splits into"),
        (["install", PROMPT, "--site", "L5.H0"], "no target token was given"),
        (["install", PROMPT, "--site", "L5.H9", "--target", " war"], "heads 0 to 5, not 9"),
        (["install", PROMPT, "--site", "L3.H0", "--target", " war"], "no recurrent layer 3"),
        (["install", PROMPT, "--site", "5.0", "--target", " war"], "not written like L9.H4"),
        (["install", PROMPT, "--site", "L5.H0", "--target", " war", "--positions", "99"], "do not all lie in a prompt"),
        (["install", PROMPT, "--site", "L5.H0", "--target", " war", "--positions", "x"], "not written like"),
        (["install", PROMPT, "--site", "L5.H0", "--target", " war", "--magnitude", "nan"], "finite number"),
        (["install", PROMPT, "--site", "L5.H0", "--target", " war", "--magnitude", "1e39"], "overflow"),
        (
            ["install", PROMPT, "--site", "L5.H0", "--target", " war", "--magnitude", "1e37"],
            "layer 5 overflows by the edit L5.H0: install ' war' (exact) at 1e+37 x the native write's norm",
        ),
        (["install", "", "--site", "L5.H0", "--target", " war"], "a prompt is empty"),
        (["erase", PROMPT, "--site", "L5.H0", "--when", "40"], "position 40, which was never reached"),
        (["erase", PROMPT, "--site", "L5.H0", "--when", "-40"], "before a prompt of"),
        (["erase", PROMPT, "--site", "L5.H0", "--features", "3"], "features belong to a dictionary"),
        (["amplify", PROMPT, "--site", "L5.H0", "--factor", "2"], "amplify needs --dictionary"),
        (["clamp", PROMPT, "--site", "L5.H0", "--features", "2"], "clamp needs --dictionary"),
        (["replace", PROMPT, "--site", "L5.H0"], "replace needs --dictionary"),
        (["erase", PROMPT, "--site", "L5.H0", "--when", "never"], "'never' is none of always, prompt, generated"),
        (["erase", PROMPT, "--site", "L5.H0", "--when", "firing:x"], "not written like"),
        (["erase", PROMPT, "--site", "L5.H0", "--when", "firing:3"], "needs --dictionary FOLDER with that feature"),
        (["transplant", PROMPT, "--site", "L5.H0"], "a prompt is empty"),
        (["transplant", PROMPT, "--site", "L5.H0", "--source", "In", "--source-position", "5"], "position 5 was asked"),
        (["erase", PROMPT, "--site", "L5.H0", "--new-tokens", "0"], "give at least 1"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["edit", *arguments])
    assert exit_.value.code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("writesae: ")]
    assert len(lines) == 1
    assert message in lines[0]


def test_a_dictionary_of_another_host_or_head(host: Host, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site = Site(5, 0)
    save_sae(dictionary(host, site), tmp_path / "other", Record(host="other-host", site=site))
    save_sae(dictionary(host, site), tmp_path / "head", Record(host="tiny-gdn", site=Site(4, 1)))
    for name, message in (("other", "asked for host tiny-gdn"), ("head", "asked for site L5.H0")):
        flags = ["--dictionary", str(tmp_path / name), "--features", "1", "--site", "L5.H0"]
        with pytest.raises(SystemExit):
            main(["edit", "erase", PROMPT, *flags])
        assert message in capsys.readouterr().err
