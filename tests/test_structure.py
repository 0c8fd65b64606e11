"""Imports flow downwards only, and nothing heavy happens before it is needed."""

import ast
import subprocess
import sys
import time
from pathlib import Path

import pytest

import writesae

ROOT = Path(writesae.__file__).parent
ORDER = (
    "errors", "types", "config", "disk", "show", "recurrence", "sae", "corpus", "hosts", "store", "artifacts",
    "training", "causal", "edits", "attribution", "evals", "page", "reproduce", "sweep", "quickstart", "cli",
)  # fmt: skip
"""Lowest first. A part may import itself and what stands before it."""


def imported(path: Path) -> set[str]:
    """The parts of writesae that a file imports, at any depth of the file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = [node.module] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        found |= {name.split(".")[1] for name in names if name and name.startswith("writesae.")}
    return found


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_flow_downwards(path: Path) -> None:
    part = path.relative_to(ROOT).parts[0].removesuffix(".py")
    if part == "__init__":
        return
    above = {name for name in imported(path) if ORDER.index(name) > ORDER.index(part)}
    assert not above, f"{part} imports {sorted(above)}, which stand above it"


def test_every_part_has_its_place() -> None:
    parts = {
        p.stem if p.suffix else p.name for p in ROOT.iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()
    }
    assert parts - {"__init__"} <= set(ORDER)


def test_import_is_light() -> None:
    heavy = "any(m in sys.modules for m in ('torch', 'transformers', 'numpy'))"
    code = f"import sys, writesae, writesae.cli; sys.exit({heavy})"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_old_name_names_its_successor() -> None:
    with pytest.raises(AttributeError, match=r"writesae\.load_host is now writesae\.load$"):
        writesae.load_host  # noqa: B018


def test_help_lists_every_command_quickly() -> None:
    from writesae.cli import COMMANDS

    begin = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "writesae.cli", "--help"], capture_output=True, text=True, check=True)
    assert time.perf_counter() - begin < 5  # a gross check; the figure itself is measured in benchmarks/
    assert all(name in done.stdout for name in COMMANDS)


def test_unknown_command_is_one_line() -> None:
    done = subprocess.run([sys.executable, "-m", "writesae.cli", "trian"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "trian" in done.stderr
    assert "train" in done.stderr
