"""The whole chain, small, as the library and as the command."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from writesae.artifacts import load_sae
from writesae.causal.identity import sae_hash
from writesae.cli import main
from writesae.config import from_json
from writesae.errors import ConfigError, InputError, OutputError
from writesae.evals import EVALUATIONS
from writesae.evals.common.result import Result
from writesae.evals.recall.figures import typical
from writesae.hosts import Host, load
from writesae.page.memory import rows_of
from writesae.quickstart import QuickstartConfig, facts
from writesae.quickstart.run import quickstart

SMALL = QuickstartConfig(
    site="L5.H0", tokens=4096, length=64, features=67, k=5, batch=256, train_tokens=8192, firings=41, passages=12,
    atoms=3, memory_passages=2, workers=1,
)  # fmt: skip
QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def run(host: Host, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quickstart") / "run"
    quickstart(folder, SMALL, host, QUIET)
    return folder


def test_ordinary_results_and_one_page(run: Path) -> None:
    for name in ("state", "write"):
        result = Result.load(run / "results" / f"substitution-{name}")
        assert result.n + sum(result.refused.values()) == result.attempted == 41
        (source,) = result.provenance.dictionaries
        sae = load_sae(run / "train" / name)
        assert (str(sae.site), sae.host, sae.config.features) == ("L5.H0", "tiny-gdn", 67)
        assert source.overlap is not None
        assert source.overlap < 0.01  # held-out text: its windows were not trained on
        assert (result.provenance.text.corpus, result.provenance.text.part) == ("sample", "test of 0.8")
        assert len(Result.load(run / "results" / f"atoms-{name}").records) == 3
    page = (run / "report.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert page.index('<section id="memory"') < page.index('<section id="answer"')
    for anchor in ("recall", "spectrum", "substitution", "atoms", "training"):
        assert f'<section id="{anchor}"' in page


def test_the_first_chapter_is_one_fact_lost_and_brought_back(run: Path) -> None:
    result = Result.load(run / "results" / "recall")
    assert result.n == 2 * 8
    assert result.summary.cells == ("L1.H1+3",)
    for name, source in zip(("state", "write"), result.provenance.dictionaries, strict=True):
        assert source.sha256 == sae_hash(load_sae(f"memory-gdn/{name}"))
        assert source.overlap == 0
    rows = rows_of(result)
    assert [row.kind for row in rows] == ["native", "delete", "random", "state", "increment", "write"]
    right = {row.kind: row.still.value for row in rows}
    assert right["native"] == 1
    assert max(right["delete"], right["random"]) <= 0.25
    assert right["state"] < 0.5
    assert min(right["increment"], right["write"]) > 0.75
    fact = typical(result.more["said"], result.summary.costs)
    answers = {row.kind: row.answer(fact) for row in rows}
    assert {kind for kind, (_, is_right) in answers.items() if is_right} == {"native", "increment", "write"}
    said = result.more["said"]
    thing = said[(said.condition == "native") & (said.asked == fact)].thing.iloc[0].strip()
    assert {word for word, is_right in answers.values() if is_right} == {thing}
    section = (run / "report.html").read_text(encoding="utf-8").split('<section id="memory"')[1].split("</section>")[0]
    assert section.count("<mark>") == 1
    assert f"has the {thing}.</mark>" in section
    assert re.findall(r'<td class="says"><b>(.+?)</b>', section) == [word for word, _ in answers.values()]
    assert "head L1.H1, at the thing" in section


def test_the_first_chapters_protocol_is_one() -> None:
    assert EVALUATIONS["recall"].configured(facts.FEW).baselines == ()


def test_dictionaries_trained_anew(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the recipe of the shipped ones, here cut short."""
    shorter = lambda kind, data: replace(from_json(kind, data), steps=2)  # noqa: E731
    monkeypatch.setattr(facts, "TAUGHT", 8)
    monkeypatch.setattr(facts, "from_json", shorter)
    memory = load("memory-gdn")
    saes = facts.taught(tmp_path, SMALL, memory, lambda title: lambda done, total: None)
    for name, sae in saes.items():
        own = load_sae(f"memory-gdn/{name}")
        assert (sae.config, sae.site, sae.host) == (own.config, own.site, own.host)
        assert sae.record is not None
        assert own.record is not None
        assert (sae.record.corpus, sae.record.host_revision) == (own.record.corpus, own.record.host_revision)
        assert sae.record.training["steps"] == 2


def test_a_second_run_reuses_and_finishes_what_is_missing(run: Path, host: Host) -> None:
    result = run / "results" / "substitution-write"
    before, kept = (result / "records.parquet").read_bytes(), (run / "results" / "spectrum" / "summary.json").stat()
    for path in (result / "summary.json", *(result / "parts").glob("*.parquet")):
        path.unlink()
    quickstart(run, replace(SMALL, workers=2), host, QUIET)  # how many train at a time changes no number
    assert (run / "results" / "spectrum" / "summary.json").stat().st_mtime_ns == kept.st_mtime_ns
    assert (result / "records.parquet").read_bytes() == before  # measured again, to the bit


def test_folder_of_another_run(run: Path, host: Host, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"another quickstart \(.*seed is 0 there and 3 here"):
        quickstart(run, replace(SMALL, seed=3), host, QUIET)
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(OutputError, match="no quickstart"):
        quickstart(tmp_path, SMALL, host, QUIET)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]
    with pytest.raises(ConfigError, match="k = 9"):
        QuickstartConfig(features=8, k=9)
    with pytest.raises(InputError, match=r"L9\.H4"):
        QuickstartConfig(site="five")


def test_a_kill_before_the_run_is_named(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock is there, and `run.json` not yet."""

    class Begun(Exception):
        pass

    def begin(*_: object) -> None:
        raise Begun

    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").write_text("process 1 on another")
    (tmp_path / "run" / ".run.json.0123456789ab.partial").write_text("{")
    monkeypatch.setattr("writesae.quickstart.run.remembered", begin)
    with pytest.raises(Begun):
        quickstart(tmp_path / "run", SMALL, host, QUIET)
    assert (tmp_path / "run" / "run.json").is_file()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--site", "L5.H6"], "heads 0 to 5"),
        (["--site", "L3.H0"], r"no recurrent layer 3; it has \[0, 1, 2, 4, 5, 6\]"),
        (["--site", "five"], "L9.H4"),
        (["--host", "tiny-gnd"], "tiny-gnd"),
        (["--features", "7", "--k", "8"], "k = 8"),
        (["--tokens", "900000000"], "sample"),
        (["--features", "2000000000"], "2,000,000,000 features in training need .* GiB"),
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
    assert not out.exists()


def test_the_record_says_what_was_found(run: Path) -> None:
    manifest = json.loads((run / "train" / "write" / "sae" / "manifest.json").read_text())
    assert "firings" in manifest["record"]["metrics"]["substitution"]["finding"]
