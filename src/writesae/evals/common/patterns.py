"""Classes of tokens that a regular expression tells: newlines, words that look like names, the end of a sentence."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import Tensor

from writesae.errors import InputError
from writesae.hosts import Host


def matches(host: Host, tokens: Sequence[int], pattern: str) -> list[bool]:
    """Which tokens of a text are of the class; a character of several tokens counts at the one that completes it.

    Raises InputError for what is no regular expression.
    """
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise InputError(f"the pattern {pattern!r} is no regular expression: {error}") from None
    return [bool(text) and expression.search(text) is not None for text in host.read(tokens)]


def matching(host: Host, tokens: Tensor, pattern: str) -> Tensor:
    """Which tokens of passages are of the class, bool `[B, T]`. Raises InputError where none or all are."""
    inside = torch.tensor([matches(host, row, pattern) for row in tokens.tolist()])
    if not inside.any() or inside.all():
        raise InputError(f"{int(inside.sum())} of {inside.numel()} tokens match {pattern!r}: both kinds are needed")
    return inside
