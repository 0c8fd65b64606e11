"""A dot chart with intervals as an SVG file, for pages that are read where no script runs."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

COLOURS = {
    "native": "#55575e", "delete": "#bd2a58", "random": "#70757f", "state": "#2a63ad", "increment": "#0b7565",
    "write": "#b0521a",
}  # fmt: skip
LABEL, TRACK, ROW, TOP = 190, 470, 26, 54


class Dot(NamedTuple):
    """One value of a line."""

    kind: str
    """A key of COLOURS, and its name in the legend."""
    value: float
    low: float
    high: float


def dots(lines: Sequence[tuple[str, Sequence[Dot]]], names: dict[str, str], axis: str) -> str:
    """Shares from 0 to 1: lines downwards, each with its dots; `names` are the kinds in words, as in the legend."""
    height, parts = TOP + ROW * len(lines) + 40, list[str]()

    def x(value: float) -> float:
        return LABEL + TRACK * value

    def text(at: float, y: float, words: str, anchor: str = "start", colour: str = "#1a1b1e") -> str:
        return f'<text x="{at:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{escape(words)}</text>'

    for i, (kind, name) in enumerate(names.items()):
        column, row = i % 3, i // 3
        at, y = 14 + column * 230, 16 + 18 * row
        parts += [f'<circle cx="{at}" cy="{y - 4}" r="5" fill="{COLOURS[kind]}"/>', text(at + 10, y, name)]
    bottom = TOP + ROW * len(lines)
    for tick in (0, 0.25, 0.5, 0.75, 1):
        parts.append(f'<path d="M{x(tick):.1f} {TOP - 6}V{bottom}" stroke="#e5e2da"/>')
        parts.append(text(x(tick), bottom + 16, f"{100 * tick:.0f} %", "middle", "#55575e"))
    parts.append(text(x(0.5), bottom + 34, axis, "middle", "#55575e"))
    for i, (name, some) in enumerate(lines):
        y = TOP + ROW * i + ROW / 2
        parts.append(text(LABEL - 14, y + 4, name, "end"))
        for j, dot in enumerate(some):
            here, colour = y + 3.2 * (j - (len(some) - 1) / 2), COLOURS[dot.kind]
            bar = f'<path d="M{x(dot.low):.1f} {here:.1f}H{x(dot.high):.1f}" stroke="{colour}" stroke-width="2"/>'
            told = f"{name}, {names[dot.kind]}: {100 * dot.value:.1f} % ({100 * dot.low:.1f} to {100 * dot.high:.1f} %)"
            circle = f'<circle cx="{x(dot.value):.1f}" cy="{here:.1f}" r="4.5" fill="{colour}">'
            parts += [bar, f"{circle}<title>{escape(told)}</title></circle>"]
    width = LABEL + TRACK + 30
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
    font = 'font-family="Helvetica, Arial, sans-serif" font-size="13"'
    return "\n".join(
        [f"{head} {font}>", f'<rect width="{width}" height="{height}" fill="#ffffff"/>', *parts, "</svg>", ""]
    )
