"""What an edit did: where it acted, whether its features fired there, and how far it moved what comes next."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from writesae.causal.actions import ChangeFeatures, Edit, ReplaceByAtom
from writesae.causal.divergence import kl_divergence
from writesae.causal.seen import Seen
from writesae.hosts import Host
from writesae.hosts.intercept import own_thread
from writesae.sae import SAE
from writesae.show import words
from writesae.show.sheet import Line, Listing
from writesae.types import Site

SCORED = 64
"""Most new tokens whose distributions are compared."""
LISTED = 8
"""Most places that are written out."""


@dataclass(frozen=True)
class TokenChange:
    """One token's place in a next-token distribution, without and with the edit."""

    token: int
    text: str
    rank: tuple[int, int]
    """1 for the most likely token."""
    logit: tuple[float, float]
    probability: tuple[float, float]

    def row(self) -> tuple[str, ...]:
        """In words."""
        written = (map(str, self.rank), (f"{x:.3f}" for x in self.logit), (f"{100 * p:.3g}%" for p in self.probability))
        return (repr(self.text), *(" \u2192 ".join(both) for both in written))


@dataclass
class Fired:
    """One feature at the places where it was edited."""

    site: Site
    feature: int
    fired: int = 0
    """At so many of them its coefficient was above 0."""
    places: int = 0

    def __str__(self) -> str:
        return f"feature {self.feature} of {self.site} fired at {self.fired} of the {self.places} places edited"


@dataclass(frozen=True)
class Effect:
    """What was edited, and the first token whose prediction reads it; the first new token where none does."""

    places: tuple[int, ...]
    """Positions that were edited, counted from 0, the prompt's first token; each once."""
    texts: tuple[str, ...]
    """The tokens that stand there."""
    fired: tuple[Fired, ...]
    """For edits that name features."""
    step: int
    """Which new token, counted from 0."""
    kl: float
    """KL(unedited || edited) of its distribution, in nats; 0 where no compared token reads the edit."""
    tokens: tuple[TokenChange, ...]
    """The targets of an install, else the unedited model's top token."""

    def lines(self) -> list[Line | Listing]:
        """In words."""
        more = len(self.places) - LISTED
        each = (f"{place} {text!r}" for place, text in zip(self.places[:LISTED], self.texts, strict=False))
        shown = ", ".join(each) + f" and {more} more" * (more > 0)
        return [
            f"edited {words.plural(len(self.places), 'place')}" + f": {shown}" * bool(self.places),
            *map(str, self.fired),
            f"new token {self.step + 1}: KL {self.kl:.4g} nats" + ", no compared token reads the edit" * (not self.kl),
            Listing(("token", "rank", "logit", "probability"), [token.row() for token in self.tokens]),
        ]


class Watch:
    """Notes where edits act while they run; give `note` to `editing`."""

    def __init__(self, edits: Sequence[Edit]) -> None:
        self.edits = edits
        self.places = set[int]()
        self.fired = dict[tuple[Site, int], Fired]()

    def note(self, index: int, seen: Seen, acts: Tensor) -> None:
        """One edit acted at one token of the rows `acts` `[B]`."""
        edit = self.edits[index]
        self.places |= set(seen.position[acts].tolist())
        named = features_of(edit)
        if named is not None:
            fired = (seen.coefficients(*named)[acts] > 0).sum(0).tolist()
            for feature, count in zip(named[1], fired, strict=True):
                found = self.fired.setdefault((edit.site, feature), Fired(edit.site, feature))
                found.fired, found.places = found.fired + count, found.places + int(acts.sum())


def features_of(edit: Edit) -> tuple[SAE, tuple[int, ...]] | None:
    """The dictionary and features that an edit names."""
    what = edit.what
    if isinstance(what, ChangeFeatures):
        return what.sae, what.features
    return (what.sae, (what.feature,)) if isinstance(what, ReplaceByAtom) and what.feature is not None else None


def dictionaries_of(edit: Edit) -> list[SAE]:
    """The dictionaries that an edit reads or writes with."""
    held = (getattr(part, "sae", None) for part in (edit.what, edit.when))
    return [sae for sae in held if isinstance(sae, SAE)]


@contextmanager
def last_logits(model: Host) -> Iterator[list[Tensor]]:
    """The logits of the last position of every forward pass inside, `[vocabulary]` of the first row, float32."""
    kept: list[Tensor] = []

    def keep(_: nn.Module, args: object, output: object) -> None:
        logits = getattr(output, "logits", None)
        if isinstance(logits, Tensor) and len(kept) < SCORED:
            kept.append(logits[0, -1].float().cpu())

    handle = model.model.register_forward_hook(own_thread(keep))
    try:
        yield kept
    finally:
        handle.remove()


def measure(
    model: Host,
    prompt: Sequence[int],
    targets: tuple[int, ...],
    logits: tuple[Sequence[Tensor], Sequence[Tensor]],
    tokens: tuple[Sequence[int], Sequence[int]],
    watch: Watch,
) -> Effect:
    """Compare the distributions of two continuations, (unedited, edited), as long as they have said the same."""
    native, edited = logits
    said = next((i for i, (a, b) in enumerate(zip(*tokens, strict=False)) if a != b), min(map(len, tokens)))
    steps = range(min(said + 1, len(native), len(edited)))
    step = next((i for i in steps if not torch.equal(native[i], edited[i])), 0)
    both = before, after = native[step], edited[step]

    def change(token: int) -> TokenChange:
        read = [(int((x > x[token]).sum()) + 1, float(x[token]), float(x.double().softmax(-1)[token])) for x in both]
        rank, logit, share = zip(*read, strict=True)
        return TokenChange(token, model.text([token]), rank, logit, share)

    changes = tuple(change(token) for token in dict.fromkeys(targets or (int(before.argmax()),)))
    places, whole = tuple(sorted(watch.places)), [*prompt, *tokens[1]]
    texts = tuple(model.text(whole[place : place + 1]) for place in places)
    kl = float(kl_divergence(before, after))
    return Effect(places, texts, tuple(watch.fired.values()), step, kl, changes)
