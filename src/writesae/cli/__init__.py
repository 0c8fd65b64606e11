"""The `writesae` command: each subcommand is parse + one library call.

A command file holds a torch-free dataclass `Command` (its docstring is the help, its fields are the flags) and
`run(command)`; or `parse(words)` instead of the dataclass where the first word chooses among several. Nothing is
imported before it is needed, so `writesae --help` is quick.
"""

from __future__ import annotations

import importlib
import io
import os
import sys
import warnings
from typing import NoReturn

COMMANDS: dict[str, str] = {
    "quickstart": "the whole chain on an embedded host: audit, capture, train, test, report",
    "hosts": "list the families and models that are supported, or the sites of one model",
    "capture": "record what a host writes into a stream store",
    "train": "train a dictionary from a store",
    "eval": "measure a dictionary: substitution, population, partition, logit shift, fidelity and more",
    "codes": "which features of a dictionary fire at each token of a text",
    "attribute": "which past writes and atoms made the model say this",
    "edit": "erase, install or amplify what a host writes, and read both continuations side by side",
    "reproduce": "every published claim, measured here and set beside its published number",
    "sweep": "a grid of dictionaries, trained and tested: one table, one page, or what it would cost",
    "report": "one page of all results under a folder",
    "convert": "import released checkpoints (either layout) without running code from them",
    "verify": "check every file of a dictionary, collection, store or run",
    "list": "list the dictionaries of a folder or a Hub repository",
    "push": "upload a dictionary or a collection to the Hub",
    "pull": "download dictionaries from the Hub",
}
"""Name -> one line of help. Each name is a module of this package."""

GROUPS = ("eval",)
"""Commands whose first word chooses among several: their module's `parse` reads the words after the name."""

RENAMED = {
    "experiment": "its probes are evaluations: writesae eval sign (or installs, erasure, amplification, proper_nouns)"
}
"""Old command -> where to find it."""


def main(arguments: list[str] | None = None) -> None:
    """Entry point of the `writesae` command; exits with 2 on bad input and prints one line that says why."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # what a terminal cannot show is replaced there
        sys.stdout.reconfigure(errors="replace")
    try:
        try:
            _main(sys.argv[1:] if arguments is None else arguments)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        if not _nobody_reads():
            raise
        raise SystemExit(141) from None  # as a program that is ended by SIGPIPE


def _nobody_reads() -> bool:
    """Whether the standard output leads nowhere (`writesae train --help | head -1`); if so it is closed for good."""
    try:
        print(flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the interpreter flushes it once more
        return True
    return False


def _main(words: list[str]) -> None:
    if not words or words[0] in ("-h", "--help"):
        _print_help()
        return
    if words[0] == "--version":
        from importlib.metadata import version

        print(f"writesae {version('writesae')}")
        return
    words = [_text(word) for word in words]
    name = words[0]
    if name not in COMMANDS:
        if name in RENAMED:
            _fail(f"`writesae {name}` is gone, {RENAMED[name]}")
        _fail(f"unknown command {name!r}: choose one of {', '.join(COMMANDS)}")
    from writesae.calls import refused
    from writesae.errors import WritesaeError
    from writesae.signals import exit_code, heed_sigterm

    heed_sigterm()
    warnings.formatwarning = lambda message, *_: f"writesae: {message}\n"
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    try:
        module = importlib.import_module(f"writesae.cli.{name}")
        if name in GROUPS:
            command = module.parse(words[1:])
        else:
            from writesae.cli.parsing import parse_flags

            command = parse_flags(module.Command, f"writesae {name}", words[1:], module.Command.__doc__)
        module.run(command)
    except WritesaeError as error:
        _fail(str(error))
    except BrokenPipeError:
        raise
    except OSError as error:
        _fail(refused(error))
    except KeyboardInterrupt:
        _fail("interrupted; run the same command again to continue where it stopped", code=exit_code())


def _text(word: str) -> str:
    """A word as text; under a locale that is not UTF-8 it may have come as bytes."""
    try:
        return word if not any("\ud800" <= letter <= "\udfff" for letter in word) else os.fsencode(word).decode()
    except UnicodeError:
        _fail(f"{word!a} is not text in UTF-8")


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
