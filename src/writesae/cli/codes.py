"""`writesae codes`: what fires at each token of a text."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from writesae.cli.options import Flat, HostOptions, check_reading, console, dictionary
from writesae.errors import InputError
from writesae.types import NativeWrite, Reading


@dataclass(frozen=True)
class Command:
    """Encode a text and list the features that fire at each token, the strongest first, with the tokens that their
    atoms promote."""

    text: Annotated[str, tyro.conf.Positional]
    """The text."""
    sae: str
    """The dictionary: a folder or a Hub id."""
    site: str | None = None
    """Head of a dictionary that does not say it itself, or one of several in the folder, such as L5.H0."""
    allow: tuple[Literal["mismatch"], ...] = ()
    """Overrule a refusal: a dictionary of another head or of other weights. The result says so."""
    on: Flat[HostOptions] = field(default_factory=HostOptions)
    reading: Reading = "state"
    """How a dictionary of states is read: by its largest features (state), or by those that the token's own write
    raises most, by how much (increment)."""
    native_write: NativeWrite = "delta"
    """Form of the write that an increment is of."""
    top: int = 3
    """Features a token that are listed; --json holds all."""
    words: int = 3
    """Tokens that are named for each."""
    json: Path | None = None
    """Write the result here."""
    html: Path | None = None
    """Write the list to this page."""
    given: Annotated[frozenset[str], tyro.conf.Suppress] = frozenset()
    """Names of the flags that were given."""


def run(command: Command) -> None:
    """Encode, write what was asked for, and print."""
    from writesae.attribution import codes
    from writesae.disk import check_place, write_json, write_text

    if command.top < 1 or command.words < 1:
        raise InputError(f"--top {command.top} and --words {command.words} cannot be: give at least 1")
    written = [path for path in (command.json, command.html) if path is not None]
    for path in written:
        check_place(path, file=True)
    sae = dictionary(command.sae, command.site)
    if "reading" in command.given:
        check_reading([sae])
    if "native_write" in command.given and command.reading != "increment":
        raise InputError("--native-write has no effect without --reading increment")
    found = codes(
        command.on.open([sae]), sae, command.text, site=command.site, top=command.top, words=command.words,
        reading=command.reading, native_write=command.native_write, allow=command.allow,
    )  # fmt: skip
    if command.json is not None:
        write_json(command.json, found.to_json())
    if command.html is not None:
        write_text(command.html, found.sheet().page("writesae codes"))
    terminal = console()
    terminal.print(found.sheet())
    for path in written:
        terminal.print(f"wrote {path}", highlight=False)
