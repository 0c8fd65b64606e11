"""When an edit acts: at given positions, always, at some tokens, when a feature fires, or as a function says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from writesae.causal.seen import Seen
from writesae.errors import InputError
from writesae.hosts import Host
from writesae.sae import SAE


@dataclass(frozen=True)
class At:
    """At these positions, counted from each row's first real token; negative ones from the end of its prompt."""

    positions: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.positions or len(set(self.positions)) < len(self.positions):
            raise InputError(f"an edit was scheduled at positions {self.positions}: give at least one, each once")

    def which(self, position: Tensor, prompt: Tensor) -> Tensor:
        """Index into `positions` of each place, -1 where it is none of them; `position` `[B, ...]`, `prompt` `[B]`."""
        found = torch.full_like(position, -1)
        shape = (-1, *(1 for _ in position.shape[1:]))
        for index, wanted in enumerate(self.positions):
            place = prompt.view(shape) + wanted if wanted < 0 else torch.full_like(prompt, wanted).view(shape)
            found = torch.where((position == place) & (position >= 0), index, found)
        return found

    def now(self, seen: Seen) -> Tensor:
        """`[B]`, whether the edit acts at this token."""
        return self.which(seen.position, seen.prompt) >= 0

    def __str__(self) -> str:
        return f"at positions {', '.join(map(str, self.positions))}"


@dataclass(frozen=True)
class Always:
    """At every token, or at every token of the prompt or of the generated text alone."""

    where: Literal["everywhere", "prompt", "generated"] = "everywhere"

    def now(self, seen: Seen) -> Tensor:
        """`[B]`, whether the edit acts at this token."""
        inside = seen.position < seen.prompt
        return {"everywhere": torch.ones_like(inside), "prompt": inside, "generated": ~inside}[self.where]

    def __str__(self) -> str:
        return f"always ({self.where})"


@dataclass(frozen=True)
class OnTokens:
    """At every token that has one of these ids."""

    ids: frozenset[int]

    def now(self, seen: Seen) -> Tensor:
        """`[B]`, whether the edit acts at this token."""
        return torch.isin(seen.token, torch.tensor(sorted(self.ids), device=seen.token.device))

    def __str__(self) -> str:
        return f"at {len(self.ids)} token ids"


@dataclass(frozen=True, eq=False)
class Firing:
    """Whenever a feature's coefficient at this token is larger than `above`."""

    sae: SAE
    """A dictionary of the edited head."""
    feature: int
    above: float = 0.0

    def now(self, seen: Seen) -> Tensor:
        """`[B]`, whether the edit acts at this token."""
        return seen.coefficients(self.sae, (self.feature,))[:, 0] > self.above

    def __str__(self) -> str:
        return f"where feature {self.feature} fires above {self.above:g}"


@dataclass(frozen=True)
class Predicate:
    """Wherever a function of what is seen says so."""

    test: Callable[[Seen], Tensor]
    """Returns `[B]` bool."""

    def now(self, seen: Seen) -> Tensor:
        """`[B]`, whether the edit acts at this token."""
        return self.test(seen)

    def __str__(self) -> str:
        return f"where {getattr(self.test, '__name__', 'a predicate')} holds"


When = At | Always | OnTokens | Firing | Predicate


def sentence_ends(host: Host) -> OnTokens:
    """At the tokens whose text ends a sentence: `.`, `!`, `?`, also before closing quotes and brackets, or a newline.

    Raises InputError where the host has no tokenizer.
    """
    closing = "\"'\u201d\u2019)]}\u00bb*_ "
    ends = set()
    for token in range(len(host.tokenizer)):
        text = host.text([token])
        if text.rstrip(closing)[-1:] in (".", "!", "?", "\n"):
            ends.add(token)
    return OnTokens(frozenset(ends))
