"""What users call: `install(host, site, target=" Paris").generate("The capital of ...")`, and the same for the others.

Each function returns an `Edited`: a host with a list of edits, which adds up with others of the same host by `+`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from writesae.causal.actions import (
    Action,
    AddFeatures,
    ClampFeatures,
    Edit,
    EraseWrite,
    Install,
    ReplaceByAtom,
    ScaleFeatures,
    Transplant,
    Write,
    check_edit,
)
from writesae.causal.engine import editing
from writesae.causal.schedule import Always, At, When
from writesae.causal.targets import token_ids
from writesae.edits.directions import Direction, DirectionKind, make_directions
from writesae.edits.generation import Generation, OnTokens, Sampling, encode_prompts, generate
from writesae.errors import InputError
from writesae.hosts import Host
from writesae.sae import SAE
from writesae.types import NativeWrite, Site, Timing


@dataclass(frozen=True)
class InstallTarget:
    """An install whose direction is made for each prompt when it is known."""

    site: Site
    targets: tuple[int, ...]
    """Written one after another when there are several: position `i` writes target `i` modulo their number."""
    kind: DirectionKind
    positions: tuple[int, ...]
    """From the prompt's end."""
    magnitude: float
    form: NativeWrite
    timing: Timing
    seed: int = 0

    def edits(self, host: Host, rows: Sequence[Sequence[int]]) -> list[Edit]:
        """One edit a row and position."""
        made = []
        for row, prompt in enumerate(rows):
            tokens = torch.tensor([prompt])
            for target in dict.fromkeys(self.targets):
                places = tuple(p for i, p in enumerate(self.positions) if self.targets[i % len(self.targets)] == target)
                if not places:
                    continue
                name = f"token {target}" if host._tokenizer is None else repr(host.text([target]))
                found = make_directions(
                    host, self.site, tokens, (target,), self.kind, places, self.timing, seed=self.seed + row
                )
                what = Install(*found, self.magnitude, self.form, label=f"{name} ({self.kind})")
                made.append(Edit(self.site, what, At(places), self.timing, row))
        return made


@dataclass(frozen=True)
class Edited:
    """A host and the edits that are made whenever it runs through this object."""

    host: Host
    plan: tuple[Edit | InstallTarget, ...]

    def __add__(self, other: Edited) -> Edited:
        """Both plans, this one's edits first. Raises InputError for another host."""
        if other.host is not self.host:
            raise InputError(f"edits of {self.host.name} and of {other.host.name} cannot be combined")
        return replace(self, plan=self.plan + other.plan)

    def edits(self, prompts: Sequence[Sequence[int]] | None = None) -> list[Edit]:
        """The edits for these prompts (token ids); raises InputError where a plan needs prompts and has none."""
        made: list[Edit] = []
        for part in self.plan:
            if isinstance(part, Edit):
                made.append(part)
            elif prompts is None:
                raise InputError("this install makes its direction for a prompt: give the prompt to `apply` as well")
            else:
                made += part.edits(self.host, prompts)
        return made

    @contextmanager
    def apply(self, prompt: str | Sequence[str] | Tensor | None = None) -> Iterator[None]:
        """Inside this context every run of the host's model is edited, its own `generate` included."""
        rows = None if prompt is None else encode_prompts(self.host, prompt)
        with editing(self.host, self.edits(rows)):
            yield

    def logits(self, tokens: Tensor) -> Tensor:
        """Next-token logits of edited texts `[B, T]`, `[B, T, vocabulary]`."""
        with torch.no_grad(), editing(self.host, self.edits(tokens.tolist())):
            return self.host.run(tokens, keep=0)

    def generate(
        self,
        prompts: str | Sequence[str] | Tensor | Sequence[Sequence[int]],
        new_tokens: int = 20,
        sampling: Sampling | None = None,
        stop_at_end: bool = True,
        on_tokens: OnTokens | None = None,
    ) -> Generation:
        """Continue prompts with the edits made; see `writesae.edits.generate`."""
        rows = encode_prompts(self.host, prompts)
        return generate(self.host, rows, self.edits(rows), new_tokens, sampling, stop_at_end, on_tokens)


def edited(
    host: Host,
    site: Site,
    what: Action,
    when: When | None = None,
    timing: Timing = "after_token",
    row: int | None = None,
) -> Edited:
    """A host with one edit; everywhere and always unless `when` is given. Raises InputError where it does not fit."""
    edit = Edit(site, what, Always() if when is None else when, timing, row)
    check_edit(host, edit)
    return Edited(host, (edit,))


def erase(
    host: Host,
    site: Site,
    *,
    sae: SAE | None = None,
    features: Sequence[int] = (),
    when: When | None = None,
    form: NativeWrite = "delta",
    timing: Timing = "after_token",
) -> Edited:
    """Take out the native write, or what features of a dictionary contribute."""
    if sae is None:
        return edited(host, site, EraseWrite(form), when, timing)
    return edited(host, site, ScaleFeatures(sae, tuple(features), 0.0), when, timing)


def replace_by_atom(
    host: Host,
    site: Site,
    sae: SAE,
    *,
    feature: int | None = None,
    when: When | None = None,
    amplitude: Literal["coefficient", "norm"] = "coefficient",
    form: NativeWrite = "delta",
    timing: Timing = "after_token",
) -> Edited:
    """Put an atom (by default the one with the largest coefficient) where the native write was."""
    return edited(host, site, ReplaceByAtom(sae, feature, amplitude, form), when, timing)


def install(
    host: Host,
    site: Site,
    *,
    target: str | int | Sequence[str | int] | None = None,
    direction: DirectionKind | Direction = "exact",
    magnitude: float = 3.0,
    positions: int | Sequence[int] = 3,
    form: NativeWrite = "value",
    timing: Timing = "after_token",
    seed: int = 0,
) -> Edited:
    """Write a direction at consecutive last positions of the prompt (or at these positions, counted from its end where
    negative), at a multiple of the native write's norm.

    `target` names one or several tokens to raise, each one token long; `direction` says how (`closed`, `exact`), or is
    a `Direction` of unit sides, and then there is no target. Raises InputError.
    """
    if isinstance(positions, int):
        if positions < 1:
            raise InputError(f"an install at {positions} positions was asked for; give 1 or more")
        places = tuple(range(-positions, 0))
    else:
        places = tuple(positions)
    if isinstance(direction, Direction):
        return edited(host, site, Install(*direction, magnitude, form), At(places), timing)
    if target is None:
        raise InputError('an install needs a target token, such as target=" Paris", or a Direction')
    host.check_site(site)
    At(places)  # checks them
    if any(p >= 0 for p in places):
        raise InputError(
            f"positions {places} of a target's install are counted from the prompt's end: give negative ones"
        )
    Install(torch.ones(1), torch.ones(1), magnitude)  # checks the magnitude
    return Edited(
        host, (InstallTarget(site, token_ids(host, target), direction, places, magnitude, form, timing, seed),)
    )


def amplify(
    host: Host,
    site: Site,
    sae: SAE,
    features: Sequence[int],
    *,
    factor: float | None = None,
    amount: float | None = None,
    when: When | None = None,
    timing: Timing = "after_token",
) -> Edited:
    """Multiply features' coefficients by `factor` (below 1 suppresses), or add `amount` to them: one of the two."""
    if (factor is None) == (amount is None):
        raise InputError("give either a factor, which multiplies coefficients, or an amount, which is added to them")
    if factor is not None:
        return edited(host, site, ScaleFeatures(sae, tuple(features), factor), when, timing)
    assert amount is not None
    return edited(host, site, AddFeatures(sae, tuple(features), amount), when, timing)


def clamp(
    host: Host,
    site: Site,
    sae: SAE,
    features: Sequence[int],
    value: float,
    *,
    when: When | None = None,
    timing: Timing = "after_token",
) -> Edited:
    """Bring features' coefficients to a value."""
    return edited(host, site, ClampFeatures(sae, tuple(features), (value,) * len(features)), when, timing)


def transplant(
    host: Host,
    site: Site,
    write: Write,
    *,
    when: When,
    replaced: NativeWrite | None = "delta",
    timing: Timing = "after_token",
) -> Edited:
    """Put a write of another run (`take_write`) in the place of a native one, or on top of it (`replaced=None`)."""
    return edited(host, site, Transplant(write, replaced), when, timing)
