"""The page of a folder of results: whole, safe, the same as Python says, and what it cannot read is named on it."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from html_page import Page

import writesae as ws
from writesae.cli import main
from writesae.errors import InputError
from writesae.evals.common.result import Result
from writesae.page import plot, report
from writesae.show import words

HOSTILE = "</script><img src=x onerror=alert(1)>%{y}\u202e"
"""Stands wherever a result may hold text that somebody else chose."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, results: dict[str, Result[Any, Any]]) -> Path:
    """Every evaluation's result at two depths, one with hostile text, beside things that are no results."""
    place = tmp_path_factory.mktemp("results")
    for i, (name, result) in enumerate(results.items()):
        result.save(place / name if i % 2 else place / "more" / name)
    shutil.copytree(place / "more" / next(iter(results)), place / "hostile")
    data = json.loads((place / "hostile" / "summary.json").read_text())
    data["provenance"]["host"] = data["provenance"]["text"]["corpus"] = HOSTILE
    (place / "hostile" / "summary.json").write_text(json.dumps(data))
    for name, text in (("foreign", '{"name": "someone else\'s"}'), ("broken", "{"), ("old", '{"name": "quality"}')):
        (place / name).mkdir()
        (place / name / "summary.json").write_text(text)
    assert report(place) == place / "report.html"
    return place


@pytest.fixture(scope="module")
def source(folder: Path) -> str:
    return (folder / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(source: str) -> Page:
    return Page(source)


def test_every_element_is_closed_and_every_anchor_exists(page: Page) -> None:
    assert page.open == []
    ids = [value for _, name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    targets = {value[1:] for tag, name, value in page.attributes if tag == "a" and name == "href"}
    assert targets
    assert targets <= set(ids)


def test_every_result_stands_on_the_page_as_python_says_it(page: Page, results: dict[str, Result[Any, Any]]) -> None:
    figures, text = json.loads(page.packed("figures")), " ".join(page.text.split())
    for name, result in results.items():
        assert " ".join(result.finding.split()) in text
        for plot_ in result.panel.plots:
            assert any(key.startswith(f"{name}-") and key.endswith(f"-{plot_.name}") for key in figures)
        for row in result.panel.table.rows:
            assert " ".join(words.visible(row[0]).split()) in text


def test_what_cannot_be_read_is_named_and_the_rest_is_shown(page: Page) -> None:
    assert "Not shown, because they cannot be read" in page.text
    for name in ("foreign", "broken", "old"):
        assert f"{name} (" in page.text


def test_the_command_names_what_it_left_out(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["report", str(folder / "broken" / "..")])
    said = capsys.readouterr()
    assert said.out.strip().endswith("report.html")
    assert all(f"left out: {name}" in said.err for name in ("foreign", "broken", "old"))


def test_summaries_are_computed_anew_when_asked(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "more", tmp_path / "results")
    paths = sorted((tmp_path / "results").rglob("summary.json"))
    before = [path.read_text() for path in paths]
    for path, text in zip(paths, before, strict=True):
        path.write_text(json.dumps(json.loads(text) | {"version": 2, "summary": {}, "finding": "?"}))
    main(["report", str(tmp_path / "results"), "--recompute"])
    assert all('"version": 4' in path.read_text() for path in paths)
    findings = [[json.loads(text)["finding"] for text in texts] for texts in (before, map(Path.read_text, paths))]
    assert findings[0] == findings[1]


def test_hostile_text_stays_text(source: str, page: Page) -> None:
    assert page.tags["script"] == 3
    assert "img" not in page.tags
    assert not any(name.startswith("on") for _, name, _ in page.attributes)
    assert not re.search("[\u202a-\u202e\u2066-\u2069\x00]", source)


def test_the_page_opens_without_a_network(source: str) -> None:
    assert not re.search(r"(src|href)=[\"'](?!#)", source)
    assert "default-src 'none'" in source


def test_the_same_results_give_the_same_bytes(folder: Path, source: str) -> None:
    report(folder)
    assert (folder / "report.html").read_text(encoding="utf-8") == source


def test_a_folder_without_results_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match="no such folder"):
        report(tmp_path / "nowhere")
    with pytest.raises(SystemExit) as stop:
        main(["report", str(tmp_path)])
    assert stop.value.code == 2
    assert "writesae eval NAME" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_plot_takes_results_and_folders_and_says_what_else_is_wrong(
    folder: Path, results: dict[str, Result[Any, Any]]
) -> None:
    name = next(iter(results))
    assert list(plot(folder / "more" / name)) == list(plot(results[name]))
    with pytest.raises(InputError, match="give the folder of one"):
        ws.plot(folder)
    with pytest.raises(InputError, match="draws the result of an evaluation"):
        ws.plot(3)  # type: ignore[arg-type]
