"""Syncing to disk is slow and changes nothing that these tests look at (the killed writers run outside of them)."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _no_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.fsync", lambda _: None)
