"""What is explained, from words: a token and what of it is read, and where."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from writesae.causal.targets import Logit, LogitDifference, LogProbability, Target, TextLoss, check_target, token_ids
from writesae.edits.dictionaries import check_choice
from writesae.errors import InputError
from writesae.hosts import Host

Quantity = Literal["logit", "logprob", "loss"]


def read_target(
    model: Host,
    tokens: Tensor,
    target: str | int | Target | None,
    against: str | int | None = None,
    quantity: Quantity = "logit",
    position: int = -1,
) -> Target:
    """What is explained, from words; see `attribute`. Raises InputError."""
    check_choice("quantity", quantity, Quantity)
    if isinstance(target, Target):
        if against is not None or quantity != "logit" or position != -1:
            raise InputError("a whole target was given: leave out against, quantity and position")
        return target
    if quantity == "loss":
        if target is not None or against is not None:
            raise InputError("the loss of the text has no target token: leave out target and against")
        return TextLoss()
    check_target(Logit((0,), position), len(tokens), model.vocabulary)
    if target is None:
        target = int(model.logits(tokens[None], keep=torch.tensor([position]))[0, 0].argmax())
    (wanted,) = token_ids(model, _token(target))
    if against is not None:
        if quantity != "logit":
            raise InputError(f"a difference of logits was asked for, and {quantity} besides: give one")
        (other,) = token_ids(model, _token(against))
        return LogitDifference(wanted, other, position)
    return LogProbability(wanted, position) if quantity == "logprob" else Logit((wanted,), position)


def _token(given: object) -> str | int:
    if not isinstance(given, str | int):
        kinds = ", ".join(kind.__name__ for kind in get_args(Target))
        raise InputError(f"a {type(given).__name__} was given as a target: give a token, as text or id, or a {kinds}")
    return given
