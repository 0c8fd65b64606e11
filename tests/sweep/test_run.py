"""A sweep that is run: its table, its page, a run that fails, a kill, the command."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from writesae.cli import main
from writesae.errors import DataError, OutputError
from writesae.evals.common.result import Result
from writesae.sae.config import Linear
from writesae.store import open_store
from writesae.sweep import Sweep, read_sweep
from writesae.sweep.run import TABLE, sweep
from writesae.training import loop, train

FILE = """
hosts = ["tiny-gdn"]
tokens = 1900
length = 19
[grid]
site = ["L5.H0", "L5.H1"]
preset = ["writesae", "flat"]
seed = [0, 1]
[train]
features = 13
k = 3
steps = 5
batch = 38
validate_every = 0
[evaluate.quality]
passages = 5
[evaluate.substitution]
passages = 5
firings = 11
"""


@pytest.fixture
def plan(tmp_path: Path) -> Sweep:
    (tmp_path / "mine.toml").write_text(FILE, encoding="utf-8")
    return read_sweep(tmp_path / "mine.toml")


def whole(table: pd.DataFrame) -> pd.DataFrame:
    """What does not depend on the clock."""
    return table.drop(columns="seconds")


def test_a_sweep_is_what_its_parts_are_one_by_one(plan: Sweep, tmp_path: Path) -> None:
    out = tmp_path / "out"
    table = sweep(plan, out)
    assert len(table) == 8
    assert (table.problem == "").all()
    pd.testing.assert_frame_equal(pd.read_parquet(out / TABLE), table)
    run = table.iloc[0]
    store = open_store(out / "tiny-gdn" / "streams.zarr")
    alone = train(
        store, site="L5.H0", preset="writesae", seed=0, features=13, k=3, steps=5, batch=38, validate_every=0,
        out=tmp_path / "alone", device="cpu",
    )  # fmt: skip
    assert run.explained_variance == alone.metrics.explained_variance
    found = Result.load(out / "tiny-gdn" / "results" / "substitution" / run.run)
    assert run["substitution: n"] == found.n == 11
    assert run["substitution: wins, by increment, after token"] == next(
        cell.wins.value for cell in found.summary.main if (cell.reading, cell.timing) == ("increment", "after_token")
    )
    flat = table[table.preset == "flat"]
    assert flat.refused.str.startswith("substitution: rank-1 atoms were asked of").all()
    assert flat["quality: explained variance"].notna().all()
    page = (out / "sweep.html").read_text(encoding="utf-8")
    assert "L5.H1-flat-seed1" in page
    assert 'id="axis-preset-title"' in page
    assert "Not measured: flat, substitution: rank-1 atoms were asked of" in page
    pd.testing.assert_frame_equal(sweep(plan, out), table)  # read, to the second
    with pytest.raises(OutputError, match="another sweep"):
        sweep(Sweep(hosts=plan.hosts, grid=plan.grid), out)


def test_a_run_that_fails_is_named_and_the_others_are_whole(
    plan: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    learn = loop.Run.learn

    def diverging(self: loop.Run, *given: object) -> None:
        if self.config.seed == 1 and self.config.site.head == 1 and not isinstance(self.config.encoder, Linear):
            raise DataError("the loss is not finite at step 3")
        learn(self, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(loop.Run, "learn", diverging)
    command = ["sweep", str(tmp_path / "mine.toml"), "--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit) as caught:
        main(command)
    assert caught.value.code == 2
    said = capsys.readouterr()
    assert "L5.H1-writesae-seed1: training: the loss is not finite" in said.err
    assert "Traceback" not in said.err
    assert "7 of 8 runs are whole" in said.out
    table = pd.read_parquet(tmp_path / "out" / TABLE)
    assert table.explained_variance.notna().sum() == 7
    monkeypatch.undo()
    main(command)
    said = capsys.readouterr()
    assert "8 of 8 runs are whole" in said.out
    assert "not measured: substitution: rank-1 atoms" in said.out


def test_a_killed_sweep_ends_with_the_same_table(plan: Sweep, tmp_path: Path) -> None:
    expected = sweep(plan, tmp_path / "whole")
    out = ["--out", str(tmp_path / "out")]
    command = [sys.executable, "-m", "writesae.cli", "sweep", str(tmp_path / "mine.toml"), *out]
    for part in ("streams.zarr/zarr.json", "train/L5.H0-flat-seed0/result.json"):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and not (tmp_path / "out" / "tiny-gdn" / part).exists():
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not (tmp_path / "out" / TABLE).exists()
    pd.testing.assert_frame_equal(whole(sweep(plan, tmp_path / "out")), whole(expected))


def test_a_plan_runs_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    main(["sweep", "matched", "--plan", "--device", "cuda", "--workers", "8"])
    said = capsys.readouterr().out
    assert "720 runs" in said
    assert "assumed, not measured" in said


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ([], "give --out"),
        (["--device", "tpu", "--plan"], "cpu or cuda"),
        (["--device", "tpu", "--out", "x"], "tpu"),
        (["--memory", "-1", "--plan"], "--memory -1 cannot be"),
        (["--workers", "0", "--plan"], "workers 0 is too small"),
        (["--gpus-per-worker", "1", "--out", "x"], "no effect without --ray"),
    ],
)
def test_flags_that_cannot_be_leave_nothing(
    flags: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        main(["sweep", "small", *flags])
    assert caught.value.code == 2
    assert said in " ".join(capsys.readouterr().err.split())
    assert not list(tmp_path.iterdir())


def test_an_evaluation_that_measures_nothing_is_a_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = FILE.partition("[evaluate.quality]")[0].replace('["writesae", "flat"]', '["flat"]').replace("[0, 1]", "[0]")
    (tmp_path / "one.toml").write_text(text + "[evaluate.substitution]\npassages = 5\n", encoding="utf-8")
    with pytest.raises(SystemExit) as caught:
        main(["sweep", str(tmp_path / "one.toml"), "--out", str(tmp_path / "out")])
    assert caught.value.code == 2
    assert "substitution measured none of the 2 runs" in capsys.readouterr().err
