"""`writesae attribute`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from random_hosts import dictionary
from writesae.artifacts import save_sae
from writesae.cli import main
from writesae.hosts import Host
from writesae.sae import Record
from writesae.types import Site

PROMPT = "The capital of the country is"


def test_lists_pictures_and_json(host: Host, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site = Site(5, 0)
    save_sae(dictionary(host, site, features=101, k=5), tmp_path / "sae", Record(host="tiny-gdn", site=site))
    out, page = tmp_path / "a.json", tmp_path / "a.html"
    main(
        ["attribute", PROMPT, "--target", " the", "--top", "3", "--check", "--html", str(page), "--json", str(out),
         "--sae", str(tmp_path / "sae")]
    )  # fmt: skip
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("native writes", "atoms", "too few or too alike", "the prices of heads"))
    data = json.loads(out.read_text(encoding="utf-8"))
    assert data["target"] == {"kind": "Logit", "tokens": host.tokenizer.encode(" the"), "position": -1}
    assert (len(data["top_writes"]), len(data["top_atoms"])) == (3, 3)
    assert [len(data["checks"][name]["items"]) for name in ("heads", "layers")] == [36, 6]
    total = sum(x for layer in data["writes"].values() for row in layer for x in row)
    assert sum(data["layers"].values()) == pytest.approx(total, abs=1e-3)
    assert "too few" in data["checks"]["atoms"]["verdict"]
    assert data["measured_on"]["revision"] == host.revision
    assert {item.split()[1] for item in data["checks"]["atoms"]["items"]} == {"atom"}
    assert all(title in page.read_text(encoding="utf-8") for title in ("Atoms of L5.H0", "Deleted for real"))


@pytest.mark.parametrize(
    ("flags", "kind"),
    [([], "Logit"), (["--target", " the", "--against", " a"], "LogitDifference"), (["--quantity", "loss"], "TextLoss"),
     (["--quantity", "logprob"], "LogProbability")],
)  # fmt: skip
def test_targets(flags: list[str], kind: str, tmp_path: Path) -> None:
    out = tmp_path / "a.json"
    main(["attribute", PROMPT, "--layers", "5", "--json", str(out), *flags])
    assert json.loads(out.read_text(encoding="utf-8"))["target"]["kind"] == kind


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([PROMPT, "--target", "Paris"], "is not one token of tiny-gdn"),
        ([PROMPT, "--position", "6"], "outside a prompt of 6 tokens"),
        ([PROMPT, "--layers", "3"], "no recurrent layer 3"),
        ([PROMPT, "--quantity", "loss", "--target", " the"], "has no target token"),
        ([PROMPT, "--dictionary", "L5.H0"], "--dictionary is called --sae now"),
        ([PROMPT, "--form", "value"], "--form is called --native-write now"),
        ([PROMPT, "--top", "0"], "give at least 1"),
        (["", "--target", " the"], "a prompt is empty"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["attribute", *arguments])
    assert exit_.value.code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("writesae: ")]
    assert len(lines) == 1
    assert message in lines[0]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--sae", "nowhere"], "nowhere"),
        (["--json", "FOLDER/manifest.json/a.json"], "manifest.json is a file"),
        (["--html", "FOLDER"], "is a folder"),
        (["--layers", "x"], "are not written like"),
    ],
)
def test_cheap_mistakes_are_found_before_the_host_is_loaded(
    flags: list[str], message: str, host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    save_sae(dictionary(host, Site(5, 0)), tmp_path / "sae", Record(host="tiny-gdn", site=Site(5, 0)))
    monkeypatch.setattr("writesae.hosts.load", lambda *_, **__: pytest.fail("the host was loaded"))
    with pytest.raises(SystemExit):
        main(["attribute", PROMPT, *(flag.replace("FOLDER", str(tmp_path / "sae")) for flag in flags)])
    assert message in capsys.readouterr().err


def test_device_and_dtype_reach_the_host(tmp_path: Path) -> None:
    out = tmp_path / "a.json"
    main(["attribute", PROMPT, "--layers", "5", "--json", str(out), "--dtype", "bfloat16", "--device", "cpu"])
    assert json.loads(out.read_text(encoding="utf-8"))["measured_on"]["dtype"] == "bfloat16"


def test_files_are_written_before_anything_is_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "a.json"

    def closed(*_: object, **__: object) -> None:
        raise BrokenPipeError

    monkeypatch.setattr("rich.console.Console.print", closed)
    for command in (["attribute", PROMPT, "--layers", "5"], ["edit", "erase", PROMPT, "--site", "L5.H0"]):
        with pytest.raises(BrokenPipeError):
            main([*command, "--json", str(out)])
        assert json.loads(out.read_text(encoding="utf-8"))
        out.unlink()
