"""Random draws that depend on what they are for alone, not on what is drawn before or beside them."""

from __future__ import annotations

import hashlib

import torch


def generator_for(*what: object) -> torch.Generator:
    """A random generator that depends on these things alone."""
    digest = hashlib.sha256(repr(what).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
