"""The notebook runs from top to bottom, and what it prints is what it shows."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "editing_and_attribution.ipynb"


def words(text: str) -> list[str]:
    """The text without its numbers, which may differ in their last digits from one machine to another."""
    return re.sub(r"[-+]?\d[\d.]*", "0", text).split()


def test_the_notebook_runs(capsys: pytest.CaptureFixture[str]) -> None:
    cells = [cell for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    assert len(cells) >= 4
    namespace: dict[str, object] = {}
    for cell in cells:
        exec("".join(cell["source"]), namespace)
        shown = "".join("".join(output["text"]) for output in cell["outputs"])
        assert words(capsys.readouterr().out) == words(shown)
