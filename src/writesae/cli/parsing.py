"""Bridge until the real one lands."""

from __future__ import annotations

from typing import TypeVar

import tyro

T = TypeVar("T")


def parse_flags(kind: type[T], program: str, words: list[str], text: str) -> T:
    return tyro.cli(kind, prog=program, args=words, description=text)
