"""Plotly's own script, packed once into the page: gzip and base64, unpacked by the browser (a quarter of the size)."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from plotly.offline import get_plotlyjs

from writesae.show.parts import Plot


@dataclass(frozen=True)
class Script:
    """A script as it travels in the page."""

    packed: str
    """base64 of gzip."""
    integrity: str
    """Its hash as a Content-Security-Policy source, which lets this script run and no other."""


@cache
def plotly_script() -> Script:
    """The full bundle that comes with the plotly package."""
    source = get_plotlyjs()
    return Script(pack(source), integrity(source))


def pack(text: str) -> str:
    """base64 of gzip, the same bytes every time."""
    return base64.b64encode(gzip.compress(text.encode(), 9, mtime=0)).decode("ascii")


def integrity(source: str) -> str:
    """The Content-Security-Policy source of an inline script."""
    return f"sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode('ascii')}"


def figures_json(plots: Mapping[str, Plot]) -> str:
    """Every figure by element id, with what to show about its points, as JSON."""
    data = {
        name: {"figure": json.loads(plot.figure.to_json()), "readings": plot.readings} for name, plot in plots.items()
    }
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"))
