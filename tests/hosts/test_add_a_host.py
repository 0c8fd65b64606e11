"""docs/add-a-host.md is run as it stands."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from writesae.errors import ReplayError
from writesae.hosts import Host, registry

PAGE = Path(__file__).parents[2] / "docs" / "add-a-host.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)

pytestmark = pytest.mark.skipif(
    find_spec("transformers.models.qwen4_exp") is None, reason="this transformers has no Qwen4-Exp"
)


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_registered", [])


@pytest.mark.usefixtures("clean")
def test_every_block_runs_and_prints_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, object] = {}
    for block in BLOCKS:
        exec(compile(block, str(PAGE), "exec"), names)
    promised = re.findall(r"^print\(.*\)  # (.*)$", "\n".join(BLOCKS), re.MULTILINE)
    assert capsys.readouterr().out.splitlines() == promised
    host = names["host"]
    assert isinstance(host, Host)
    assert [layer.family for layer in host.layers.values()] == ["gated-deltanet"] * 2


@pytest.mark.usefixtures("clean")
def test_a_mistake_in_the_translation_is_refused() -> None:
    names: dict[str, object] = {}
    program = compile("\n".join(BLOCKS).replace("beta * log_decay.exp()", "beta"), str(PAGE), "exec")
    with pytest.raises(ReplayError, match=r"misses the model's own state and outputs by .* relative"):
        exec(program, names)
