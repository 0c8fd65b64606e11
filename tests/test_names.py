"""Names of functions and of packages do not take each other's place, whatever was imported before."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import importlib, pkgutil, types
import writesae
from writesae import attribution, edits, evals

places = (writesae, attribution, edits, evals)
parts = {"writesae.attribution", "writesae.edits", "writesae.evals"}

def every():
    return {(place.__name__, name): getattr(place, name) for place in places for name in place.__all__}

def called():
    return str(attribution.attribute(model, None, "In the year")), str(edits.erase(model, "L5.H0"))

model = writesae.load("tiny-gdn")
first, second, said = every(), every(), called()
optional = ("writesae.hosts.fla_on_cpu", "writesae.cli.__main__")
for module in pkgutil.walk_packages(writesae.__path__, "writesae."):
    if not module.name.startswith(optional):
        importlib.import_module(module.name)
third = every()
assert called() == said == called()
for key, value in first.items():
    assert value is second[key] is third[key], key
    if isinstance(value, types.ModuleType):
        assert value.__name__ in parts, key
assert set(writesae.__all__) == set(dir(writesae)) == {name for place, name in first if place == "writesae"}
assert writesae._HOME.keys() | set(writesae._PARTS) == set(writesae.__all__)
assert list(writesae._HOME) == sorted(writesae._HOME)
"""


def test_every_public_name_stays_what_it_is_when_submodules_are_imported() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
