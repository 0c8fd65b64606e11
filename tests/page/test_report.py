"""The whole page: what it says, what it never does, and what it refuses."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
from fake_results import fake
from fake_run import HOSTILE, write_fake_run
from html_page import Page

from writesae.cli import main
from writesae.errors import DataError, InputError, OutputError
from writesae.page import write_report
from writesae.show import words


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_fake_run(tmp_path_factory.mktemp("run"))
    assert write_report(folder) == folder / "report.html"
    return folder


@pytest.fixture(scope="module")
def source(run: Path) -> str:
    return (run / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(source: str) -> Page:
    return Page(source)


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    shutil.copytree(run, tmp_path / "copy")
    (tmp_path / "copy" / "report.html").unlink()
    return tmp_path / "copy"


def test_every_element_is_closed_and_every_anchor_exists(page: Page) -> None:
    assert page.open == []
    ids = [value for _, name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    targets = {value[1:] for tag, name, value in page.attributes if tag == "a" and name == "href"}
    assert targets
    assert targets <= set(ids)
    labels = {value for _, name, value in page.attributes if name == "aria-labelledby"}
    assert labels <= set(ids)


@pytest.mark.parametrize("target", ["state", "write"])
def test_the_headline_numbers_are_on_the_page(run: Path, page: Page, target: str) -> None:
    text = " ".join(page.text.split())
    substitution = json.loads((run / "summary.json").read_text())["substitution"][target]
    for outcome in substitution["by_protocol"].values():
        for rate in ("win_rate", "win_rate_norm", "strict_chain"):
            assert words.percent(outcome[rate]).split("\u202f")[0] in text
        for value in outcome["median_kl"].values():
            assert " ".join(words.quantity(value).split()) in text
        assert " ".join(words.interval(outcome["interval"]).split()) in text
    assert " ".join(words.interval(substitution["interval_clustered"]).split()) in text
    assert "n = 211 of 217 attempted; refused: 5 too close to the end, 1 zero coefficient" in text


def test_provenance_names_host_revision_hashes_seed_and_versions(run: Path, page: Page) -> None:
    summary = json.loads((run / "summary.json").read_text())
    hashes = summary["hashes"]
    for fact in (summary["host"]["revision"], hashes["corpus"], hashes["sae"]["write"], summary["versions"]["torch"]):
        assert fact in page.text
    assert "KL(native || patched), nats" in page.text


def test_every_head_and_the_chosen_one_are_drawn(page: Page) -> None:
    figures = json.loads(page.packed("figures"))
    for name in ("decay", "write_share", "stable_rank", "delete_kl"):
        figure = figures[f"spectrum-1-{name}"]["figure"]
        assert [len(row) for row in figure["data"][0]["z"]] == [6] * 6
        (ring,) = figure["layout"]["shapes"]
        assert (ring["x0"], ring["y0"]) == (0 - 0.48, 4 - 0.47)  # L5.H0: the fifth of the six layers


def test_atoms_show_their_factors_contexts_and_tokens(run: Path, page: Page) -> None:
    atoms = json.loads((run / "atoms" / "state.json").read_text())
    cards = [value for _, name, value in page.attributes if name == "data-feature"]
    assert len(cards) == 2 * len(atoms)
    assert len(page.marked) == sum(len(atom["contexts"]) for atom in atoms) * 2
    bars = [value.count("M") for tag, name, value in page.attributes if tag == "path" and name == "d"]
    assert bars == [31, 37] * 2 * len(atoms)


def test_hostile_text_stays_text(source: str, page: Page) -> None:
    assert page.tags["script"] == 3
    assert "img" not in page.tags
    assert HOSTILE[0] in page.marked
    assert HOSTILE[1] in page.marked
    assert "{{ 7 * 7 }}" in page.text
    assert not any(name.startswith("on") for _, name, _ in page.attributes)
    assert not re.search("[\u202a-\u202e\u2066-\u2069\x00]", source)


def test_corpus_text_is_kept_from_what_plotly_reads_as_markup(page: Page) -> None:
    figures = json.loads(page.packed("figures"))
    drawn = {"substitution-1-scatter-after_token", "substitution-2-scatter-at_token", "training-explained"}
    assert set(figures) >= drawn
    tokens = [token for one in figures.values() for _, token, _ in one["readings"]]
    assert HOSTILE[0] in tokens
    assert "alert" not in json.dumps([one["figure"] for one in figures.values()])


def test_every_figure_has_its_place(page: Page) -> None:
    places = {value for _, name, value in page.attributes if name == "id"}
    assert set(json.loads(page.packed("figures"))) <= places


def test_nothing_is_loaded_from_anywhere(source: str, page: Page) -> None:
    assert "http://" not in source
    assert "https://" not in source
    assert not [value for _, name, value in page.attributes if name in ("src", "srcset", "action", "data")]
    assert all(value.startswith("#") for _, name, value in page.attributes if name == "href")
    assert "url(" not in source
    assert "@import" not in source


def test_the_security_policy_lets_only_the_two_scripts_run(page: Page) -> None:
    policy = next(value for _, name, value in page.attributes if name == "content" and "default-src" in value)
    assert policy.startswith("default-src 'none'")
    own = next(text for values, text in page.scripts if not values)
    for script in (own, page.packed("plotly")):
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    assert policy.count("sha256-") == 2


def test_the_same_run_gives_the_same_bytes(run: Path, source: str) -> None:
    assert write_report(run).read_text(encoding="utf-8") == source
    assert len(source) < 3_000_000


@pytest.mark.parametrize(
    "name",
    [
        "summary.json",
        "spectrum.parquet",
        "train/state/history.jsonl",
        "substitution/write.parquet",
        "atoms/write.json",
    ],
)
def test_a_missing_file_is_named(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(InputError, match=re.escape(f"it has no {name}")):
        write_report(copy)
    assert not (copy / "report.html").exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("summary.json", "{"),
        ("summary.json", "{}"),
        ("atoms/state.json", '[{"feature": "x"}]'),
        ("train/write/history.jsonl", "{}\nnot json\n"),
        ("spectrum.parquet", "not parquet"),
    ],
)
def test_a_damaged_file_is_named(copy: Path, name: str, content: str) -> None:
    (copy / name).write_text(content)
    with pytest.raises(DataError, match=re.escape(name)):
        write_report(copy)


def test_a_missing_column_is_named(copy: Path) -> None:
    shutil.copy(copy / "spectrum.parquet", copy / "substitution" / "state.parquet")
    with pytest.raises(DataError, match="no column protocol"):
        write_report(copy)


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        write_report(tmp_path / "nowhere")


def test_a_page_that_cannot_be_written(copy: Path) -> None:
    (copy / "report.html").mkdir()
    with pytest.raises(OutputError, match=re.escape("report.html")):
        write_report(copy)


def test_a_run_in_which_nothing_could_be_measured(copy: Path) -> None:
    summary = json.loads((copy / "summary.json").read_text())
    nothing = {"n": 0, "attempted": 9, "refused": {"no feature fires": 9}, "win_rate": float("nan")}
    nothing |= {"interval": [float("nan")] * 2, "median_kl": dict.fromkeys(("atom", "delete", "random"), float("nan"))}
    summary["substitution"]["write"] = nothing | {"by_protocol": {}}
    summary["host"] = "tiny-gdn"
    (copy / "summary.json").write_text(json.dumps(summary))
    (copy / "atoms" / "write.json").write_text("[]")
    text = Page(write_report(copy).read_text(encoding="utf-8")).text
    assert "Not measured" in text
    assert "No atom fired" in text
    assert "nan" not in text.lower().split()


def test_the_command_writes_the_page_and_says_where(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["report", str(copy)])
    assert capsys.readouterr().out.strip() == str(copy / "report.html")
    assert (copy / "report.html").is_file()


def test_the_command_refuses_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["report", str(tmp_path / "nowhere")])
    assert stop.value.code == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_a_site_that_was_asked_for_is_not_called_the_best(copy: Path) -> None:
    heads = pd.read_parquet(copy / "spectrum.parquet")
    heads["chosen"] = (heads["layer"] == 0) & (heads["head"] == 3)
    heads.to_parquet(copy / "spectrum.parquet")
    summary = json.loads((copy / "summary.json").read_text()) | {"site": "L0.H3"}
    (copy / "summary.json").write_text(json.dumps(summary))
    remembering = heads[heads.write_share <= 0.5]
    best = remembering.sort_values("delete_kl").iloc[-1]
    text = " ".join(Page(write_report(copy).read_text(encoding="utf-8")).text.split())
    assert f"{len(remembering)} of 36 recurrent heads" in text
    assert f"writes matter most at L{best['layer']}.H{best['head']}" in text
    assert "The head of this result is L0.H3." in text


def test_evaluations_inside_a_quickstart_stand_on_its_page(copy: Path) -> None:
    fake("quality").write(copy / "more" / "quality")
    page = Page(write_report(copy).read_text(encoding="utf-8"))
    sections = [value for tag, name, value in page.attributes if (tag, name) == ("section", "id")]
    assert sections == ["answer", "substitution", "atoms", "quality", "spectrum", "training", "provenance"]
    shutil.copytree(copy, copy.parent / "outer" / "inner")
    with pytest.raises(InputError, match="by itself"):
        write_report(copy.parent / "outer")
