"""`writesae eval`: flags, findings in the terminal, folders, and one line for what is wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest

from small_results import SITE, SMALL, small_sae
from writesae.artifacts import save_sae
from writesae.cli import main
from writesae.cli.eval import fitting, names_of, parse
from writesae.corpus import read_documents
from writesae.errors import InputError
from writesae.evals import EVALUATIONS
from writesae.evals.common.result import Result
from writesae.types import Site


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A little text."""
    path = tmp_path_factory.mktemp("corpus") / "corpus.jsonl"
    texts = [document.text[:4000] for document in islice(read_documents("sample"), 7)]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


@pytest.fixture(scope="module")
def sae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a dictionary."""
    folder = tmp_path_factory.mktemp("saes") / "sae"
    save_sae(small_sae(), folder)
    return folder


def test_a_result_and_its_finding(corpus: Path, sae: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = f"--out {tmp_path}/out --sae {sae} --corpus {corpus} --part all --passages 5 --length 29 --pattern e"
    main(["eval", "boundary", *words.split()])
    said = capsys.readouterr().out
    result = Result.load(tmp_path / "out")
    assert result.finding.split("(")[0].strip() in said
    assert "summary.json" in said
    assert (result.provenance.text.corpus, result.provenance.text.part) == ("corpus.jsonl", "all")
    assert str(tmp_path) not in (tmp_path / "out" / "summary.json").read_text()


def test_one_value_or_several_of_the_grid_at_two_heads(corpus: Path, sae: Path, tmp_path: Path) -> None:
    save_sae(small_sae(Site(2, 0), seed=6), tmp_path / "other")
    words = (
        f"--out {tmp_path}/out --sae {sae} {tmp_path}/other --corpus {corpus} --part all --passages 5 --length 29 "
        "--firings 7 --timings at_token --native-writes delta value --amplitudes norm --controls pca other_atom"
    )
    main(["eval", "substitution", *words.split()])
    result = Result.load(tmp_path / "out")
    assert [(c.timing, c.native_write, c.amplitude) for c in result.summary.cells] == [
        ("at_token", "delta", "norm"),
        ("at_token", "value", "norm"),
    ]
    assert {"feature_L2.H0", "feature_L5.H2", "kl_pca", "top1_other_atom"} <= set(result.records)
    assert result.provenance.site == "L5.H2, L2.H0"


def test_all_that_fit(
    corpus: Path, sae: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    some = {name: one for name, one in EVALUATIONS.items() if name in ("boundary", "quality", "seeds", "spectrum")}
    monkeypatch.setattr("writesae.evals.EVALUATIONS", some)
    words = f"--out {tmp_path}/out --sae {sae} --corpus {corpus} --part all --passages 5 --length 29"
    main(["eval", "all", *words.split()])
    said = capsys.readouterr().out
    assert "boundary: " in said
    assert (tmp_path / "out" / "boundary" / "summary.json").is_file()
    assert not (tmp_path / "out" / "seeds").exists()


def test_an_unknown_evaluation_names_all_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["eval", "nonsense"])
    said = capsys.readouterr().err
    assert stop.value.code == 2
    assert "unknown evaluation 'nonsense'" in said
    assert "boundary" in said
    assert said.rstrip().endswith("all")


def test_flags() -> None:
    command = parse(
        [
            "boundary",
            "--out",
            "x",
            "--sae",
            "a",
            "b",
            "--pattern",
            "e",
            "--text-seed",
            "7",
            "--allow",
            "mismatch",
            "overlap",
        ]
    )
    assert (command.request.sae, command.request.text_seed) == (("a", "b"), 7)
    assert command.request.allow == ("mismatch", "overlap")
    assert command.config == EVALUATIONS["boundary"].config(pattern="e")


@pytest.mark.parametrize("name", [*EVALUATIONS, "all"])
def test_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["eval", name, "--help"])
    said = capsys.readouterr().out
    assert stop.value.code == 0
    assert f"writesae eval {name}" in said
    for flag in ("--out PATH", "--passages", "--corpus STR", "--device", "--dtype", "--allow"):
        assert flag in said


def test_help_is_light() -> None:
    code = (
        "import sys; from writesae.cli.eval import parse; from writesae.evals import EVALUATIONS\n"
        "for words in ([], *([name, '--help'] for name in EVALUATIONS)):\n"
        "    try: parse(words)\n"
        "    except SystemExit: pass\n"
        "sys.exit(any(m in sys.modules for m in ('torch', 'numpy', 'pandas')))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, stdout=subprocess.DEVNULL)
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("boundery", "choose one of"),
        ("boundary --patern e", "patern"),
        ("boundary --top many", "invalid"),
        ("boundary --top 0", "give at least 1"),
        ("boundary --sae nowhere", "no folder nowhere"),
        ("boundary --corpus nowhere.txt", "no corpus at nowhere.txt"),
        ("boundary --site L5.H9", "heads 0 to 5"),
        ("boundary --passages 1000000", "passages of 29 tokens"),
        ("boundary --passages 0", "passages 0 is too small"),
        ("boundary --length 0", "length 0 is too small"),
        ("spectrum --site L5.H9", "leave out --site"),
        ("boundary --pattern (", "no regular expression"),
        ("boundary --host nowhere", "nowhere"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    words: str, message: str, corpus: Path, sae: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = f"--out {tmp_path}/out" + ("" if "--sae" in words else f" --sae {sae}")
    given += "" if "--corpus" in words else f" --corpus {corpus} --part all"
    given += "".join(f" {flag} {value}" for flag, value in (("--length", 29), ("--passages", 5)) if flag not in words)
    name, *flags = words.split()
    with pytest.raises(SystemExit) as stop:
        main(["eval", name, *given.split(), *flags])
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert message in said
    assert not (tmp_path / "out").exists()


def test_an_evaluation_without_a_name() -> None:
    with pytest.raises(InputError, match="unknown evaluation"):
        parse(["--out", "x"])
    assert set(SMALL) >= set(EVALUATIONS)
    assert SITE.layer == 5


def test_a_folder_of_something_else_is_refused_before_a_host_is_loaded(
    sae: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("writesae.hosts.load", lambda *_, **__: pytest.fail("a host was loaded"))
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(SystemExit):
        main(["eval", "boundary", "--out", str(tmp_path), "--sae", str(sae)])
    assert "holds run.json and no result: choose another folder, or empty it" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_each_dictionary_by_itself_and_the_picture_of_their_shares(
    corpus: Path, sae: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_sae(small_sae(Site(2, 0), seed=6), tmp_path / "other")
    saes, text = f"--sae {sae} {tmp_path}/other", f"--corpus {corpus} --part all --passages 5 --length 29"
    words = f"--out {tmp_path}/out {saes} {text} --firings 7 --native-writes value --each"
    main(["eval", "substitution", *words.split()])
    found = {site: Result.load(tmp_path / "out" / site) for site in ("L5.H2", "L2.H0")}
    assert [one.provenance.site for one in found.values()] == ["L5.H2", "L2.H0"]
    for site, one in found.items():
        assert 0 < one.shares[site]["value"] == pytest.approx(one.summary.cells[0].share, rel=0.9)
        assert f"of the state of {site} is its value write" in str(one)
    main(["report", str(tmp_path / "out")])
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert "shares-after_token" in page
    assert "share of the state" in page
    capsys.readouterr()
    for name, message in (("population", "measure each by itself (--each)"), ("sign --each", "leave out --each")):
        with pytest.raises(SystemExit):
            main(["eval", *name.split(), *f"--out {tmp_path}/no {saes} {text}".split()])
        assert message in capsys.readouterr().err


@pytest.mark.parametrize(("name", "flag"), [("substitution", "--sae"), ("quality", "--sae"), ("sign", "--site L5.H0")])
def test_what_the_words_lack_is_said_before_a_host_is_loaded(
    name: str, flag: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("writesae.hosts.load", lambda *_, **__: pytest.fail("a host was loaded"))
    with pytest.raises(SystemExit) as stop:
        main(["eval", name, "--out", str(tmp_path / "out")])
    assert stop.value.code == 2
    assert flag in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_of_all_that_fit_those_of_heads_are_run_at_the_dictionaries_own() -> None:
    saes = [small_sae(), small_sae(seed=6), small_sae(Site(2, 0))]
    some = [EVALUATIONS[name] for name in ("sign", "installs", "substitution")]
    found = {name: [[str(sae.site) for sae in group] for group in groups] for name, groups in fitting(some, saes, ())}
    assert found["sign"] == found["installs"] == [["L5.H2"], ["L2.H0"]]
    assert dict(fitting(some, saes, ("L4.H1",)))["sign"] == [[]]
    assert len(dict(fitting(some, [saes[0], saes[2]], ()))["substitution"]) == 1
    assert len(dict(fitting(some, [saes[0], saes[2]], (), True))["substitution"]) == 2


def test_results_of_one_head_are_named_by_their_targets() -> None:
    state, write, other = small_sae(), small_sae(), small_sae(Site(2, 0))
    write.config = replace(write.config, target="write-delta")
    state.config = replace(state.config, target="state")
    assert names_of([state, write, other]) == ["L5.H2-state", "L5.H2-write-delta", "L2.H0"]
    assert names_of([state, write, state]) == ["L5.H2-state-1", "L5.H2-write-delta", "L5.H2-state-2"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--preset paper-script --firings 16", "--firings has no effect .*--atoms .*--most"),
        ("--choose features --firings 1000", "--firings has no effect .*--atoms .*--most"),
        ("--choose features --features 3,7 --atoms 2", "--atoms has no effect on features that are named"),
        ("--atoms 16", "--atoms has no effect where tokens are drawn: .*--firings"),
    ],
)
def test_a_flag_without_effect_is_refused(words: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse(["substitution", "--out", "x", *words.split()])
    assert parse(["substitution", "--out", "x", "--preset", "paper-script", "--atoms", "16"]).name == "substitution"
