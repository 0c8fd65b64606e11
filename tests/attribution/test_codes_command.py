"""`writesae codes`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import writesae as ws
from random_hosts import dictionary
from writesae.artifacts import save_sae
from writesae.cli import main
from writesae.hosts import Host
from writesae.sae import Record
from writesae.types import Site

TEXT = "The capital of the country is"


def test_the_command_lists_what_the_call_finds(host: Host, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As plain lines where nobody looks on, none of them cut."""
    site = Site(5, 0)
    save_sae(dictionary(host, site, features=101, k=5), tmp_path / "sae", Record(host="tiny-gdn", site=site))
    out, page = tmp_path / "a.json", tmp_path / "a.html"
    main(["codes", TEXT, "--sae", str(tmp_path / "sae"), "--top", "5", "--json", str(out), "--html", str(page)])
    printed = capsys.readouterr().out
    found = ws.codes(host, ws.load_sae(tmp_path / "sae"), TEXT, top=5)
    rows = json.loads(out.read_text("utf-8"))["records"]
    assert [(row["position"], row["feature"]) for row in rows] == list(
        zip(found.records.position, found.records.feature, strict=True)
    )
    assert rows[0]["words"] == list(found.records.words[0])
    last = [str(row["feature"]) for row in rows if row["position"] == found.records.position.max()]
    line = next(line for line in printed.splitlines() if " country" not in line and all(f in line for f in last))
    assert len(line) > 80
    assert "\u2026" not in printed
    assert "capital" in page.read_text("utf-8")


def test_a_dictionary_of_states_is_read_by_increment(tmp_path: Path) -> None:
    out = tmp_path / "a.json"
    command = ["codes", "Anna has the lamp.", "--sae", "memory-gdn/state", "--host", "memory-gdn", "--json", str(out)]
    main([*command, "--reading", "increment", "--native-write", "value"])
    rows = json.loads(out.read_text("utf-8"))["records"]
    host, sae = ws.load("memory-gdn"), ws.load_sae("memory-gdn/state")
    found = ws.codes(host, sae, "Anna has the lamp.", reading="increment", native_write="value")
    assert [row["feature"] for row in rows] == found.records.feature.tolist()
    assert [row["feature"] for row in rows] != ws.codes(host, sae, "Anna has the lamp.").records.feature.tolist()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--sae", "memory-gdn/write", "--reading", "increment"], "a dictionary of writes has one reading"),
        (["--sae", "memory-gdn/state", "--native-write", "value"], "no effect without --reading increment"),
        (["--sae", "none"], "no folder none"),
        (["--sae", "none", "--top", "0"], "give at least 1"),
        ([], "missing: --sae"),
    ],
)
def test_what_is_asked_wrongly_is_one_line(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["codes", TEXT, *words])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
