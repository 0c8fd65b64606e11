"""Every shell line of docs/cli.md runs as printed."""

import re
import shlex
from pathlib import Path

import pytest

from writesae.cli import COMMANDS, main

PAGE = Path(__file__).parent.parent / "docs" / "cli.md"


def test_the_command_line_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```sh\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    assert len(lines) > 5
    for line in lines:
        words = shlex.split(line)
        assert words[0] == "writesae"
        main(words[1:])
    assert (tmp_path / "run" / "sae" / "manifest.json").is_file()
    assert (tmp_path / "quickstart" / "report.html").is_file()


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([name, "--help"])
    assert stop.value.code == 0
    assert f"writesae {name}" in capsys.readouterr().out
