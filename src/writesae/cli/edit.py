"""`writesae edit`: change what the model has written and see what it says instead."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

if TYPE_CHECKING:
    from writesae.edits import Edited


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
    json: Path | None = None
    """Write the result here."""


@dataclass(frozen=True)
class Erase(Common):
    """Take out the native write, or what features of a dictionary contribute."""

    positions: str = "all"
    """"all", or positions such as "3,4,-1", negative ones from the prompt's end."""
    dictionary: str | None = None
    """Folder or Hub id of a dictionary of this head; without one the native write is erased."""
    features: str = ""
    """Features to erase, such as "412" or "3,17"."""
    form: Literal["value", "delta"] = "delta"
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
class Amplify(Common):
    """Multiply what features of a dictionary contribute at every token, or add to them."""

    dictionary: str = ""
    """Folder or Hub id of a dictionary of this head."""
    features: str = ""
    """Features, such as "412" or "3,17"."""
    factor: float | None = None
    """Multiply coefficients; below 1 suppresses."""
    amount: float | None = None
    """Add this to coefficients."""
    when: Literal["always", "prompt", "generated", "sentence-ends"] = "always"
    """At which tokens."""


@dataclass(frozen=True)
class Command:
    """Edit what a host writes into one head's state while it reads and continues a prompt; print the unedited and the
    edited continuation side by side, changed tokens marked."""

    edit: tyro.conf.OmitSubcommandPrefixes[
        tyro.conf.OmitArgPrefixes[
            Annotated[Erase, tyro.conf.subcommand("erase")]
            | Annotated[Install, tyro.conf.subcommand("install")]
            | Annotated[Amplify, tyro.conf.subcommand("amplify")]
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

    from writesae.edits.compare import compare
    from writesae.edits.generation import Sampling

    common = command.edit
    sampling = Sampling(common.temperature, seed=common.seed)
    result = compare(_plan(common), common.prompt, common.new_tokens, sampling)
    console = Console()
    result.print(console)
    if not result.changed:
        console.print("the edit changed no token")
    if common.json is not None:
        common.json.write_text(json.dumps(result.to_json(), indent=1) + "\n", encoding="utf-8")
        console.print(f"wrote {common.json}", highlight=False)


def _plan(command: Erase | Install | Amplify) -> Edited:
    from writesae.artifacts import load_sae
    from writesae.edits import Always, At, amplify, erase, install, sentence_ends
    from writesae.edits.schedule import When
    from writesae.errors import InputError
    from writesae.hosts import load_host
    from writesae.types import Site

    site = Site.parse(command.site)
    host = load_host(command.host)
    host.check_site(site)
    if isinstance(command, Install):
        several = parse_numbers(command.positions, "positions")
        positions: int | tuple[int, ...] = several[0] if len(several) == 1 and several[0] > 0 else several
        return install(
            host, site, target=command.target, direction=command.direction, magnitude=command.magnitude,
            positions=positions, timing=command.timing, seed=command.seed,
        )  # fmt: skip
    sae = None if not command.dictionary else load_sae(command.dictionary, site=site, host=host.name)
    if (sae is None) != (not command.features):
        raise InputError("features belong to a dictionary: give --dictionary and --features together, or neither")
    features = parse_numbers(command.features, "features") if sae is not None else ()
    if isinstance(command, Erase):
        always = command.positions == "all"
        when: When = Always() if always else At(parse_numbers(command.positions, "positions"))
        return erase(host, site, sae=sae, features=features, when=when, form=command.form, timing=command.timing)
    if sae is None:
        raise InputError("amplify needs --dictionary FOLDER and --features")
    schedules = {"always": Always(), "prompt": Always("prompt"), "generated": Always("generated")}
    when = sentence_ends(host) if command.when == "sentence-ends" else schedules[command.when]
    return amplify(
        host, site, sae, features, factor=command.factor, amount=command.amount, when=when, timing=command.timing
    )
