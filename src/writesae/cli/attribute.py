"""`writesae attribute`: which past writes made the model say this."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from writesae.cli.options import Flat, HostOptions, check_reading, console, dictionaries
from writesae.errors import InputError


@dataclass(frozen=True)
class Command:
    """Price every write of a prompt for a target, in one backward pass, and list the largest.

    Effects are first order: what each piece of memory adds to the target. `--check` deletes the largest ones for real
    and says whether the prices held.
    """

    prompt: Annotated[str, tyro.conf.Positional]
    """The text."""
    target: str | None = None
    """The token to explain, as text that is one token (" Paris") or "#123"; the model's own top token if not said."""
    against: str | None = None
    """Explain the logit difference to this token."""
    quantity: Literal["logit", "logprob", "loss"] = "logit"
    """What of the target: its logit, its log probability, or (without a target) the loss of the whole prompt."""
    position: int = -1
    """The position whose next-token prediction is explained."""
    sae: tuple[str, ...] = ()
    """Dictionaries whose atoms are priced as well: folders or Hub ids, each of another head."""
    site: str | None = None
    """Head of a dictionary that does not say it itself, such as L5.H0."""
    allow: tuple[Literal["mismatch"], ...] = ()
    """Overrule a refusal: dictionaries of another head or of other weights. The result says so."""
    layers: str = "all"
    """Layers whose native writes are priced: "4", "4,5", or "all"."""
    timing: Literal["at_token", "after_token"] = "at_token"
    """Whether a write's own token reads it."""
    native_write: Literal["value", "delta"] = "value"
    """What counts as the native write: b k v^T, or what the token really adds, k u^T."""
    reading: Literal["state", "increment"] = "state"
    """Coefficients of atoms of dictionaries of states: what the state holds, or by how much the token's write raises
    them."""
    on: Flat[HostOptions] = field(default_factory=HostOptions)
    top: int = 10
    """How many entries are listed."""
    check: bool = False
    """Delete the listed native writes and atoms, and every head and layer, for real, and compare."""
    html: Path | None = None
    """Write heat maps (tokens x atoms, tokens x heads) to this page."""
    json: Path | None = None
    """Write the result here."""
    given: Annotated[frozenset[str], tyro.conf.Suppress] = frozenset()
    """Names of the flags that were given."""


def run(command: Command) -> None:
    """Attribute, write what was asked for, and print."""
    import writesae.attribution as attribution
    from writesae.cli.capture import parse_layers
    from writesae.disk import check_place, write_json, write_text

    if command.top < 1:
        raise InputError(f"--top {command.top} entries were asked for; give at least 1")
    if not command.prompt:
        raise InputError("a prompt is empty: give text of at least one token")
    layers = parse_layers(command.layers)
    written = [path for path in (command.json, command.html) if path is not None]
    for path in written:
        check_place(path, file=True)
    saes = dictionaries(command.sae, () if command.site is None else (command.site,))
    if "reading" in command.given:
        check_reading(saes)
    found = attribution.attribute(
        command.on.open(saes), saes, command.prompt, command.target, against=command.against, quantity=command.quantity,
        position=command.position, site=command.site, layers=None if layers == "all" else layers, timing=command.timing,
        native_write=command.native_write, reading=command.reading, allow=command.allow,
    )  # fmt: skip
    checks = {}
    if command.check:
        checks = {"writes": attribution.ablate_writes(found, command.top), "heads": attribution.ablate_heads(found)}
        if len(found.layers) > 1:
            checks["layers"] = attribution.ablate_layers(found)
        if found.atoms:
            checks["atoms"] = attribution.ablate_atoms(found, command.top)
    if command.json is not None:
        checked = {name: attribution.check_json(name, compared) for name, compared in checks.items()}
        write_json(command.json, found.to_json(command.top) | {"checks": checked}, nulls=True)
    if command.html is not None:
        write_text(command.html, attribution.attribution_page(found, checks=checks))
    terminal = console()
    terminal.print(found.sheet(command.top))
    for name, compared in checks.items():
        terminal.print(attribution.verdict(name, compared), highlight=False)
    for path in written:
        terminal.print(f"wrote {path}", highlight=False)
