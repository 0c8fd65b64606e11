"""What an edit did: where it acted, whether its features fired there, and how far it moved what comes next."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from writesae.causal.actions import AddFeatures, ClampFeatures, Edit, ReplaceByAtom, ScaleFeatures
from writesae.causal.divergence import kl_divergence
from writesae.causal.seen import Seen
from writesae.hosts import Host
from writesae.sae import SAE
from writesae.show import words
from writesae.show.sheet import Line, Listing

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


@dataclass
class Acted:
    """Where one edit acted."""

    edit: str
    places: list[int] = field(default_factory=list)
    """Positions, counted from the prompt's first token."""
    fired: dict[int, int] = field(default_factory=dict)
    """Feature -> at how many of these places its coefficient was above 0; empty for edits without features."""


@dataclass(frozen=True)
class Effect:
    """The first token whose prediction reads the edit; the first new token where none does."""

    step: int
    """Which new token, counted from 0."""
    kl: float
    """KL(unedited || edited) of its distribution, in nats; 0 where no compared token reads the edit."""
    tokens: tuple[TokenChange, ...]
    """The targets of an install, else the unedited model's top token."""
    acted: tuple[Acted, ...]
    """By edit."""

    def lines(self) -> list[Line | Listing]:
        """In words."""
        writes, places = sum(len(a.places) for a in self.acted), sorted({p for a in self.acted for p in a.places})
        shown = ", ".join(map(str, places[:LISTED])) + f" and {len(places) - LISTED} more" * (len(places) > LISTED)
        together = f" by {len(self.acted)} edits" if writes != len(places) else ""
        return [
            f"edited {words.plural(len(places), 'place')}{together}" + f": {shown}" * bool(places),
            *(
                f"feature {feature} fired at {fired} of the {len(acted.places)} places edited"
                for acted in self.acted
                for feature, fired in acted.fired.items()
            ),
            f"new token {self.step + 1}: KL {self.kl:.4g} nats" + ", no compared token reads the edit" * (not self.kl),
            Listing(
                ("token", "rank", "logit", "probability"),
                [
                    (
                        repr(t.text),
                        " \u2192 ".join(map(str, t.rank)),
                        " \u2192 ".join(f"{x:.3f}" for x in t.logit),
                        " \u2192 ".join(f"{100 * p:.3g}%" for p in t.probability),
                    )
                    for t in self.tokens
                ],
            ),
        ]


class Watch:
    """Notes where edits act while they run; give `note` to `editing`."""

    def __init__(self, edits: Sequence[Edit]) -> None:
        self.edits = edits
        self.acted = tuple(Acted(str(edit)) for edit in edits)

    def note(self, index: int, seen: Seen, acts: Tensor) -> None:
        """One edit acted at one token of the rows `acts` `[B]`."""
        acted, of = self.acted[index], features_of(self.edits[index])
        acted.places += seen.position[acts].tolist()
        if of is not None:
            fired = (seen.coefficients(*of)[acts] > 0).sum(0).tolist()
            for feature, count in zip(of[1], fired, strict=True):
                acted.fired[feature] = acted.fired.get(feature, 0) + count


def features_of(edit: Edit) -> tuple[SAE, tuple[int, ...]] | None:
    """The dictionary and features that an edit names."""
    what = edit.what
    if isinstance(what, ScaleFeatures | AddFeatures | ClampFeatures):
        return what.sae, what.features
    if isinstance(what, ReplaceByAtom) and what.feature is not None:
        return what.sae, (what.feature,)
    return None


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

    handle = model.model.register_forward_hook(keep)
    try:
        yield kept
    finally:
        handle.remove()


def measure(
    model: Host,
    targets: tuple[int, ...],
    logits: tuple[Sequence[Tensor], Sequence[Tensor]],
    tokens: tuple[Sequence[int], Sequence[int]],
    acted: tuple[Acted, ...],
) -> Effect:
    """Compare the distributions of two continuations, (unedited, edited), as long as they have said the same."""
    native, edited = logits
    said = next((i for i, (a, b) in enumerate(zip(*tokens, strict=False)) if a != b), min(map(len, tokens)))
    steps = range(min(said + 1, len(native), len(edited)))
    step = next((i for i in steps if not torch.equal(native[i], edited[i])), 0)
    before, after = native[step], edited[step]
    kl = float(kl_divergence(before, after))
    wanted = targets or (int(before.argmax()),)
    changes = tuple(_change(model, token, before, after) for token in dict.fromkeys(wanted))
    return Effect(step, kl, changes, acted)


def _change(model: Host, token: int, *logits: Tensor) -> TokenChange:
    ranks = [int((x > x[token]).sum()) + 1 for x in logits]
    values = [float(x[token]) for x in logits]
    shares = [float(x.double().softmax(-1)[token]) for x in logits]
    return TokenChange(token, model.text([token]), (ranks[0], ranks[1]), (values[0], values[1]), (shares[0], shares[1]))
