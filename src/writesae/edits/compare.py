"""The edited and the unedited continuation of a prompt, side by side, and what the edit did."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import groupby
from typing import Literal

from writesae.causal.actions import Edit
from writesae.causal.engine import editing
from writesae.causal.identity import measured_line, measured_on
from writesae.config import Json, to_json
from writesae.edits.effect import Effect, Watch, dictionaries_of, last_logits, measure
from writesae.edits.generation import Generation, OnTokens, Sampling, generate
from writesae.hosts import Host
from writesae.show.sheet import Listing, Sheet, Span, Style, shows_itself

Side = Literal["unedited", "edited"]
OnText = Callable[[Side, str], None]
"""Called with every piece of a continuation's text as soon as it is complete."""


@dataclass(frozen=True)
class NewToken:
    """One token of a continuation."""

    id: int
    text: str
    changed: bool
    """Whether it has no partner in the other continuation."""


@shows_itself
@dataclass(frozen=True)
class Comparison:
    """Two continuations of one prompt."""

    measured_on: Mapping[str, Json]
    """The model's name, revision, dtype and device, the dictionaries, and the versions of what ran them."""
    prompt: str
    edits: tuple[str, ...]
    overruled: tuple[str, ...]
    """What does not fit between the model and the dictionaries, and was allowed."""
    sampling: Sampling
    """How tokens were chosen; nothing of a checkpoint's own generation settings takes part."""
    ends: tuple[int, ...]
    """The tokens that end a text."""
    effect: Effect
    unedited: tuple[NewToken, ...]
    edited: tuple[NewToken, ...]

    @property
    def changed(self) -> bool:
        """Whether a single token differs."""
        return [t.id for t in self.unedited] != [t.id for t in self.edited]

    def to_json(self) -> Json:
        """Everything, as JSON."""
        return to_json(self)

    def sheet(self) -> Sheet:
        """The prompt, both continuations with what changed marked, and what was done."""
        both = (_marked(self.unedited, "gone"), _marked(self.edited, "new"))
        return Sheet(
            (
                (Span(self.prompt, "soft"),),
                Listing(("unedited", "edited"), [both]),
                *([] if self.changed else ["the edit changed no token"]),
                *self.effect.lines(),
                *((Span(f"edit: {edit}", "soft"),) for edit in self.edits),
                (Span(measured_line(self.measured_on), "soft"),),
                *((Span(f"allowed mismatch: {what}", "strong"),) for what in self.overruled),
            )
        )


def _marked(tokens: tuple[NewToken, ...], style: Style) -> tuple[Span, ...]:
    runs = groupby(tokens, lambda token: token.changed)
    return tuple(Span("".join(t.text for t in run), style if changed else "plain") for changed, run in runs)


def mark_changes(unedited: Sequence[int], edited: Sequence[int]) -> tuple[list[bool], list[bool]]:
    """Which tokens of either side have no partner in the other."""
    left, right = [True] * len(unedited), [True] * len(edited)
    for block in SequenceMatcher(a=unedited, b=edited, autojunk=False).get_matching_blocks():
        for side, begin in ((left, block.a), (right, block.b)):
            side[begin : begin + block.size] = [False] * block.size
    return left, right


def compare(
    model: Host,
    prompt: list[int],
    edits: Sequence[Edit],
    targets: tuple[int, ...] = (),
    new_tokens: int = 20,
    sampling: Sampling | None = None,
    on_text: OnText | None = None,
    overruled: tuple[str, ...] = (),
) -> Comparison:
    """Continue a prompt without and with edits, with the same seed, and hand out both texts as they come.

    `targets` are the tokens whose place in the distribution is told. Raises InputError as `generate` does.
    """
    sampling, watch = Sampling() if sampling is None else sampling, Watch(edits)

    def continued(side: Side) -> Generation:
        reader = None if on_text is None else _reader(model, prompt, side, on_text)
        return generate(model, [prompt], (), new_tokens, sampling, on_tokens=reader)

    with last_logits(model) as before:
        first = continued("unedited")
    with editing(model, edits, watch.note), last_logits(model) as after:
        second = continued("edited")
    unedited, edited = first.tokens[0], second.tokens[0]
    effect = measure(model, prompt, targets, (before, after), (unedited, edited), watch)
    sides = (
        tuple(map(NewToken, ids, model.read(ids), marks))
        for ids, marks in zip((unedited, edited), mark_changes(unedited, edited), strict=True)
    )
    said, saes = tuple(map(str, edits)), {edit.site: sae for edit in edits for sae in dictionaries_of(edit)}
    return Comparison(
        measured_on(model, saes), model.text(prompt), said, overruled, sampling, first.ends, effect, *sides
    )


def _reader(model: Host, prompt: list[int], side: Side, on_text: OnText) -> OnTokens:
    """Turn tokens into text that is handed out whole: a character may take several tokens."""
    tokens, shown = list(prompt), [str(model.tokenizer.decode(prompt))]

    def read(new: list[int]) -> None:
        tokens.extend(new)
        text = str(model.tokenizer.decode(tokens))
        if not text.endswith("\ufffd"):  # else a character's first bytes: wait for the others
            on_text(side, text.removeprefix(shown[0]))
            shown[0] = text

    return read
