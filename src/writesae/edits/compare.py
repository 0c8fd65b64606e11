"""The edited and the unedited continuation of a prompt, side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from importlib.metadata import version
from typing import Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from writesae.config import Json
from writesae.edits.generation import OnTokens, Sampling, encode_prompts, generate
from writesae.edits.plan import Edited
from writesae.hosts import Host

Mark = Literal["same", "changed"]
Side = Literal["unedited", "edited"]
SIDES: tuple[Side, Side] = ("unedited", "edited")
OnText = Callable[[Side, str], None]
"""Called with every piece of a continuation's text as soon as it is complete."""


@dataclass(frozen=True)
class Comparison:
    """Two continuations of one prompt."""

    host: str
    revision: str
    prompt: str
    edits: tuple[str, ...]
    sampling: Sampling
    native: tuple[int, ...]
    """New tokens without the edits."""
    edited: tuple[int, ...]
    native_texts: tuple[str, ...]
    """By token."""
    edited_texts: tuple[str, ...]
    native_marks: tuple[Mark, ...]
    edited_marks: tuple[Mark, ...]

    @property
    def changed(self) -> bool:
        """Whether a single token differs."""
        return self.native != self.edited

    def to_json(self) -> dict[str, Json]:
        """Everything, as JSON."""

        def side(ids: tuple[int, ...], texts: tuple[str, ...], marks: tuple[Mark, ...]) -> list[Json]:
            return [{"id": i, "text": t, "mark": m} for i, t, m in zip(ids, texts, marks, strict=True)]

        return {
            "host": self.host,
            "revision": self.revision,
            "library": version("writesae"),
            "prompt": self.prompt,
            "edits": list(self.edits),
            "temperature": self.sampling.temperature,
            "seed": self.sampling.seed,
            "native": side(self.native, self.native_texts, self.native_marks),
            "edited": side(self.edited, self.edited_texts, self.edited_marks),
        }

    def print(self, console: Console) -> None:
        """A table of two columns; changed tokens in colour, and between brackets where there is no colour."""
        plain = console.color_system is None
        table = Table(expand=True)
        table.add_column("unedited", ratio=1)
        table.add_column("edited", ratio=1)
        table.add_row(
            _marked(self.native_texts, self.native_marks, "red", plain),
            _marked(self.edited_texts, self.edited_marks, "bold green", plain),
        )
        console.print(Text(self.prompt, style="dim"))
        console.print(table)
        for edit in self.edits:
            console.print(Text(f"edit: {edit}", style="dim"))


def _marked(texts: tuple[str, ...], marks: tuple[Mark, ...], style: str, plain: bool) -> Text:
    out, before = Text(), "same"
    for text, mark in [*zip(texts, marks, strict=True), ("", "same")]:
        if plain and mark != before:
            out.append("[" if mark == "changed" else "]")
        out.append(text, style=style if mark == "changed" else "")
        before = mark
    return out


def mark_changes(native: Sequence[int], edited: Sequence[int]) -> tuple[tuple[Mark, ...], tuple[Mark, ...]]:
    """Which tokens of either side have no partner in the other."""
    left: list[Mark] = ["changed"] * len(native)
    right: list[Mark] = ["changed"] * len(edited)
    for block in SequenceMatcher(a=native, b=edited, autojunk=False).get_matching_blocks():
        left[block.a : block.a + block.size] = ["same"] * block.size
        right[block.b : block.b + block.size] = ["same"] * block.size
    return tuple(left), tuple(right)


def compare(
    plan: Edited,
    prompt: str,
    new_tokens: int = 20,
    sampling: Sampling | None = None,
    on_text: OnText | None = None,
) -> Comparison:
    """Continue a prompt without and with edits, with the same seed, and hand out both texts as they come.

    Raises InputError as `generate` does.
    """
    sampling = Sampling() if sampling is None else sampling
    host = plan.host
    rows = encode_prompts(host, prompt)
    edits = plan.edits(rows)
    told = {side: _reader(host, rows[0], side, on_text) for side in SIDES}
    native = generate(host, rows, (), new_tokens, sampling, on_tokens=told["unedited"]).tokens[0]
    edited = generate(host, rows, edits, new_tokens, sampling, on_tokens=told["edited"]).tokens[0]
    marks = mark_changes(native, edited)
    return Comparison(
        host.name, host.revision, prompt, tuple(map(str, edits)), sampling, tuple(native),
        tuple(edited), _texts(host, native), _texts(host, edited), *marks,
    )  # fmt: skip


def _reader(host: Host, prompt: list[int], side: Side, on_text: OnText | None) -> OnTokens | None:
    """Turn tokens into text that is handed out whole: a character may take several tokens."""
    if on_text is None:
        return None
    tokens, shown = list(prompt), [host.text(prompt)]

    def read(new: list[int]) -> None:
        tokens.extend(new)
        text = host.text(tokens)
        if not text.endswith("\ufffd"):  # else a character's first bytes: wait for the others
            on_text(side, text.removeprefix(shown[0]))
            shown[0] = text

    return read


def _texts(host: Host, tokens: Sequence[int]) -> tuple[str, ...]:
    return tuple(host.text([i]) for i in tokens)
