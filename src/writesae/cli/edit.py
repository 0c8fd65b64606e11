"""`writesae edit`: change what the model has written and see what it says instead."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

if TYPE_CHECKING:
    from writesae.causal.schedule import When
    from writesae.edits import Edited
    from writesae.hosts import Host
    from writesae.sae import SAE
    from writesae.types import Site

Form = Literal["value", "delta"]


@dataclass(frozen=True)
class Common:
    """What every edit has."""

    prompt: Annotated[str, tyro.conf.Positional]
    """The text to continue."""
    site: str
    """The edited head, such as L5.H0."""
    host: str = "tiny-gdn"
    """An embedded host, a local folder, or a Hub id."""
    timing: Literal["after_token", "at_token"] = "after_token"
    """Whether the edited token itself reads the edited state."""
    new_tokens: int = 20
    """How many tokens to generate."""
    temperature: float = 0.0
    """0 for greedy."""
    seed: int = 0
    """Of sampling and of random directions."""
    stream: bool = True
    """Print both continuations as they come."""
    json: Path | None = None
    """Write the result here."""


@dataclass(frozen=True)
class Scheduled(Common):
    """An edit that can be made at any time."""

    when: str = "always"
    """"always", "prompt", "generated", "sentence-ends", "firing:412" (where that feature fires), or positions such as
    "3,4,-1", negative ones from the prompt's end."""
    dictionary: str = ""
    """Folder or Hub id of a dictionary of this head."""


@dataclass(frozen=True)
class Erase(Scheduled):
    """Take out the native write, or what features of a dictionary contribute."""

    features: str = ""
    """Features to erase, such as "412" or "3,17"; without any the native write is erased."""
    form: Form = "delta"
    """The native write: b k v^T, or what the token really adds, k u^T."""


@dataclass(frozen=True)
class Replace(Scheduled):
    """Put an atom of a dictionary where the native write was."""

    feature: int | None = None
    """The atom; by default the one with the largest coefficient at each token."""
    amplitude: Literal["coefficient", "norm"] = "coefficient"
    """At its own coefficient, or at the native write's norm."""
    form: Form = "delta"
    """The native write: b k v^T, or what the token really adds, k u^T."""


@dataclass(frozen=True)
class Install(Common):
    """Write a token's direction near the prompt's end."""

    target: tuple[str, ...] = ()
    """The token, as text that is one token (" war") or "#123"; several are written at one position after another."""
    direction: Literal["exact", "closed", "random"] = "exact"
    """exact: most raises the target's logit to first order; closed: the target's unembedding through the head."""
    magnitude: float = 3.0
    """In native writes (value form)."""
    positions: str = "3"
    """How many last tokens are written at, or positions such as "-4,-2"."""


@dataclass(frozen=True)
class Amplify(Scheduled):
    """Multiply what features of a dictionary contribute, or add to them."""

    features: str = ""
    """Features, such as "412" or "3,17"."""
    factor: float | None = None
    """Multiply coefficients."""
    amount: float | None = None
    """Add this to coefficients."""


@dataclass(frozen=True)
class Suppress(Scheduled):
    """Take out a part of what features of a dictionary contribute, or all of it."""

    features: str = ""
    """Features, such as "412" or "3,17"."""
    factor: float = 0.0
    """What is left of the coefficients: 0 for nothing, below 1."""


@dataclass(frozen=True)
class Clamp(Scheduled):
    """Bring features' coefficients to a value."""

    features: str = ""
    """Features, such as "412" or "3,17"."""
    value: float = 0.0
    """The value."""


@dataclass(frozen=True)
class Transplant(Common):
    """Put a write of another text in the place of one of the prompt's."""

    source: str = ""
    """The other text."""
    source_position: int = -1
    """Whose write is taken: a position in the other text, negative from its end."""
    position: int = -1
    """Where it is put: a position in the prompt, negative from its end."""
    keep: bool = False
    """Keep the native write, and add the other on top of it."""
    form: Form = "delta"
    """What is taken and given up: b k v^T, or what the token really adds, k u^T."""


AnyEdit = Erase | Replace | Install | Amplify | Suppress | Clamp | Transplant


@dataclass(frozen=True)
class Command:
    """Edit what a host writes into one head's state while it reads and continues a prompt; print the unedited and the
    edited continuation side by side, changed tokens marked."""

    edit: tyro.conf.OmitSubcommandPrefixes[
        tyro.conf.OmitArgPrefixes[
            Annotated[Erase, tyro.conf.subcommand("erase")]
            | Annotated[Replace, tyro.conf.subcommand("replace")]
            | Annotated[Install, tyro.conf.subcommand("install")]
            | Annotated[Amplify, tyro.conf.subcommand("amplify")]
            | Annotated[Suppress, tyro.conf.subcommand("suppress")]
            | Annotated[Clamp, tyro.conf.subcommand("clamp")]
            | Annotated[Transplant, tyro.conf.subcommand("transplant")]
        ]
    ]


def parse_numbers(text: str, what: str) -> tuple[int, ...]:
    """`"3,-1"` -> (3, -1). Raises InputError for anything else."""
    from writesae.errors import InputError

    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise InputError(f'{what} {text!r} are not written like "3" or "3,4,-1"') from None


def run(command: Command) -> None:
    """Continue the prompt with and without the edit."""
    import json

    from rich.console import Console

    from writesae.edits.compare import Side, compare
    from writesae.edits.generation import Sampling

    common = command.edit
    sampling = Sampling(common.temperature, seed=common.seed)
    plan, console, last = _plan(common), Console(), [""]

    def show(side: Side, text: str) -> None:
        if side != last[0]:
            console.print(("\n" if last[0] else "") + f"{side:<8} ", end="", style="dim")
            last[0] = side
        console.print(text, end="", markup=False, highlight=False, soft_wrap=True)

    result = compare(plan, common.prompt, common.new_tokens, sampling, show if common.stream else None)
    if common.stream:
        console.print("\n")
    result.print(console)
    if not result.changed:
        console.print("the edit changed no token")
    if common.json is not None:
        common.json.write_text(json.dumps(result.to_json(), indent=1) + "\n", encoding="utf-8")
        console.print(f"wrote {common.json}", highlight=False)


def _plan(command: AnyEdit) -> Edited:
    from writesae.artifacts import load_sae
    from writesae.edits import amplify, clamp, erase, install, replace_by_atom
    from writesae.errors import InputError
    from writesae.hosts import load
    from writesae.types import Site

    site = Site.parse(command.site)
    host = load(command.host)
    host.check_site(site)
    if isinstance(command, Transplant):
        return _transplant(command, host, site)
    if isinstance(command, Install):
        several = parse_numbers(command.positions, "positions")
        positions: int | tuple[int, ...] = several[0] if len(several) == 1 and several[0] > 0 else several
        return install(
            host, site, target=command.target, direction=command.direction, magnitude=command.magnitude,
            positions=positions, timing=command.timing, seed=command.seed,
        )  # fmt: skip
    sae = None if not command.dictionary else load_sae(command.dictionary, site=site, host=host.name)
    when, timing = _when(command.when, host, sae), command.timing
    if isinstance(command, Replace):
        if sae is None:
            raise InputError("replace needs --dictionary FOLDER, whose atoms are put in")
        return replace_by_atom(
            host, site, sae, feature=command.feature, when=when, amplitude=command.amplitude, form=command.form,
            timing=timing,
        )  # fmt: skip
    features = parse_numbers(command.features, "features") if command.features else ()
    if isinstance(command, Erase):
        if features and sae is None:
            raise InputError("features belong to a dictionary: give --dictionary as well")
        return erase(
            host, site, sae=sae if features else None, features=features, when=when, form=command.form, timing=timing
        )
    if sae is None or not features:
        raise InputError(f"{type(command).__name__.lower()} needs --dictionary FOLDER and --features, such as 3,17")
    if isinstance(command, Clamp):
        return clamp(host, site, sae, features, command.value, when=when, timing=timing)
    if isinstance(command, Suppress):
        if not 0 <= command.factor < 1:
            raise InputError(f"suppress leaves a part of 0 up to 1, not {command.factor:g}: use amplify for more")
        return amplify(host, site, sae, features, factor=command.factor, when=when, timing=timing)
    return amplify(host, site, sae, features, factor=command.factor, amount=command.amount, when=when, timing=timing)


def _when(text: str, host: Host, sae: SAE | None) -> When:
    from writesae.edits import Always, At, Firing, sentence_ends
    from writesae.errors import InputError

    schedules = {"always": Always(), "prompt": Always("prompt"), "generated": Always("generated")}
    if text in schedules:
        return schedules[text]
    if text == "sentence-ends":
        return sentence_ends(host)
    if text.startswith("firing:"):
        (feature,) = parse_numbers(text.removeprefix("firing:"), "the feature of --when")[:1]
        if sae is None or not 0 <= feature < sae.config.features:
            raise InputError(f"--when {text} needs --dictionary FOLDER with that feature")
        return Firing(sae, feature)
    if text[:1] not in "-0123456789":
        raise InputError(f'--when {text!r} is none of {", ".join(schedules)}, sentence-ends, firing:N or "3,4,-1"')
    return At(parse_numbers(text, "positions"))


def _transplant(command: Transplant, host: Host, site: Site) -> Edited:
    import torch

    from writesae.edits import At, take_write, transplant
    from writesae.edits.generation import encode_prompts

    text = torch.tensor(encode_prompts(host, command.source)[0])
    place = command.source_position + (len(text) if command.source_position < 0 else 0)
    write = take_write(host, text, site, place, command.form)
    replaced = None if command.keep else command.form
    return transplant(host, site, write, when=At((command.position,)), replaced=replaced, timing=command.timing)
