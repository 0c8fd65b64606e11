"""The README's Python blocks run as printed, and its shell commands are the two that CI takes from it."""

import re
from pathlib import Path

import pytest

from fake_hub import Hub, serve

README = Path(__file__).parent.parent / "README.md"


def test_python_blocks_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    with serve(Hub(), monkeypatch) as hub:
        _run_blocks()
    said = capsys.readouterr().out
    assert "L5.H0 tiny-gdn write-delta" in said
    assert "substitution: " in said
    assert (tmp_path / "results" / "report.html").stat().st_size > 100_000
    assert any(path.endswith("weights.safetensors") for path in hub.commits["me/dictionaries"][-1])


def _run_blocks() -> None:
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert blocks
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, str(README), "exec"), names)


def test_the_two_commands() -> None:
    marked = README.read_text(encoding="utf-8").split("<!-- commands -->")[1].split("<!-- end commands -->")[0]
    commands = [line for line in marked.splitlines() if line.startswith("python ")]
    assert commands == [
        "python -m pip install -c constraints.txt -e . && writesae quickstart",
        "python -m pip install -c constraints.txt -e '.[dev]' && python -m pytest",
    ]


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", README.read_text(encoding="utf-8")):
        assert (README.parent / target).exists(), target
