"""What users call: `install(model, "L5.H0", target=" Paris").generate("The capital of ...")`, and the same for others.

Each function returns an `Edited`: a model with a list of edits, which adds up with others of the same model by `+`.
All take, besides their own options, those of `Where`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import NamedTuple, TypedDict, Unpack

import torch
from torch import Tensor

from writesae.calls import worded
from writesae.causal.actions import (
    Action,
    ChangeFeatures,
    Edit,
    EraseWrite,
    Install,
    ReplaceByAtom,
    Transplant,
    Write,
    check_edit,
    take_write,
)
from writesae.causal.engine import editing
from writesae.causal.identity import check_features, check_reading
from writesae.causal.schedule import At
from writesae.causal.targets import token_ids
from writesae.edits.compare import Comparison, OnText, compare
from writesae.edits.dictionaries import Allow, check_choice, check_model, place, read_site
from writesae.edits.directions import Direction, DirectionKind
from writesae.edits.generation import Generation, OnTokens, Prompts, Sampling, encode_prompts, encode_text, generate
from writesae.edits.installing import InstallTarget
from writesae.edits.positions import Positions, schedule
from writesae.errors import InputError
from writesae.hosts import Host
from writesae.sae import SAE
from writesae.show.sheet import Sheet, shows_itself
from writesae.types import Amplitude, NativeWrite, Reading, Site, Timing


class Where(TypedDict, total=False):
    """What every edit takes besides its own options."""

    site: Site | str | None
    """The head, where a dictionary does not say it."""
    positions: Positions
    """Where in the text: see `writesae.edits.positions`. Everywhere unless said otherwise."""
    timing: Timing
    """Whether the edited token itself reads the edited state; `after_token` unless said otherwise."""
    allow: Allow
    """Take a dictionary of another head or of other weights; the result says so."""


RENAMED = {"form": "native_write", "when": "positions", "position": "positions", "replaced": "native_write and keep"}
"""Options that had another name -> what they are called."""


@shows_itself
@dataclass(frozen=True)
class Edited:
    """A model and the edits that are made whenever it runs through this object."""

    host: Host
    plan: tuple[Edit | InstallTarget, ...]
    overruled: tuple[str, ...] = ()
    """What does not fit between the model and the dictionaries, and was allowed."""

    def __add__(self, other: Edited) -> Edited:
        """Both plans, this one's edits first. Raises InputError for another model."""
        if other.host is not self.host:
            raise InputError(f"edits of {self.host.name} and of {other.host.name} cannot be combined")
        overruled = tuple(dict.fromkeys(self.overruled + other.overruled))
        return replace(self, plan=self.plan + other.plan, overruled=overruled)

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
    def apply(self, prompt: Prompts | None = None) -> Iterator[None]:
        """Inside this context every run of the model is edited, its own `generate` included."""
        rows = None if prompt is None else encode_prompts(self.host, prompt)
        with editing(self.host, self.edits(rows)):
            yield

    def logits(self, tokens: Tensor) -> Tensor:
        """Next-token logits of edited texts `[B, T]`, `[B, T, vocabulary]`."""
        with torch.no_grad(), editing(self.host, self.edits(tokens.tolist())):
            return self.host.run(tokens, keep=0)

    def generate(
        self,
        prompts: Prompts,
        new_tokens: int = 20,
        sampling: Sampling | None = None,
        stop_at_end: bool = True,
        on_tokens: OnTokens | None = None,
    ) -> Generation:
        """Continue prompts with the edits made; see `writesae.edits.generate`."""
        rows = encode_prompts(self.host, prompts)
        return generate(self.host, rows, self.edits(rows), new_tokens, sampling, stop_at_end, on_tokens)

    def compare(
        self, prompt: Prompts, new_tokens: int = 20, sampling: Sampling | None = None, on_text: OnText | None = None
    ) -> Comparison:
        """One prompt's continuation without and with the edits, and what they did. Raises InputError as `generate`."""
        row = encode_text(self.host, prompt)
        targets = tuple(t for part in self.plan if isinstance(part, InstallTarget) for t in part.targets)
        return compare(self.host, row, self.edits([row]), targets, new_tokens, sampling, on_text, self.overruled)

    def sheet(self) -> Sheet:
        """The edits, one a line."""
        return Sheet((f"{self.host.name} edited", *map(str, self.plan), *(f"allowed: {x}" for x in self.overruled)))


@worded
def edited(model: Host, at: SAE | Site | str, what: Action, **where: Unpack[Where]) -> Edited:
    """A model with one edit of any kind. Raises InputError where it does not fit."""
    return _made(model, _spot(model, at, where), what, where)


@worded
def erase(
    model: Host,
    at: SAE | Site | str,
    features: int | Sequence[int] | None = None,
    *,
    native_write: NativeWrite = "delta",
    **where: Unpack[Where],
) -> Edited:
    """Take out what features of a dictionary contribute, or without features the whole native write of the head."""
    spot = _spot(model, at, where)
    if features is None:
        return _made(model, spot, EraseWrite(native_write), where)
    return _made(model, spot, ChangeFeatures(*_chosen(spot, features), 0.0), where)


@worded
def replace_by_atom(
    model: Host,
    sae: SAE,
    feature: int | None = None,
    *,
    amplitude: Amplitude = "coefficient",
    native_write: NativeWrite = "delta",
    reading: Reading = "state",
    **where: Unpack[Where],
) -> Edited:
    """Put an atom where the native write was: by default the one with the largest coefficient, in the state or, of a
    dictionary of states read by `increment`, in what the write adds to it."""
    spot = _spot(model, sae, where)
    dictionary, _ = _chosen(spot, 0 if feature is None else feature)
    read = check_choice("reading", reading, Reading)
    check_reading(read, [dictionary])
    return _made(model, spot, ReplaceByAtom(dictionary, feature, amplitude, native_write, read), where)


@worded
def amplify(
    model: Host,
    sae: SAE,
    features: int | Sequence[int],
    *,
    factor: float | None = None,
    amount: float | None = None,
    **where: Unpack[Where],
) -> Edited:
    """Multiply features' coefficients by `factor` (below 1 suppresses), or add `amount` to them: one of the two."""
    if (factor is None) == (amount is None):
        raise InputError("give either a factor, which multiplies coefficients, or an amount, which is added to them")
    spot = _spot(model, sae, where)
    dictionary, chosen = _chosen(spot, features)
    amounts = () if amount is None else (amount,) * len(chosen)
    change = ChangeFeatures(dictionary, chosen, 1.0 if factor is None else factor, amounts)
    return _made(model, spot, change, where)


@worded
def clamp(model: Host, sae: SAE, values: Mapping[int, float], **where: Unpack[Where]) -> Edited:
    """Bring features' coefficients to values, `{412: 2.0}`."""
    if not isinstance(values, Mapping):
        raise InputError(f"clamp was given {values!r}: give the value of each feature, such as {{412: 2.0}}")
    spot = _spot(model, sae, where)
    change = ChangeFeatures(*_chosen(spot, tuple(values)), 0.0, tuple(values.values()))
    return _made(model, spot, change, where)


@worded
def transplant(
    model: Host,
    at: SAE | Site | str,
    source: Prompts | Write,
    *,
    source_position: int = -1,
    native_write: NativeWrite = "delta",
    keep: bool = False,
    **where: Unpack[Where],
) -> Edited:
    """Put a write of another text in the place of one of the prompt's (its last, unless `positions` says otherwise).

    `source` is that text, whose token at `source_position` (negative from its end) wrote it, or a `Write`. With `keep`
    the native write stays and the other is added.
    """
    spot = _spot(model, at, where)
    if not isinstance(source, Write):
        text = torch.tensor(encode_text(model, source))
        place = source_position + (len(text) if source_position < 0 else 0)
        source = take_write(model, text, spot.site, place, native_write)
    return _made(model, spot, Transplant(source, None if keep else native_write), where, 1)


@worded
def install(
    model: Host,
    at: SAE | Site | str,
    *,
    target: str | int | Sequence[str | int] | None = None,
    direction: DirectionKind | Direction = "exact",
    magnitude: float = 3.0,
    native_write: NativeWrite = "value",
    seed: int = 0,
    **where: Unpack[Where],
) -> Edited:
    """Write a direction at a multiple of the native write's norm, at the prompt's three last tokens unless `positions`
    says otherwise.

    `target` names one or several tokens to raise, each one token long; `direction` says how (`closed`, `exact`), or is
    a `Direction` of unit sides, and then there is no target. Raises InputError.
    """
    spot = _spot(model, at, where)
    if isinstance(direction, Direction):
        return _made(model, spot, Install(*direction, magnitude, native_write), where, 3)
    check_choice("direction", direction, DirectionKind)
    if target is None:
        raise InputError('an install needs a target token, such as target=" Paris" (--target), or a Direction')
    places = schedule(model, where.get("positions", 3), spot.sae)
    if not isinstance(places, At):
        raise InputError(f"a target is written at positions of the prompt, such as 3 or -1, not {places}")
    Install(torch.ones(1), torch.ones(1), magnitude)  # checks the magnitude
    targets = token_ids(model, target)
    made = InstallTarget(
        spot.site, targets, direction, places.positions, magnitude, native_write, _timing(where), seed
    )  # fmt: skip
    return Edited(model, (made,), spot.overruled)


class _Spot(NamedTuple):
    site: Site
    sae: SAE | None
    overruled: tuple[str, ...]


def _spot(model: Host, at: SAE | Site | str, where: Where) -> _Spot:
    """The head of an edit, with its dictionary where there is one. Raises InputError."""
    for name in where.keys() - Where.__annotations__.keys():
        hint = f": it is called {RENAMED[name]} now" if name in RENAMED else ""
        raise InputError(f"an edit has no option {name}{hint}")
    named = where.get("site")
    if isinstance(at, SAE):
        return _Spot(*place(model, at, named, allow=where.get("allow", ())))
    site = read_site(at)
    if named is not None:
        raise InputError(f"an edit of {site} was asked for, and site {named} besides: give one")
    check_model(model).check_site(site)
    return _Spot(site, None, ())


def _chosen(spot: _Spot, features: int | Sequence[int]) -> tuple[SAE, tuple[int, ...]]:
    """A dictionary and its features, checked."""
    if spot.sae is None:
        raise InputError(f"features belong to a dictionary, and {spot.site} is a head: give a dictionary (--sae)")
    return spot.sae, check_features(spot.sae, (features,) if isinstance(features, int) else features)


def _timing(where: Where) -> Timing:
    return check_choice("timing", where.get("timing", "after_token"), Timing)


def _made(model: Host, spot: _Spot, what: Action, where: Where, positions: Positions = "all") -> Edited:
    """One edit; `positions` is where it acts unless something else is asked for."""
    edit = Edit(spot.site, what, schedule(model, where.get("positions", positions), spot.sae), _timing(where))
    check_edit(model, edit)
    return Edited(model, (edit,), spot.overruled)
