"""How numbers and corpus text are written on the page."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Concatenate, ParamSpec, cast

P = ParamSpec("P")

MISSING = "\u2013"

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def finite(value: float | None) -> bool:
    """Whether there is a number."""
    return value is not None and math.isfinite(value)


def _number(write: Callable[Concatenate[float, P], str]) -> Callable[Concatenate[float | None, P], str]:
    """A number with a sign of minus; a dash where there is none."""

    @wraps(write)
    def written(value: float | None, /, *args: P.args, **more: P.kwargs) -> str:
        known = value is not None and math.isfinite(value)
        return write(cast(float, value), *args, **more).replace("-", "\u2212") if known else MISSING

    return written


@_number
def percent(value: float, digits: int = 1) -> str:
    """0.8731 -> `87.3 %` (narrow no-break space)."""
    return f"{100 * value:.{digits}f}\u202f%"


def interval(bounds: tuple[float, float] | None) -> str:
    """(0.85, 0.894) -> `85.0 to 89.4 %`."""
    if bounds is None or not all(finite(bound) for bound in bounds):
        return MISSING
    return f"{100 * bounds[0]:.1f} to {100 * bounds[1]:.1f}\u202f%"


@_number
def quantity(value: float) -> str:
    """Three significant digits; powers of ten below a thousandth and from ten thousand up."""
    if value == 0 or 1e-3 <= abs(value) < 1e4:
        return _significant(value, 3)
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa}\u2009\u00d7\u200910{str(int(exponent)).translate(_SUPERSCRIPT)}"


@_number
def compact(value: float) -> str:
    """Two significant digits for a narrow cell: `0.013`, and `6e\u22124` below a thousandth."""
    if value == 0 or abs(value) >= 1e-3:
        return _significant(value, 2)
    mantissa, exponent = f"{value:.0e}".split("e")
    return f"{mantissa}e{int(exponent)}"


@_number
def fixed(value: float) -> str:
    """Three decimals, for shares whose distance from 1 matters."""
    return f"{value:.3f}"


def _significant(value: float, digits: int) -> str:
    exponent = int(f"{value:.{digits - 1}e}".split("e")[1])  # of the rounded value: 0.9996 is 1.00, not 0.9996
    return f"{value:.{max(0, digits - 1 - exponent)}f}"


def count(value: int | None) -> str:
    """12345 -> `12,345`."""
    return MISSING if value is None else f"{value:,}"


def duration(seconds: float | None) -> str:
    """75.2 -> `1 min 15 s`; from two hours on in hours, and from two days on in days."""
    if seconds is None or not finite(seconds):
        return MISSING
    if seconds < 60:
        return f"{seconds:.1f}\u202fs"
    if seconds >= 2 * 3600:
        hours = seconds / 3600
        return f"{hours:.1f}\u202fh" if hours < 48 else f"{hours / 24:.1f}\u202fdays"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}\u202fmin {rest}\u202fs"


CONDITIONS = {
    "atom": ("the atom", "atom"),
    "delete": ("nothing, write deleted", "nothing"),
    "random": ("random rank-1", "random"),
    "random_coefficient": ("random rank-1 at the coefficient", "random, coefficient"),
    "random_norm": ("random rank-1 at the write\u2019s norm", "random, norm"),
    "orthogonal": ("random rank-1, orthogonal to the write", "orthogonal"),
    "other_atom": ("another atom, silent here", "silent atom"),
    "pca": ("first principal direction", "PCA"),
    "flat_svd": ("flat dictionary, top singular pair", "flat, SVD"),
    "all_active": ("all active features", "all active"),
    "nearest": ("the nearest atom", "nearest"),
    "other": ("another write deleted", "another"),
    "everything": ("every head\u2019s writes from the name on deleted", "every head"),
    "attention": ("attention alone: every head\u2019s writes deleted", "attention"),
    "native": ("the write itself", "native"),
}
"""What stands in a write's place: in words, and in a word or two."""


def condition(name: str) -> str:
    """The name of what stands in a write's place, in words."""
    return CONDITIONS[name][0]


def short_condition(name: str) -> str:
    """The same in a word or two, for the side of a chart."""
    return CONDITIONS[name][1]


def amplitude(name: str) -> str:
    """How large an atom or a control is, in words."""
    names = {"norm": "at the write\u2019s norm", "projection": "at its least-squares size"}
    return names.get(name, f"at the {name}")


def write(name: str) -> str:
    """The name of a native write in words: `delta write`."""
    return f"{name} write"


def timing(name: str) -> str:
    """The name of an edit's timing in words."""
    return name.replace("_", " ")


def visible(text: str) -> str:
    """Corpus text on one line: line breaks and tabs as signs, control and direction characters as U+FFFD."""
    whole = text.encode("utf-8", errors="replace").decode("utf-8")
    lines = _CONTROL.sub("\ufffd", whole.replace("\r\n", "\n").replace("\r", "\n"))
    return lines.replace("\n", "↵ ").replace("\t", "⇥")


def visible_token(text: str) -> str:
    """As `visible`, with a token that is nothing but spaces drawn as `␣`."""
    shown = visible(text).replace("↵ ", "↵")
    return shown.replace(" ", "␣") if not shown.strip() else shown


def power(value: float) -> str:
    """A power of ten on an axis: 0.001 -> `10⁻³`, but 0.01 to 100 written out."""
    exponent = round(math.log10(value))
    return f"{value:g}" if -2 <= exponent <= 2 else f"10{str(exponent).translate(_SUPERSCRIPT)}"


@_number
def signed(value: float, digits: int = 3) -> str:
    """With its sign and so many decimals: `+0.632`, `−300`."""
    return f"{value:+,.{digits}f}"


def sentence(text: str) -> str:
    """With a capital at its start and a full stop."""
    return f"{text[:1].upper()}{text[1:]}."


def plural(number: int, one: str, many: str | None = None) -> str:
    """`1 dictionary`, `2 dictionaries`."""
    return f"{count(number)} {one if number == 1 else many or one + 's'}"


@_number
def plain(value: float, digits: int = 4) -> str:
    """As a decimal with at most so many digits after the point: 0.03, 1, 30.28."""
    text = f"{value:,.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


@_number
def r_squared(value: float) -> str:
    """Three decimals, more nines where it is close to 1: `0.994`, `0.99996`."""
    digits = 3 if not 0.9995 <= value < 1 else min(9, 1 - math.floor(math.log10(1 - value)))
    return f"{value:.{digits}f}"


def times(value: float) -> str:
    """A dose, with a sign of multiplication."""
    return f"{plain(value)}\u00d7"


def span(bounds: tuple[float, float] | None, digits: int = 3) -> str:
    """(-0.0016, 0.0002) -> `−0.0016 to +0.0002`."""
    if bounds is None or not all(finite(bound) for bound in bounds):
        return MISSING
    return f"{signed(bounds[0], digits)} to {signed(bounds[1], digits)}"


def tick(value: float) -> str:
    """One digit on an axis, with its sign: `0`, `0.02`, `−10⁻³`, `5×10⁻⁴`."""
    if value == 0:
        return "0"
    sign, size = "\u2212" if value < 0 else "", abs(value)
    exponent = math.floor(math.log10(size) + 1e-9)
    digit = round(size / 10.0**exponent)
    if -2 <= exponent <= 2:
        return f"{sign}{size:g}"
    times = "" if digit == 1 else f"{digit}\u00d7"
    return f"{sign}{times}10{str(exponent).translate(_SUPERSCRIPT)}"


def brief(digest: str) -> str:
    """The first ten characters of a hash; a name is left whole."""
    return digest[:10] if re.fullmatch(r"[0-9a-f]{20,}", digest) else digest


def flat(tree: Mapping[str, object], prefix: str = "") -> dict[str, str]:
    """Nested names joined by spaces: {"sae": {"state": x}} -> {"sae state": x}; lists are joined by commas."""
    found: dict[str, str] = {}
    for key, value in tree.items():
        name = f"{prefix}{str(key).replace('_', ' ')}"
        if isinstance(value, Mapping):
            found |= flat(value, f"{name} ")
        elif isinstance(value, list | tuple):
            found[name] = ", ".join(map(str, value)) or "none"
        else:
            found[name] = "none" if value is None else str(value)
    return found


@_number
def decimals(value: float, digits: int = 2) -> str:
    """With exactly so many digits after the point: 30.30."""
    return f"{round(value, digits) + 0.0:,.{digits}f}"  # no sign of minus before nothing


def plain_spaces(text: str) -> str:
    """With ordinary spaces in the place of narrow and thin ones, for a terminal."""
    return text.replace("\u202f", " ").replace("\u2009", " ").replace("\u00a0", " ")
