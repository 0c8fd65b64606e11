"""The `writesae` command: each subcommand is parse + one library call.

A command file holds a torch-free dataclass `Command` (its docstring is the help, its fields are the flags) and
`run(command)`. Nothing is imported before it is needed, so `writesae --help` is quick.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import NoReturn

COMMANDS: dict[str, str] = {
    "quickstart": "the whole chain on an embedded host: audit, capture, train, test, report",
    "hosts": "list the families and models that are supported, or the sites of one model",
    "capture": "record what a host writes into a stream store",
    "train": "train a dictionary from a store",
    "eval": "measure a dictionary: substitution, population, partition, logit shift, fidelity and more",
    "attribute": "which past writes and atoms made the model say this",
    "edit": "erase, install or amplify what a host writes, and read both continuations side by side",
    "experiment": "the probes of editing with their statistics: sign, installs, erasure, amplification, proper-nouns",
    "report": "one page of all results under a folder",
    "convert": "import released checkpoints (either layout) without running code from them",
    "verify": "check every file of a dictionary, collection, store or run",
    "list": "list the dictionaries of a folder or a Hub repository",
    "push": "upload a dictionary or a collection to the Hub",
    "pull": "download dictionaries from the Hub",
}
"""Name -> one line of help. Each name is a module of this package."""

GROUPS = ("eval",)
"""Commands with subcommands that have flags of their own: their module's `parse` reads the words after the name."""


def main(arguments: list[str] | None = None) -> None:
    """Entry point of the `writesae` command; exits with 2 on bad input and prints one line that says why."""
    words = sys.argv[1:] if arguments is None else arguments
    if not words or words[0] in ("-h", "--help"):
        _print_help()
        return
    if words[0] == "--version":
        from importlib.metadata import version

        print(f"writesae {version('writesae')}")
        return
    name = words[0]
    if name not in COMMANDS:
        _fail(f"unknown command {name!r}: choose one of {', '.join(COMMANDS)}")
    import inspect

    import tyro

    module = importlib.import_module(f"writesae.cli.{name}")
    from writesae.errors import WritesaeError

    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    try:
        if name in GROUPS:
            command = module.parse(words[1:])
        else:
            help_text = " ".join((inspect.getdoc(module.Command) or "").split())
            command = tyro.cli(module.Command, prog=f"writesae {name}", args=words[1:], description=help_text)
        module.run(command)
    except WritesaeError as error:
        _fail(str(error))
    except KeyboardInterrupt:
        _fail("interrupted; run the same command again to continue where it stopped", code=130)


def _print_help() -> None:
    width = max(map(len, COMMANDS)) + 2
    print("usage: writesae COMMAND [options]\n")
    print("Learn, test and use sparse dictionaries of what recurrent language models write into their state.\n")
    for name, text in COMMANDS.items():
        print(f"  {name:<{width}}{text}")
    print("\nwritesae COMMAND --help lists a command's options; writesae --version prints the version.")


def _fail(message: str, code: int = 2) -> NoReturn:
    print(f"writesae: {' '.join(message.split())}", file=sys.stderr)
    raise SystemExit(code)
