"""What is explained or changed: a token's logit, a difference of two, a log probability, or the loss of a text.

A target is scored on the logits of its own positions alone (`positions_kept`), which are float32 or wider.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from writesae.corpus import encoded
from writesae.errors import InputError
from writesae.hosts import Host


@dataclass(frozen=True)
class Logit:
    """The logit of a token at one position, per row; several tokens are averaged."""

    tokens: tuple[int, ...]
    position: int = -1

    def score(self, logits: Tensor, text: Tensor) -> Tensor:
        """Kept logits `[B, 1, vocabulary]` -> `[B]`."""
        return logits[:, 0, list(self.tokens)].mean(-1)


@dataclass(frozen=True)
class LogitDifference:
    """A token's logit minus another's at one position."""

    token: int
    against: int
    position: int = -1

    def score(self, logits: Tensor, text: Tensor) -> Tensor:
        """Kept logits `[B, 1, vocabulary]` -> `[B]`."""
        return logits[:, 0, self.token] - logits[:, 0, self.against]


@dataclass(frozen=True)
class LogProbability:
    """The log probability of a token at one position, in nats."""

    token: int
    position: int = -1

    def score(self, logits: Tensor, text: Tensor) -> Tensor:
        """Kept logits `[B, 1, vocabulary]` -> `[B]`."""
        return logits[:, 0].log_softmax(-1)[:, self.token]


@dataclass(frozen=True)
class RowLogit:
    """The logit of another token in each row, averaged over the last `last` positions."""

    tokens: tuple[int, ...]
    """One a row."""
    last: int = 1

    def score(self, logits: Tensor, text: Tensor) -> Tensor:
        """Kept logits `[B, last, vocabulary]` -> `[B]`."""
        ids = torch.tensor(self.tokens, device=logits.device)
        return logits.gather(2, ids[:, None, None].expand(-1, self.last, -1)).mean((1, 2))


@dataclass(frozen=True)
class TextLoss:
    """Cross-entropy of the text's own next tokens, mean over positions, in nats."""

    def score(self, logits: Tensor, text: Tensor) -> Tensor:
        """Logits `[B, T, vocabulary]` and the text `[B, T]` -> `[B]`."""
        predicted = logits[:, :-1].log_softmax(-1)
        return -predicted.gather(2, text[:, 1:, None].to(logits.device)).mean((1, 2))


Target = Logit | LogitDifference | LogProbability | RowLogit | TextLoss


def positions_kept(target: Target) -> int | Tensor:
    """The positions whose logits a target's `score` takes, as `Host.run` keeps them."""
    if isinstance(target, RowLogit):
        return target.last
    if isinstance(target, TextLoss):
        return 0
    return 1 if target.position == -1 else torch.tensor([target.position])


def describe_target(host: Host, target: Target) -> str:
    """A target in words: `logit of ' Paris'`, with the position where it is not the last."""

    def name(token: int) -> str:
        return f"token {token}" if host._tokenizer is None else repr(host.text([token]))

    if isinstance(target, TextLoss):
        return "loss of the text"
    if isinstance(target, LogitDifference):
        words = f"logit of {name(target.token)} minus {name(target.against)}"
    elif isinstance(target, LogProbability):
        words = f"log probability of {name(target.token)}"
    else:
        words = f"logit of {', '.join(map(name, target.tokens))}"
    return words if isinstance(target, RowLogit) or target.position == -1 else f"{words} at position {target.position}"


def check_target(target: Target, time: int, vocabulary: int) -> None:
    """Raise InputError for a token the host does not have or a position outside a text of `time` tokens."""
    if isinstance(target, TextLoss):
        if time < 2:
            raise InputError(f"the loss of a text of {time} token was asked for: it needs 2 or more")
        return
    if isinstance(target, LogitDifference):
        ids: tuple[int, ...] = (target.token, target.against)
    else:
        ids = (target.token,) if isinstance(target, LogProbability) else target.tokens
    if not ids or not all(0 <= i < vocabulary for i in ids):
        raise InputError(f"target tokens {ids} are not all among ids 0 to {vocabulary - 1}")
    place = -target.last if isinstance(target, RowLogit) else target.position
    if not -time <= place < time:
        raise InputError(f"position {place} is outside a prompt of {time} tokens")


def token_id(host: Host, text: str) -> int:
    """The one token that spells `text`. `#123` is a token id. Raises InputError where the text takes several."""
    if text.startswith("#") and text[1:].isdecimal():
        found = [int(text[1:])]
        if found[0] >= host.vocabulary:
            raise InputError(f"target {text} is not a token of {host.name}: ids go from 0 to {host.vocabulary - 1}")
        return found[0]
    found = encoded(host.tokenizer, text)
    if len(found) != 1:
        pieces = " | ".join(repr(host.text([i])) for i in found) or "nothing"
        hint = "" if text.startswith(" ") else f"try {' ' + text!r} with a leading space, "
        raise InputError(
            f"target {text!r} is not one token of {host.name}: it splits into {pieces}; "
            f"{hint}give one of its pieces, or a token id as '#{found[0] if found else 0}'"
        )
    return int(found[0])


def token_ids(host: Host, target: str | int | Sequence[str | int]) -> tuple[int, ...]:
    """The ids of one or several targets, each a text that is one token, or an id. Raises InputError as `token_id`."""
    many = [target] if isinstance(target, str | int) else list(target)
    if not many:
        raise InputError("no target token was given: give one or more")
    return tuple(token_id(host, t if isinstance(t, str) else f"#{t}") for t in many)
