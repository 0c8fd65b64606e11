"""One parser for every command: one line for what is wrong, and no flag is dropped in silence."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import pytest
import tyro

from writesae.cli.parsing import parse_flags
from writesae.errors import ConfigError, InputError


@dataclass(frozen=True)
class Inner:
    """What stands in another."""

    length: int = 7
    """Tokens."""
    bos: bool = False
    """Whether."""

    def __post_init__(self) -> None:
        if self.length < 1:
            raise ConfigError("length is too small")


@dataclass(frozen=True)
class Flags:
    """A command. With two sentences."""

    path: tyro.conf.Positional[Path]
    """What to look at."""
    out: Path
    """Where to write."""
    inner: Annotated[Inner, tyro.conf.arg(name="")]
    sae: tuple[str, ...] = ()
    """Folders."""
    site: tuple[str, ...] = ()
    """Heads."""
    features: tuple[int, ...] | None = None
    """Atoms."""
    ranks: tuple[tuple[int, int], ...] = ()
    """Pairs."""
    pair: tuple[int, int] = (0, 1)
    """One pair."""
    timings: tuple[Literal["after", "at"], ...] = ("after", "at")
    """When."""
    native_write: Literal["delta", "value"] = "delta"
    """Which."""


def parse(words: str) -> Flags:
    return parse_flags(Flags, "writesae try", words.split(), "Text.")


def said(words: str) -> str:
    """What is wrong, in one line."""
    with pytest.raises(InputError) as stop:
        parse(words)
    assert "\n" not in str(stop.value)
    return str(stop.value)


def test_values() -> None:
    assert parse("p --out o") == Flags(Path("p"), Path("o"), Inner())
    given = parse("--out=o --length 5 --bos --native_write value --pair 3 5 p")
    assert given == Flags(Path("p"), Path("o"), Inner(5, True), pair=(3, 5), native_write="value")


def test_lists_are_put_together_and_take_commas() -> None:
    given = parse("p --sae a b,c --out o --sae d --sae=e --features 3,17 --features -5 --site L5.H0,L5.H1 --site L6.H0")
    assert given.sae == ("a", "b,c", "d", "e")
    assert given.features == (3, 17, -5)
    assert given.site == ("L5.H0", "L5.H1", "L6.H0")
    assert parse("p --out o --timings at,after --ranks 10,100 100,1000").ranks == ((10, 100), (100, 1000))


@pytest.mark.parametrize("twice", ["--out a --out=b", "--bos --no-bos", "--pair 1 2 --pair 3 5"])
def test_what_takes_one_value_is_not_given_twice(twice: str) -> None:
    flag = twice.split()[0]
    assert f"{flag} is given more than once, and takes one value" in said(f"p {twice}")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "missing: PATH What to look at; --out PATH; see writesae try --help"),
        ("p", "missing: --out PATH; see writesae try --help"),
        ("p --out o --feat 3", "there is no flag --feat: did you mean --features? see writesae try --help"),
        ("p --out o --qqq", "there is no flag --qqq: see writesae try --help"),
        ("p --out o --features many", "many"),
        ("p --out o --native-write never", "invalid choice 'never'"),
        ("p --out o --length", "Missing value for argument '--length'"),
        ("p q --out o", "Unrecognized options: q"),
        ("p --out o --length 0", "length is too small"),
        ("p --out o --dictionary d", "--dictionary is called --sae now"),
        ("p --out o --sites L5.H0", "--sites is called --site now"),
        ("p --out o --form value", "--form is called --native-write now"),
    ],
)
def test_what_is_wrong_is_one_line(words: str, message: str) -> None:
    assert message in said(words)


def test_a_box_of_ascii_is_one_line_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tyro._fmtlib._should_use_utf8_drawing_chars", lambda: False)
    assert said("") == "missing: PATH What to look at; --out PATH; see writesae try --help"
    assert (
        said("p --out o --length")
        == "Missing value for argument '--length'. Expected 1 values; see writesae try --help"
    )


def test_help_names_the_program_and_the_text(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        parse("--feat 3 --help")
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    for part in ("usage: writesae try", "Text.", "--native-write", "What to look at."):
        assert part in shown
