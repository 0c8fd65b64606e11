"""Words of the command line -> a command's dataclass, the same for every command.

What is wrong is one InputError line. A flag that is given twice is never dropped in silence: values of a list are put
together (and may be written with commas, `--features 3,17`), any other is refused. Flags that were renamed say so.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import redirect_stderr
from dataclasses import dataclass, fields, is_dataclass, replace
from difflib import get_close_matches
from io import StringIO
from itertools import takewhile
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import tyro

from writesae.errors import InputError

T = TypeVar("T")

RENAMED = {
    "--dictionary": "--sae",
    "--dictionaries": "--sae",
    "--sites": "--site",
    "--form": "--native-write",
    "--forms": "--native-writes",
    "--timing": "--timings",
    "--host-dtype": "--dtype",
    "--when": "--positions",
    "--position": "--positions",
    "--feature": "--features",
}
"""Old flag -> its successor, which is named where a command has it and has no such flag any more."""


@dataclass(frozen=True)
class _Flag:
    name: str
    """The flag itself, also of its negation `--no-...`."""
    several: bool = False
    """Whether it takes any number of values."""
    commas: bool = False
    """Whether they may be separated by commas."""


def parse_flags(kind: type[T], program: str, words: list[str], text: str) -> T:
    """`words` as a `kind`, a dataclass whose fields are the flags. Prints help and exits where it is asked for.

    `program` is how the command is called, `text` the help above the flags. A field `given` that is no flag
    (suppressed) becomes the names of those that were. Raises InputError for whatever is wrong.
    """
    named: dict[str, object] = {}
    if {"-h", "--help"} & set(words):
        words = [*takewhile(lambda word: not word.startswith("-"), words), "--help"]  # whatever else is wrong
    else:
        words, given = _checked(_flags(kind), program, words)
        if "given" in get_type_hints(kind):
            named["given"] = given
    said = StringIO()
    try:
        with redirect_stderr(said):
            command = tyro.cli(kind, prog=program, args=words, description=" ".join(text.split()))
    except SystemExit as stop:
        if stop.code in (None, 0):
            raise
        told = re.sub("'None', |, 'None'", "", _told(said.getvalue())).rstrip(".")  # left out, not written
        raise InputError(f"{told}; see {program} --help") from None
    return replace(command, **named)  # type: ignore[type-var]


def _flags(kind: Any) -> dict[str, _Flag]:
    """Every flag of a dataclass and of those in it, by every way to write it."""
    found: dict[str, _Flag] = {}
    hints = get_type_hints(kind, include_extras=True)
    for field in fields(kind):
        if {tyro.conf.Positional, tyro.conf.Suppress} & set(getattr(hints[field.name], "__metadata__", ())):
            continue
        name = f"--{field.name.replace('_', '-')}"
        for one in _alternatives(hints[field.name]):
            if is_dataclass(one):
                inner = _flags(one)
                found |= inner | {f"{name}.{key.removeprefix('--')}": flag for key, flag in inner.items()}
            elif get_origin(one) is tuple and ... in get_args(one):
                item = next(_alternatives(get_args(one)[0]))
                commas = item in (int, float) or get_origin(item) in (Literal, tuple) or name in ("--site", "--layers")
                found[name] = _Flag(name, True, commas)
            else:
                found.setdefault(name, _Flag(name))
                if one is bool:
                    found[f"--no-{name.removeprefix('--')}"] = found[name]
    return found


def _alternatives(hint: Any) -> Any:
    """The types that a hint allows, without annotations."""
    if get_origin(hint) is Annotated:
        yield from _alternatives(get_args(hint)[0])
    elif get_origin(hint) in (Union, UnionType):
        for one in get_args(hint):
            yield from _alternatives(one)
    else:
        yield hint


def _checked(flags: Mapping[str, _Flag], program: str, words: list[str]) -> tuple[list[str], frozenset[str]]:
    """The words with every flag once, and the fields that they name; raises InputError for unknown, renamed and
    repeated flags."""
    current: list[str] = []
    groups, first = [(current, False)], dict[str, list[str]]()
    for word in words:
        if not word.startswith("--") or word.startswith("--tyro-"):
            current.append(word)
            continue
        given, equals, value = word.partition("=")
        flag = flags.get(given.replace("_", "-"))
        if flag is None:
            raise InputError(_unknown(given, flags, program))
        if flag.name not in first:
            first[flag.name] = [given if flag.several else word]
            groups.append((first[flag.name], flag.commas))
        elif not flag.several:
            raise InputError(f"{flag.name} is given more than once, and takes one value; see {program} --help")
        current = first[flag.name]
        if flag.several and equals:
            current.append(value)
    parts = [part for group, commas in groups for word in group for part in (word.split(",") if commas else [word])]
    return parts, frozenset(name.removeprefix("--").replace("-", "_") for name in first)


def _unknown(given: str, flags: Mapping[str, _Flag], program: str) -> str:
    """What is said of a flag that a command does not have."""
    if (successor := RENAMED.get(given)) in flags:
        return f"{given} is called {successor} now; see {program} --help"
    near = get_close_matches(given, [name for name in flags if "." not in name or "." in given], 2)
    hint = f"did you mean {' or '.join(near)}? see" if near else "see"
    return f"there is no flag {given}: {hint} {program} --help"


def _told(box: str) -> str:
    """What the parser's box says between its title and its first rule inside, as one line; boxes can be ASCII too."""
    lines = [line.strip("│╭╮╰╯").rstrip() for line in box.splitlines()][1:]
    if lines and not lines[0].strip(" ─-"):
        lines = lines[1:]  # the rule under an ASCII title
    said = list(takewhile(lambda line: line.strip(" ─-"), lines))
    if not said or not said[0].lstrip().startswith("Missing from"):
        return " ".join(" ".join(said).split())
    margin = len(said[0]) - len(said[0].lstrip())
    missing: list[str] = []
    for line in said[1:]:
        depth, text = len(line) - len(line.lstrip()) - margin, line.strip()
        if depth == 4:
            missing.append(text)
        elif depth > 4 and not missing[-1].startswith("--"):  # a word without a flag: its name says little
            missing[-1] += f" {text}"
    return f"missing: {'; '.join(missing)}".replace(". (required)", "").replace(" (required)", "")
