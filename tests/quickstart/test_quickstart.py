"""The whole chain, small, as the library and as the command."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from writesae.artifacts import load_sae
from writesae.cli import main
from writesae.errors import ConfigError, OutputError
from writesae.evals.old.substitution import summarise
from writesae.quickstart import QuickstartConfig
from writesae.quickstart.run import quickstart
from writesae.types import Site

SMALL = QuickstartConfig(
    site=Site(5, 0),
    tokens=4096,
    length=64,
    features=67,
    k=5,
    batch=256,
    train_tokens=8192,
    firings=41,
    passages=12,
    atoms=3,
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quickstart") / "run"
    quickstart(folder, SMALL, Console(quiet=True))
    return folder


def test_summary_and_report(run: Path) -> None:
    summary = json.loads((run / "summary.json").read_text())
    assert summary["host"]["name"] == "tiny-gdn"
    assert (summary["site"], summary["tokens"], summary["features"], summary["k"]) == ("L5.H0", 4096, 67, 5)
    for name in ("state", "write"):
        assert 0 < summary["alive"][name] <= 67
        assert summary["explained_variance"][name] > 0
        entry = summary["substitution"][name]
        assert entry["n"] + sum(entry["refused"].values()) == entry["attempted"] == 41
        assert entry["interval"][0] <= entry["win_rate"] <= entry["interval"][1]
        assert set(entry["by_protocol"]) == {"after_token", "at_token"}
        assert {"atom", "delete", "random"} <= set(entry["median_kl"])
        assert load_sae(run / "train" / name / "sae").config.features == 67
        assert len(json.loads((run / "atoms" / f"{name}.json").read_text())) == 3
    assert (run / summary["report"]).read_text(encoding="utf-8").startswith("<!doctype html>")
    assert set(summary["seconds"]) >= {"audit", "capture", "train-state", "train-write", "substitution-write"}


def test_summary_is_recomputed_from_the_records(run: Path) -> None:
    summary = json.loads((run / "summary.json").read_text())
    records = pd.read_parquet(run / "substitution" / "write.parquet")
    for timing, entry in summary["substitution"]["write"]["by_protocol"].items():
        again = summarise(records[records.protocol == timing], entry["refused"], summary["seed"])
        assert (again.win_rate, again.strict_chain) == (entry["win_rate"], entry["strict_chain"])
        assert again.median_kl == pytest.approx(entry["median_kl"])
        assert tuple(again.interval_clustered) == pytest.approx(entry["interval_clustered"])


def test_second_run_reuses_and_finishes_what_is_missing(run: Path) -> None:
    before = (run / "substitution" / "write.parquet").read_bytes()
    kept = (run / "spectrum.parquet").stat().st_mtime_ns
    (run / "steps" / "substitution-write.json").unlink()
    quickstart(run, SMALL, Console(quiet=True))
    assert (run / "spectrum.parquet").stat().st_mtime_ns == kept
    assert (run / "substitution" / "write.parquet").read_bytes() == before  # measured again, to the bit


def test_folder_of_another_run(run: Path, tmp_path: Path) -> None:
    other = QuickstartConfig(site=Site(4, 1), seed=3)
    with pytest.raises(OutputError, match=r"another quickstart \(.*seed is 0 there and 3 here"):
        quickstart(run, other, Console(quiet=True))
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(OutputError, match="no quickstart"):
        quickstart(tmp_path, SMALL, Console(quiet=True))
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]
    with pytest.raises(ConfigError, match="k = 9"):
        QuickstartConfig(features=8, k=9)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--site", "L5.H6"], "heads 0 to 5"),
        (["--site", "L3.H0"], r"no recurrent layer 3; it has \[0, 1, 2, 4, 5, 6\]"),
        (["--site", "five"], "L9.H4"),
        (["--host", "tiny-gnd"], "unknown host 'tiny-gnd'"),
        (["--features", "7", "--k", "8"], "k = 8"),
        (["--tokens", "900000000"], "the sample holds"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    with pytest.raises(SystemExit) as stop:
        main(["quickstart", "--out", str(out), *arguments])
    assert stop.value.code == 2
    message = capsys.readouterr().err.strip()
    assert re.search(says, message)
    assert "\n" not in message
    assert "Traceback" not in message
    assert not out.exists()
