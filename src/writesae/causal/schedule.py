"""When an edit acts: at given positions, always, at some tokens, when a feature fires, or as a function says.

`places` says of every token of a pass which of the schedule's positions it is, -1 where the edit does not act; where
what happens there decides, `now` says whether it does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from writesae.causal.seen import Seen, Tokens
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

    def places(self, tokens: Tokens) -> Tensor:
        """Index into `positions`, `[B, T]`."""
        found = torch.full_like(tokens.position, -1)
        for index, wanted in enumerate(self.positions):
            place = (tokens.prompt + wanted if wanted < 0 else torch.full_like(tokens.prompt, wanted))[:, None]
            found = torch.where((tokens.position == place) & (place >= 0), index, found)
        return found

    def __str__(self) -> str:
        if self.positions == tuple(range(-len(self.positions), 0)):
            last = "last token" if len(self.positions) == 1 else f"last {len(self.positions)} tokens"
            return f"at the {last} of the prompt"
        return f"at positions {', '.join(map(str, self.positions))}"


def before_prompt(positions: Sequence[int], length: int) -> InputError:
    """What to raise where some of these positions lie before a prompt of so many tokens."""
    if len(positions) > 1 and tuple(positions) == tuple(range(-len(positions), 0)):
        return InputError(f"the last {len(positions)} tokens of a prompt of {length} were asked for: give fewer")
    return InputError(f"position {min(positions)} lies before a prompt of {length} tokens: give {-length} or later")


@dataclass(frozen=True)
class Always:
    """At every token, or at every token of the prompt or of the generated text alone."""

    where: Literal["everywhere", "prompt", "generated"] = "everywhere"

    def places(self, tokens: Tokens) -> Tensor:
        """0 where the edit acts, `[B, T]`."""
        inside = tokens.position < tokens.prompt[:, None]
        acts = {"everywhere": torch.ones_like(inside), "prompt": inside, "generated": ~inside}[self.where]
        return torch.where(acts, 0, -1)

    def __str__(self) -> str:
        return f"always ({self.where})"


@dataclass(frozen=True)
class OnTokens:
    """At every token that has one of these ids."""

    ids: frozenset[int]

    def places(self, tokens: Tokens) -> Tensor:
        """0 where the edit acts, `[B, T]`."""
        wanted = torch.tensor(sorted(self.ids), device=tokens.ids.device)
        return torch.where(torch.isin(tokens.ids, wanted), 0, -1)

    def __str__(self) -> str:
        return f"at {len(self.ids)} token ids"


@dataclass(frozen=True, eq=False)
class Places:
    """At other positions in each row, as a table says."""

    table: Tensor
    """Number of a place or -1, `[rows, positions]`."""

    def places(self, tokens: Tokens) -> Tensor:
        """The numbers, `[B, T]`."""
        table = self.table.to(tokens.ids.device)[tokens.row]
        inside = tokens.position.clamp(0, table.shape[1] - 1)
        return torch.where(tokens.position == inside, table.gather(1, inside), -1)

    def __str__(self) -> str:
        return f"at {int((self.table >= 0).sum())} places"


@dataclass(frozen=True, eq=False)
class Firing:
    """Whenever a feature's coefficient at this token is larger than `above`."""

    sae: SAE
    """A dictionary of the edited head."""
    feature: int
    above: float = 0.0

    def places(self, tokens: Tokens) -> Tensor:
        """0 at every token, `[B, T]`."""
        return torch.zeros_like(tokens.position)

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

    def places(self, tokens: Tokens) -> Tensor:
        """0 at every token, `[B, T]`."""
        return torch.zeros_like(tokens.position)

    def now(self, seen: Seen) -> Tensor:
        """`[B]`, whether the edit acts at this token."""
        return self.test(seen)

    def __str__(self) -> str:
        return f"where {getattr(self.test, '__name__', 'a predicate')} holds"


When = At | Always | OnTokens | Places | Firing | Predicate


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
