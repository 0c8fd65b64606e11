"""Imports flow downwards only, and nothing heavy happens before it is needed."""

import ast
import importlib
import importlib.util
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

import writesae

ROOT = Path(writesae.__file__).parent
ORDER = (
    "errors", "calls", "signals", "types", "config", "hub", "disk", "memory", "cluster", "devices", "show",
    "recurrence", "corpus", "sae", "hosts", "store", "artifacts", "training", "causal", "edits", "attribution",
    "evals", "page", "reproduce", "sweep", "quickstart", "cli",
)  # fmt: skip
"""Lowest first. A part may import itself and what stands before it."""


UNNAMED = "a part whose name the code only puts together"
"""Stands above all: `import_module("writesae." + name)` and its like could reach anything."""


def imported(source: str) -> set[str]:
    """The parts of writesae that a file imports, at any depth of it, also by names that are written as strings.

    A string counts wherever it stands, in a call or in a table, if it begins with the name of a part. A name that is
    only put together, and what comes from the top-level package, which leads everywhere, count as unnamed.
    """
    tree = ast.parse(source)
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}  # docstrings are no imports
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            names.append("writesae." if node.level or node.module == "writesae" else node.module or "")
        elif isinstance(node, ast.Import):
            names += [alias.name if alias.name != "writesae" else "writesae." for alias in node.names]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            names += ["writesae."] if len(node.args) + len(node.keywords) > 1 else []  # relative to a package
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
            names += [node.value] if re.fullmatch(r"writesae\.[\w.:]*", node.value) else []
    parts = [
        name.removeprefix("writesae.").partition(".")[0].partition(":")[0] for name in names if "writesae." in name
    ]
    return {part or UNNAMED for part in parts if part in {"", *ORDER}}


def above(part: str, source: str) -> set[str]:
    """What a file of a part imports of what stands above the part."""
    return {name for name in imported(source) if name == UNNAMED or ORDER.index(name) > ORDER.index(part)}


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_flow_downwards(path: Path) -> None:
    part = path.relative_to(ROOT).parts[0].removesuffix(".py")
    if part not in ("__init__", "__main__"):  # the top-level package stands above all
        assert above(part, path.read_text()) == set()


@pytest.mark.parametrize(
    "source",
    [
        "import writesae.cli.train",
        "from writesae.page import plot",
        "from writesae import page",
        "from ..page import plot",
        "def f():\n    import writesae\n    writesae.plot",
        'import_module("writesae.page").plot',
        '__import__("writesae.page")',
        'HOME = {"plot": "writesae.page:plot"}',
        'import_module(f"writesae.{name}")',
        'import_module("writesae." + name)',
        'import_module(".page", "writesae")',
    ],
)
def test_every_way_to_import_is_seen(source: str) -> None:
    assert above("sae", source)


def test_imports_downwards_are_free() -> None:
    source = 'from writesae.errors import InputError\nimport_module("writesae.sae")\nTABLE = ["writesae.types:Site"]'
    assert imported(source) == {"errors", "sae", "types"}
    assert not above("sae", source)


def test_prose_is_no_import() -> None:
    assert not above("sae", '"""See writesae.page."""\nKIND = "writesae.collection"\nprint("in writesae.page")')


def test_every_part_has_its_place() -> None:
    parts = {
        p.stem if p.suffix else p.name for p in ROOT.iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()
    }
    assert parts - {"__init__", "__main__"} <= set(ORDER)


def test_every_text_file_is_utf8_whatever_the_locale() -> None:
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = ast.unparse(node.func).rpartition(".")[2]
            said = {keyword.arg for keyword in node.keywords} & {"encoding"} or len(node.args) > (name == "write_text")
            if name in ("read_text", "write_text"):
                assert said or ast.unparse(node.func) == "write_text", f"{path}:{node.lineno}"  # ours is UTF-8
            if name == "open" and any(isinstance(x, ast.Constant) and x.value in ("r", "w", "a") for x in node.args):
                assert said == {"encoding"}, f"{path}:{node.lineno}"


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


SCRIPTS = sorted([*ROOT.parents[1].glob("benchmarks/*.py"), *ROOT.parents[1].glob("docs/*.py")])


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda p: p.name)
def test_scripts_import_what_there_is(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("writesae"):
            module = importlib.import_module(node.module or "")
            absent = [
                name.name for name in node.names
                if not hasattr(module, name.name) and not importlib.util.find_spec(f"{node.module}.{name.name}")
            ]  # fmt: skip
            assert not absent, f"{node.module} has no {', '.join(absent)}"
