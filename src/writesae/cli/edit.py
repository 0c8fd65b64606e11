"""`writesae edit`: change what the model has written and see what it says instead."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from writesae.cli.options import Flat, HostOptions, check_reading, console, dictionary
from writesae.errors import InputError

if TYPE_CHECKING:
    from writesae.edits import Edited
    from writesae.edits.compare import Side

Kind = Literal["erase", "replace", "install", "amplify", "suppress", "clamp", "transplant"]

OWN: dict[Kind, str] = {
    "erase": "features native_write",
    "replace": "features native_write amplitude reading",
    "install": "target direction magnitude native_write",
    "amplify": "features factor amount",
    "suppress": "features factor",
    "clamp": "features value",
    "transplant": "source source_position keep native_write",
}
"""The flags of each kind, beside those that all have."""
NEEDED: dict[Kind, str] = {
    "replace": "sae",
    "install": "target",
    "amplify": "sae features",
    "suppress": "sae features",
    "clamp": "sae features value",
    "transplant": "source",
}


@dataclass(frozen=True)
class Command:
    """Edit what a host writes into one head's state while it reads and continues a prompt; print the unedited and the
    edited continuation side by side, changed tokens marked, and what the edit did.

    erase: take out the native write, or what features of a dictionary contribute. replace: put an atom where the native
    write was. install: write a token's direction. amplify, suppress: multiply what features contribute, or add to it.
    clamp: bring features' coefficients to a value. transplant: put a write of another text in the place of the
    prompt's.
    """

    kind: Annotated[Kind, tyro.conf.Positional]
    """What is done."""
    prompt: Annotated[str, tyro.conf.Positional]
    """The text to continue."""
    sae: str | None = None
    """Folder or Hub id of a dictionary. Its own head is edited."""
    site: str | None = None
    """The edited head, such as L5.H0, where no dictionary says it."""
    features: tuple[int, ...] = ()
    """Features of the dictionary, such as 412 or 3,17. erase: without any the native write is erased. replace: one,
    by default the one with the largest coefficient at each token."""
    positions: str | None = None
    """Where the edit acts: "all", "prompt", "generated", "sentence-ends", "firing:412" (where that feature fires), or
    positions, counted from 0 and negative ones from the prompt's end: "0,5,-1". One number alone says how many: "3" are
    the three last tokens of the prompt, and "at:3" is the position 3. install: 3, transplant: -1, others: all."""
    timing: Literal["after_token", "at_token"] = "after_token"
    """Whether the edited token itself reads the edited state."""
    native_write: Literal["value", "delta"] | None = None
    """What counts as the native write: value, b k v^T (install's default), or delta, what the token really adds, k u^T
    (the default of others)."""
    factor: float | None = None
    """amplify, suppress: multiply coefficients. suppress: below 1, and 0 if not said."""
    amount: float | None = None
    """amplify: add this to coefficients."""
    value: float | None = None
    """clamp: the coefficients' value."""
    amplitude: Literal["coefficient", "norm"] | None = None
    """replace: the atom at its own coefficient (the default), or at the native write's norm."""
    reading: Literal["state", "increment"] | None = None
    """replace, with a dictionary of states: the coefficient is what the state holds (the default), or by how much the
    token's write raises it."""
    target: tuple[str, ...] = ()
    """install: the token, as text that is one token (" war") or "#123"; several are written one after another."""
    direction: Literal["exact", "closed", "random"] | None = None
    """install: exact (the default) most raises the target's logit to first order; closed is the target's unembedding
    through the head."""
    magnitude: float | None = None
    """install: in native writes; 3 if not said."""
    source: str | None = None
    """transplant: the other text."""
    source_position: int | None = None
    """transplant: whose write is taken, negative from the other text's end; -1 if not said."""
    keep: bool = False
    """transplant: keep the native write, and add the other on top of it."""
    on: Flat[HostOptions] = field(default_factory=HostOptions)
    allow: tuple[Literal["mismatch"], ...] = ()
    """Overrule a refusal: a dictionary of another head or of other weights. The result says so."""
    new_tokens: int = 20
    """How many tokens to generate."""
    temperature: float = 0.0
    """0 for greedy."""
    seed: int = 0
    """Of sampling and of random directions."""
    stream: bool = True
    """On a terminal, print both continuations as they come."""
    json: Path | None = None
    """Write the result here."""
    html: Path | None = None
    """Write the result to this page."""


def run(command: Command) -> None:
    """Continue the prompt with and without the edit."""
    from writesae.disk import check_place, write_json, write_text
    from writesae.edits import Sampling

    written = [path for path in (command.json, command.html) if path is not None]
    for path in written:
        check_place(path, file=True)
    plan, terminal, last = _plan(command), console(), [""]
    stream = command.stream and terminal.is_terminal

    def show(side: Side, text: str) -> None:
        if side != last[0]:
            terminal.print(("\n" if last[0] else "") + f"{side:<8} ", end="", style="dim")
            last[0] = side
        terminal.print(text, end="", markup=False, highlight=False, soft_wrap=True)

    sampling = Sampling(command.temperature, seed=command.seed)
    result = plan.compare(command.prompt, command.new_tokens, sampling, show if stream else None)
    if command.json is not None:
        write_json(command.json, result.to_json())
    if command.html is not None:
        write_text(command.html, result.sheet().page("writesae edit"))
    if stream:
        terminal.print("\n")
    terminal.print(result)
    for path in written:
        terminal.print(f"wrote {path}", highlight=False)


def _plan(command: Command) -> Edited:
    """The edit that was asked for; what is wrong with it is found before the host is loaded, where it can be."""
    import writesae.edits as edits
    from writesae.causal.identity import check_features
    from writesae.edits.dictionaries import read_site
    from writesae.edits.positions import parse_positions

    kind, given = command.kind, _own(command)
    if not command.prompt:
        raise InputError("a prompt is empty: give text of at least one token")
    site = None if command.site is None else read_site(command.site)
    sae = None if command.sae is None else dictionary(command.sae, command.site)
    if sae is not None and "reading" in given:
        check_reading([sae])
    at = sae or site
    if at is None:
        raise InputError("which head is to be edited? Give --site, such as L5.H0, or --sae")
    if command.positions is not None:
        given["positions"] = parse_positions(command.positions, sae)
    if command.features:
        if sae is None:
            raise InputError("features belong to a dictionary: give --sae as well")
        check_features(sae, command.features)
    if kind == "replace" and command.features:
        given["feature"], *more = given.pop("features")
        if more:
            raise InputError(f"a write is replaced by one atom, not by {len(command.features)}")
    if kind == "clamp":
        given["values"] = dict.fromkeys(given.pop("features"), given.pop("value"))
    if kind == "suppress" and not 0 <= given.setdefault("factor", 0.0) < 1:
        raise InputError(f"suppress leaves a part of 0 up to 1, not {command.factor}: use amplify for more")
    if kind == "install":
        given["seed"] = command.seed
    if sae is not None:
        given |= {"site": site, "allow": command.allow}
    make = {
        "erase": edits.erase, "replace": edits.replace_by_atom, "install": edits.install, "amplify": edits.amplify,
        "suppress": edits.amplify, "clamp": edits.clamp, "transplant": edits.transplant,
    }[kind]  # fmt: skip
    return make(command.on.open([] if sae is None else [sae]), at, timing=command.timing, **given)  # type: ignore[operator, no-any-return]


def _own(command: Command) -> dict[str, Any]:
    """The flags of this kind that were given; raises InputError for one that it lacks, or that says nothing to it."""
    every = ((field.name, getattr(command, field.name)) for field in fields(command))
    given = {name: value for name, value in every if value is not None and value is not False and value != ()}
    mine, others = OWN[command.kind].split(), " ".join(OWN.values()).split()
    idle = [name for name in given if name in others and name not in mine]
    if idle:
        raise InputError(f"{_flag(idle[0])} has no effect on {command.kind}, which takes {', '.join(map(_flag, mine))}")
    lacking = [_flag(name) for name in NEEDED.get(command.kind, "").split() if name not in given]
    if lacking:
        raise InputError(f"{command.kind} needs {' and '.join(lacking)}; see writesae edit --help")
    return {name: given[name] for name in mine if name in given}


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
