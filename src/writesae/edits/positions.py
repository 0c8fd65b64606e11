"""Where in a text an edit acts, as users write it: the same words in Python and on the command line.

3                 the three last tokens of the prompt
-1   0,5,-1       these positions, negative ones from the prompt's end
at:5              one position from the start
all   prompt   generated   sentence-ends
firing:412        wherever feature 412 of the dictionary fires
"""

from __future__ import annotations

from collections.abc import Sequence

from writesae.causal.identity import check_features
from writesae.causal.schedule import Always, At, Firing, When, sentence_ends
from writesae.errors import InputError
from writesae.hosts import Host
from writesae.sae import SAE

Positions = int | str | Sequence[int] | When
"""How many last tokens of the prompt, positions, words (above), or a schedule."""

WORDS = ("all", "prompt", "generated", "sentence-ends")


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise InputError(f'positions {text!r} are not written like "3" or "3,4,-1"') from None


def parse_positions(text: str, sae: SAE | None = None) -> Positions:
    """What the words mean, but for `sentence-ends`, which needs a tokenizer and stays. Raises InputError."""
    if text in WORDS:
        return {"all": Always(), "prompt": Always("prompt"), "generated": Always("generated")}.get(text, text)
    if text.startswith("firing:"):
        feature = _numbers(text.removeprefix("firing:"))
        if sae is None or len(feature) != 1:
            raise InputError(f"positions {text!r} need one feature of a dictionary of this head")
        return Firing(sae, *check_features(sae, feature))
    if text[:1] not in "-0123456789" and not text.startswith("at:"):
        raise InputError(f'positions {text!r} are none of {", ".join(WORDS)}, firing:N, at:N, "3" or "3,4,-1"')
    numbers = _numbers(text.removeprefix("at:"))
    return numbers[0] if len(numbers) == 1 and text.isdecimal() else numbers


def schedule(model: Host, positions: Positions, sae: SAE | None = None) -> When:
    """When an edit at these positions acts. Raises InputError."""
    if isinstance(positions, str):
        positions = parse_positions(positions, sae)
    if isinstance(positions, When):
        return positions
    if isinstance(positions, str):
        return sentence_ends(model)
    if isinstance(positions, int):
        if positions < 1:
            raise InputError(f"an edit at the last {positions} tokens was asked for; give 1 or more, or [{positions}]")
        return At(tuple(range(-positions, 0)))
    if not all(isinstance(p, int) for p in positions):
        raise InputError(f"positions {positions!r} are not whole numbers")
    return At(tuple(positions))
