"""`writesae eval`: result folders of every evaluation, and one line for bad input."""

import json
from pathlib import Path

import pandas as pd
import pytest
import torch
import tyro

from writesae.artifacts import save_sae
from writesae.artifacts.manifest import Record
from writesae.cli import COMMANDS, main
from writesae.cli.eval import Command, Name, parse_settings, run
from writesae.errors import ConfigError, InputError, OutputError, WritesaeError
from writesae.evals.catalogue import EVALUATIONS
from writesae.sae import SAE, SAEConfig, TopK
from writesae.types import Site

SMALL = {
    "substitution": ["firings=11", 'timings=["at_token"]'],
    "population": ["atoms=7", "most=3", "fewest=2"],
    "partition": ["ks=[1]"],
    "logit_shift": ["atoms=2", "places=3", "ranks=[0]", "epsilons=[0.1]"],
    "spectrum": ["writes=3"],
    "selectivity": ["atoms=3", "firings=2", "top=5"],
    "readers": ["atoms=2", "firings=2"],
}


SILENT = {"substitution": ["firings=5"], "logit_shift": ["places=3"], "boundary": ["top=1"]}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Two dictionaries of L5.H2 that say so."""
    made = []
    for seed in (5, 6):
        config = SAEConfig(32, 32, 61, sparsity=TopK(3), target="write-delta")
        folder = tmp_path_factory.mktemp("saes") / f"seed{seed}"
        save_sae(
            SAE(config, torch.Generator().manual_seed(seed)), folder, Record("tiny-gdn", site=Site(5, 2), seed=seed)
        )
        made.append(str(folder))
    return made[0], made[1]


@pytest.mark.parametrize("name", sorted(EVALUATIONS))
def test_every_evaluation_writes_its_folder(name: Name, folders: tuple[str, str], tmp_path: Path) -> None:
    given = {"spectrum": (), "seeds": folders}.get(name, folders[:1])
    command = Command(name, tmp_path / "out", given, passages=5, length=29, set=tuple(SMALL.get(name, ())))
    run(command)
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    records = pd.read_parquet(tmp_path / "out" / "records.parquet")
    assert len(records) > 0
    assert summary["name"] == name
    assert summary["attempted"] == summary["n"] + sum(summary["refused"].values())
    assert summary["provenance"]["host"] == "tiny-gdn"
    assert len(summary["provenance"]["sae"]) == len(given)
    assert len(summary["provenance"]["revision"]) == 64


def test_an_interrupted_one_continues_and_another_is_refused(folders: tuple[str, str], tmp_path: Path) -> None:
    command = Command("substitution", tmp_path, folders[:1], passages=3, length=29, set=("firings=5",))
    run(command)
    part = next((tmp_path / "parts").glob("part-*"))
    written = part.stat().st_mtime_ns
    (tmp_path / "summary.json").unlink()
    run(command)
    assert part.stat().st_mtime_ns == written
    with pytest.raises(OutputError, match="another evaluation"):
        run(Command("substitution", tmp_path, folders[:1], passages=3, length=29, set=("firings=6",)))


def test_arguments() -> None:
    command = tyro.cli(Command, args=["quality", "--out", "x", "--sae", "a", "b", "--set", "dense=0.2"])
    assert (command.name, command.sae, command.set) == ("quality", ("a", "b"), ("dense=0.2",))
    assert parse_settings(("a=1", "b=[1, 2]", "c=word", "d=0.5")) == {"a": 1, "b": [1, 2], "c": "word", "d": 0.5}
    with pytest.raises(ConfigError, match="not written like"):
        parse_settings(("firings",))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"set": ("firing=5",)}, "firing"),
        ({"set": ("firings=many",)}, "firings"),
        ({"sae": ()}, "takes one dictionary, not 0"),
        ({"site": "L5.H9"}, "heads 0 to 5"),
        ({"passages": 10**6}, "were asked for"),
        ({"passages": 0}, "give at least 1 passage"),
    ],
)
def test_bad_input(change: dict[str, object], message: str, folders: tuple[str, str], tmp_path: Path) -> None:
    good: dict[str, object] = {"name": "substitution", "out": tmp_path, "sae": folders[:1], "passages": 3, "length": 29}
    with pytest.raises(WritesaeError, match=message):
        run(Command(**(good | change)))  # type: ignore[arg-type]
    assert not (tmp_path / "summary.json").exists()


def test_a_dictionary_of_another_shape_is_refused(tmp_path: Path) -> None:
    save_sae(SAE(SAEConfig(31, 32, 7, sparsity=TopK(3))), tmp_path / "sae", Record())
    with pytest.raises(InputError, match="does not say which head"):
        run(Command("quality", tmp_path / "out", (str(tmp_path / "sae"),), passages=2, length=29))
    with pytest.raises(InputError, match="31 x 32"):
        run(Command("quality", tmp_path / "out", (str(tmp_path / "sae"),), "L5.H0", passages=2, length=29))


def test_nothing_to_score_is_one_line_and_exit_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(COMMANDS, "eval", "run one evaluation")
    silent = SAE(SAEConfig(32, 32, 7, sparsity=TopK(3)))
    silent.b_enc.data.fill_(-1e9)
    save_sae(silent, tmp_path / "sae", Record(site=Site(5, 2)))
    words = ["--sae", str(tmp_path / "sae"), "--passages", "3", "--length", "29"]
    for name in ("substitution", "population", "partition", "logit_shift", "selectivity", "readers", "boundary"):
        with pytest.raises(SystemExit) as exit_:
            main(["eval", name, "--out", str(tmp_path / name), *words, "--set", *SILENT.get(name, ["seed=0"])])
        assert exit_.value.code == 2
        lines = capsys.readouterr().err.strip().splitlines()
        assert "no feature of the dictionary fires" in lines[-1]
        assert not (tmp_path / name / "summary.json").exists()
