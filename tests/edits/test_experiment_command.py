"""`writesae experiment`."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from random_hosts import dictionary
from writesae.artifacts import save_sae
from writesae.cli import main
from writesae.hosts import Host
from writesae.sae import Record
from writesae.types import Site


def run(out: Path, *words: str) -> dict[str, object]:
    main(["experiment", *words, "--out", str(out)])
    page = (out / "plot.html").read_text(encoding="utf-8")
    assert "<script src=" not in page
    found: dict[str, object] = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    return found


def test_sign_is_printed_written_and_resumed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["sign", "--host", "random:mamba2", "--site", "L0.H1", "--n", "53", "--length", "7", "--magnitudes", "0.1"]
    found = run(tmp_path, *words)
    assert (found["name"], found["n"]) == ("sign", 53)
    printed = capsys.readouterr().out
    assert "sign: random:mamba2, L0.H1, n 53, dose 0.1" in printed
    assert max(map(len, printed.splitlines())) <= 80
    assert len(pd.read_parquet(tmp_path / "records.parquet")) == 53 * 3 * 2
    for part in (tmp_path / "parts").glob("part-0-*"):
        part.unlink()
    assert run(tmp_path, *words) == found


def test_installs_and_proper_nouns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = ["--n", "5", "--new-tokens", "2", "--magnitudes", "2"]
    found = run(tmp_path / "i", "installs", *few, "--ranks", "3", "9", "9", "27", "--positions", "1", "3")
    rows = found["summary"]["rows"]  # type: ignore[index]
    assert len(rows) == 3 * 2 * 2
    assert {tuple(row["ranks"]) for row in rows} == {(3, 9), (9, 27)}
    found = run(tmp_path / "n", "proper-nouns", *few, "--directions", "closed")
    assert len(found["summary"]["rows"]) == 2  # type: ignore[index]
    assert "undecided" in capsys.readouterr().out  # five contexts exclude nothing


def test_erasure_and_amplification(host: Host, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = []
    for site in (Site(5, 0), Site(4, 1)):
        save_sae(dictionary(host, site, features=31), tmp_path / str(site), Record(host="tiny-gdn", site=site))
        folders.append(f"{site}={tmp_path / str(site)}")
    found = run(
        tmp_path / "e", "erasure", "--dictionary", str(tmp_path / "L5.H0"), "--features", "3", "7", "--n", "3",
        "--length", "20", "--firings", "5", "--doses", "1",
    )  # fmt: skip
    assert len(found["summary"]["rows"]) == 4  # type: ignore[index]
    found = run(
        tmp_path / "a", "amplification", "--dictionaries", *folders, "--pattern", "[.]$", "--n", "3", "--passages", "2",
        "--features", "3", "--doses", "4", "--new-tokens", "5",
    )  # fmt: skip
    assert set(found["summary"]["features"]) == {"L5.H0", "L4.H1"}  # type: ignore[index]
    assert "p random" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["sign", "--host", "random:gpt"], "unknown tiny model 'gpt'"),
        (["sign", "--site", "L3.H0"], "no recurrent layer 3"),
        (["sign", "--ranks", "5", "5"], "not within a vocabulary of 4096"),
        (["sign", "--n", "0"], "cannot draw 0 passages"),
        (["installs", "--n", "99999"], "99999 were asked for"),
        (["installs", "--sites", "L5.H9"], "heads 0 to 5"),
        (["installs", "--positions", "30"], "do not all lie in a prompt of 24 tokens"),
        (["installs", "--magnitudes"], "needs a direction, a magnitude"),
        (["erasure"], "'L5.H0=' is not written like L5.H0=FOLDER"),
        (["amplification"], "no head was given"),
        (["amplification", "--dictionaries", "L5.H0"], "not written like L5.H0=FOLDER"),
        (["proper-nouns", "--margin", "0"], "margin of 0"),
    ],
)
def test_bad_input_is_one_line(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["experiment", *words, "--out", str(tmp_path / "out")])
    assert exit_.value.code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("writesae: ")]
    assert len(lines) == 1
    assert message in lines[0]
