"""`writesae attribute`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from random_hosts import dictionary
from writesae.artifacts import save_sae
from writesae.cli import COMMANDS, main
from writesae.hosts import Host
from writesae.sae import Record
from writesae.types import Site

PROMPT = "The capital of the country is"


@pytest.fixture(autouse=True)
def listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(COMMANDS, "attribute", "price writes")


def test_lists_pictures_and_json(host: Host, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site = Site(5, 0)
    save_sae(dictionary(host, site, features=101, k=5), tmp_path / "sae", Record(host="tiny-gdn", site=site))
    out, page = tmp_path / "a.json", tmp_path / "a.html"
    main(
        ["attribute", PROMPT, "--target", " the", "--top", "3", "--check", "--html", str(page), "--json", str(out),
         "--dictionary", f"L5.H0={tmp_path / 'sae'}"]
    )  # fmt: skip
    printed = capsys.readouterr().out
    assert all(
        word in printed for word in ("native writes", "atoms", "deleting heads for real", "deleting atoms for real")
    )
    data = json.loads(out.read_text(encoding="utf-8"))
    assert data["target"] == {"kind": "Logit", "tokens": host.tokenizer.encode(" the"), "position": -1}
    assert (len(data["top_writes"]), len(data["top_atoms"]), len(data["checks"]["heads"]["items"])) == (3, 3, 42)
    total = sum(x for layer in data["writes"].values() for row in layer for x in row)
    assert sum(data["layers"].values()) == pytest.approx(total, abs=1e-3)
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
        ([PROMPT, "--dictionary", "L5.H0"], "not written like L5.H0=FOLDER"),
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
