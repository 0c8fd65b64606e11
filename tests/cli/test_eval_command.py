"""`writesae eval`: result folders of every evaluation, summaries that follow from them, and one line for bad input."""

import json
import subprocess
import sys
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pandas as pd
import pytest
import torch

from writesae.artifacts import save_sae
from writesae.cli import main
from writesae.cli.eval import parse
from writesae.corpus import read_documents
from writesae.errors import InputError
from writesae.evals import catalogue, configs
from writesae.evals.catalogue import recompute
from writesae.hosts import Host
from writesae.sae import SAE, Record, SAEConfig, TopK
from writesae.types import Site

SMALL = {
    "substitution": "--firings 11 --controls orthogonal other_atom",
    "population": "--atoms 7 --most 3 --fewest 2",
    "partition": "--ks 1 3",
    "logit_shift": "--atoms 2 --places 3 --ranks 0 --epsilons 0.1 --horizons 2",
    "fidelity": "--scopes layer head",
    "passage_loss": "--kind bundle",
    "seeds": "--partition.ks 2",
    "spectrum": "--writes 3",
    "selectivity": "--atoms 3 --firings 2 --top 5",
    "readers": "--atoms 2 --firings 2",
    "boundary": "--pattern e",
}
"""Flags that keep each evaluation short."""

SILENT = 5
"""Features of every dictionary that never fire: the first ones."""

Eval = Callable[..., Path]


def saved(folder: Path, seed: int, record: Record, d_k: int = 32, silent: bool = False) -> str:
    """A random dictionary on disk whose first features never fire; of a silent one none does."""
    config = SAEConfig(d_k, 32, 61, sparsity=TopK(3), target="write-delta")
    sae = SAE(config, torch.Generator().manual_seed(seed))
    sae.b_enc.data[: None if silent else SILENT] = -1e9
    save_sae(sae, folder, record)
    return str(folder)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Dictionaries of L5.H2 (two seeds), one of L6.H1, one that never fires, one of another shape."""
    place = tmp_path_factory.mktemp("saes")
    here = Record("tiny-gdn", site=Site(5, 2))
    return {
        "one": saved(place / "one", 5, here),
        "two": saved(place / "two", 6, here),
        "above": saved(place / "above", 7, Record("tiny-gdn", site=Site(6, 1))),
        "silent": saved(place / "silent", 5, here, silent=True),
        "narrow": saved(place / "narrow", 5, here, d_k=31),
        "homeless": saved(place / "homeless", 5, Record()),
    }


@pytest.fixture
def evaluate(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Eval:
    """Run the command on a host that is loaded already and on a little text."""
    monkeypatch.setattr("writesae.hosts.load", lambda *_, **__: host)
    corpus = tmp_path / "corpus.jsonl"
    texts = [document.text[:1500] for document in islice(read_documents("sample"), 7)]
    corpus.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))

    def run(name: str, *saes: str, flags: str = "", out: str = "out") -> Path:
        given = ["--sae", *saes] if saes else []
        small = f"--corpus {corpus} --passages 5 --length 29 --held-out 0.9"
        main(["eval", name, "--out", str(tmp_path / out), *small.split(), *given, *flags.split()])
        return tmp_path / out

    return run


def refused(evaluate: Eval, capsys: pytest.CaptureFixture[str], *words: str, flags: str = "") -> str:
    """What a command says that ends with exit code 2: one line."""
    with pytest.raises(SystemExit) as stop:
        evaluate(*words, flags=flags)
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith("writesae: ")
    return said


@pytest.mark.parametrize("name", configs.EVALUATIONS)
def test_the_summary_follows_from_the_files(name: str, evaluate: Eval, folders: dict[str, str]) -> None:
    saes = {"spectrum": (), "seeds": ("one", "two"), "fidelity": ("one", "above")}.get(name, ("one",))
    out = evaluate(name, *(folders[sae] for sae in saes), flags=SMALL.get(name, ""))
    stored = json.loads((out / "summary.json").read_text())
    assert stored["name"] == name
    assert stored["attempted"] == stored["n"] + sum(stored["refused"].values())
    assert stored["provenance"]["host"] == "tiny-gdn"
    assert len(stored["provenance"]["sae"]) == len(saes)
    assert len(stored["provenance"]["revision"]) == 64
    assert len(pd.read_parquet(out / "records.parquet")) > 0
    summary = stored.pop("summary")
    assert summary
    (out / "summary.json").write_text(json.dumps(stored))
    assert recompute(out) == summary


def test_the_catalogue_and_the_flags_name_the_same() -> None:
    assert list(catalogue.EVALUATIONS) == list(configs.EVALUATIONS)


def test_a_finished_one_is_not_run_again_and_another_is_refused(
    evaluate: Eval, folders: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    out = evaluate("selectivity", folders["one"], flags=SMALL["selectivity"])
    parts = {path: path.stat().st_mtime_ns for path in (out / "parts").iterdir()}
    first = (out / "summary.json").read_text()
    (out / "summary.json").unlink()
    evaluate("selectivity", folders["one"], flags=SMALL["selectivity"])
    assert (out / "summary.json").read_text() == first
    assert {path: path.stat().st_mtime_ns for path in (out / "parts").iterdir()} == parts
    assert "another evaluation" in refused(evaluate, capsys, "selectivity", folders["one"], flags="--top 7 --firings 2")
    assert "holds the result of selectivity" in refused(evaluate, capsys, "quality", folders["one"])
    assert (out / "summary.json").read_text() == first


def test_flags() -> None:
    words = "logit-shift --out x --sae a b --epsilons 0.1 3 --timings at_token --text-seed 7 --seed 8"
    command = parse(words.split())
    assert command.name == "logit_shift"
    assert (command.request.sae, command.request.text_seed) == (("a", "b"), 7)
    wanted = configs.LogitShiftConfig(epsilons=(0.1, 3.0), timings=("at_token",), seed=8)
    assert command.config == wanted


@pytest.mark.parametrize("name", configs.EVALUATIONS)
def test_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["eval", name, "--help"])
    said = capsys.readouterr().out
    assert stop.value.code == 0
    assert f"writesae eval {name}" in said
    for flag in ("--out PATH", "--passages INT", "--corpus STR"):
        assert flag in said
    with pytest.raises(SystemExit):
        main(["eval", "--help"])
    assert configs.EVALUATIONS[name][1] in capsys.readouterr().out


def test_help_is_light() -> None:
    code = (
        "import sys; from writesae.cli.eval import parse; from writesae.evals.configs import EVALUATIONS\n"
        "for words in ([], *([name, '--help'] for name in EVALUATIONS)):\n"
        "    try: parse(words)\n"
        "    except SystemExit: pass\n"
        "sys.exit(any(m in sys.modules for m in ('torch', 'numpy', 'pandas')))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, stdout=subprocess.DEVNULL)
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("name", "flags", "message"),
    [
        ("substitutoin", "", "choose one of substitution"),
        ("selectivity", "--firing 5", "Unrecognized options: --firing, 5"),
        ("selectivity", "--firings many", "invalid literal"),
        ("selectivity", "--atoms 0", "give at least 1"),
        ("selectivity", "--timing never", "invalid choice"),
        ("selectivity", "--site L5.H9", "heads 0 to 5"),
        ("selectivity", "--passages 1000000", "were asked for"),
        ("selectivity", "--passages 0", "give at least 1 passage"),
        ("selectivity", "--features 61", "the dictionary has 0 to 60"),
        ("selectivity", "--top 99999", "most moved"),
        ("selectivity", "--firings 999", "none of 48 atoms"),
        ("readers", "--site L6.H0", "no recurrent layer above"),
        ("readers", "--firings 999", "none of 16 atoms"),
        ("logit_shift", "--places 6", "need as many passages"),
        ("logit_shift", "--epsilons 0", "must be above 0"),
        ("logit_shift", "--places 3 --ranks 99999", "token ranks"),
        ("fidelity", "--prefix 1.0", "leaves nothing"),
        ("passage_loss", "--features 99", "the dictionary has 0 to 60"),
        ("quality", "--edges 1", "at least two"),
        ("seeds", "", "at least 2, not 1"),
        ("boundary", "--pattern (", "no regular expression"),
        ("boundary", "--pattern \ue000", "both kinds are needed"),
        ("partition", "--minimum 1000", "a partition needs 4"),
        ("spectrum", "--writes 0", "give at least 1"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    name: str,
    flags: str,
    message: str,
    evaluate: Eval,
    folders: dict[str, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert message in refused(evaluate, capsys, name, folders["one"], flags=flags)
    assert not (tmp_path / "out").exists()


def test_no_dictionary_or_no_place_for_it(
    evaluate: Eval, folders: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "takes one dictionary, not 0" in refused(evaluate, capsys, "quality")
    assert "at least 1 dictionary, not 0" in refused(evaluate, capsys, "fidelity")
    assert "does not say which head" in refused(evaluate, capsys, "quality", folders["homeless"])
    (tmp_path / "out").write_text("")
    assert "is a file" in refused(evaluate, capsys, "quality", folders["one"])
    with pytest.raises(SystemExit):
        evaluate("quality", folders["one"], out="out/below")
    assert "is a file" in capsys.readouterr().err


SINGLE = [name for name in configs.EVALUATIONS if name not in ("spectrum", "seeds", "fidelity")]


@pytest.mark.parametrize("name", SINGLE)
def test_a_dictionary_of_another_shape_is_refused(
    name: str, evaluate: Eval, folders: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "31 x 32" in refused(evaluate, capsys, name, folders["narrow"])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", [name for name in SINGLE if name not in ("quality",)])
def test_nothing_to_score(
    name: str, evaluate: Eval, folders: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = "--firings 11" if name == "substitution" else SMALL.get(name, "")
    assert "no feature of the dictionary fires" in refused(evaluate, capsys, name, folders["silent"], flags=flags)
    assert not (tmp_path / "out").exists()


def test_misfits_among_several_are_refused_and_counted(
    evaluate: Eval, folders: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    out = evaluate("fidelity", folders["one"], folders["narrow"], out="fidelity")
    stored = json.loads((out / "summary.json").read_text())
    ((reason, n),) = stored["refused"].items()
    assert ("31 x 32" in reason, n, stored["n"], stored["attempted"]) == (True, 1, 5, 6)
    saes = [folders[name] for name in ("one", "two", "narrow", "above")]
    out = evaluate("seeds", *saes, flags=SMALL["seeds"], out="seeds")
    stored = json.loads((out / "summary.json").read_text())
    assert stored["attempted"] == 4 * 61 == stored["n"] + sum(stored["refused"].values())
    misfits = {reason: n for reason, n in stored["refused"].items() if "dictionary of" in reason}
    assert list(misfits.values()) == [61, 61]
    assert "the first one is of L5.H2" in list(misfits)[1]
    said = refused(evaluate, capsys, "fidelity", folders["narrow"], folders["narrow"])
    assert "none of 2 dictionaries can be measured" in said
    said = refused(evaluate, capsys, "seeds", folders["one"], folders["above"], flags=SMALL["seeds"])
    assert "at least 2, not 1; dictionary of L6.H1" in said
    assert "belong to the same head" in refused(evaluate, capsys, "fidelity", folders["one"], folders["two"])


@pytest.mark.parametrize("name", ["selectivity", "readers", "logit_shift"])
def test_atoms_that_never_fire_are_refused_and_counted(name: str, evaluate: Eval, folders: dict[str, str]) -> None:
    flags = {"logit_shift": "--places 5 --ranks 0 --epsilons 0.1 --horizons 1", "selectivity": "--firings 2 --top 5"}
    own = flags.get(name, "--firings 2")
    out = evaluate(name, folders["one"], flags=f"--atoms 61 {own}", out="all")
    stored = json.loads((out / "summary.json").read_text())
    items = 2 if name == "logit_shift" else 1  # an atom is an item, or one under each timing
    assert stored["refused"]["never fires"] == SILENT * items
    assert stored["attempted"] == 61 * items == stored["n"] + sum(stored["refused"].values())
    loud = int(pd.read_parquet(out / "records.parquet").feature.iloc[0])
    out = evaluate(name, folders["one"], flags=f"--features {loud} 0 {own}", out="two")
    stored = json.loads((out / "summary.json").read_text())
    assert stored["refused"] == {"never fires": items}
    assert (stored["attempted"], stored["n"]) == (2 * items, items)


def test_a_class_with_too_few_firings(
    evaluate: Eval, folders: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    out = evaluate("partition", folders["one"], flags="--minimum 3 --ks 1", out="partition")
    stored = json.loads((out / "summary.json").read_text())
    assert stored["refused"]["fewer than 3 firings"] > 0
    assert stored["refused"]["never fires"] == stored["summary"]["null"] == SILENT
    said = refused(evaluate, capsys, "passage_loss", folders["one"], flags="--features 0")
    assert "none of the 1 features is the top one anywhere" in said


def test_seeds_leaves_out_a_silent_dictionary(
    evaluate: Eval, folders: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    out = evaluate("seeds", *(folders[name] for name in ("one", "silent", "two")), flags=SMALL["seeds"], out="three")
    stored = json.loads((out / "summary.json").read_text())
    reason = next(reason for reason in stored["refused"] if reason.startswith("dictionary 2"))
    assert stored["refused"][reason] == 61
    assert len(stored["summary"]["counts"]["alive"]) == 2
    said = refused(evaluate, capsys, "seeds", folders["one"], folders["silent"], flags=SMALL["seeds"])
    assert "1 can be classed: dictionary 2: no feature of the dictionary fires" in said


def test_a_repeated_flag_for_dictionaries_is_refused() -> None:
    with pytest.raises(InputError, match="--sae A B"):
        parse(["quality", "--out", "x", "--sae", "a", "--sae", "b"])


def test_unknown_words_raise_input_errors() -> None:
    with pytest.raises(InputError, match="unknown evaluation"):
        parse(["--out", "x"])
