"""`writesae attribute`: which past writes made the model say this."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

if TYPE_CHECKING:
    from torch import Tensor

    from writesae.causal.targets import Target
    from writesae.hosts import Host


@dataclass(frozen=True)
class Command:
    """Price every write of a prompt for a target, in one backward pass, and list the largest.

    Effects are first order: what each piece of memory adds to the target. `--check` deletes the largest ones for real
    and prints how well the prices hold.
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
    host: str = "tiny-gdn"
    """An embedded host, a local folder, or a Hub id."""
    dictionary: tuple[str, ...] = ()
    """SITE=FOLDER of a dictionary whose atoms are priced as well, such as L5.H0=runs/L5.H0 (a Hub id works too)."""
    layers: str = "all"
    """Layers whose native writes are priced: "4", "4,5", or "all"."""
    timing: Literal["at_token", "after_token"] = "at_token"
    """Whether a write's own token reads it."""
    form: Literal["value", "delta"] = "value"
    """The native write: b k v^T, or what the token really adds, k u^T."""
    top: int = 10
    """How many entries are listed."""
    check: bool = False
    """Delete the listed native writes and atoms, and every head, for real, and compare."""
    html: Path | None = None
    """Write heat maps (tokens x atoms, tokens x heads) to this page."""
    json: Path | None = None
    """Write the result here."""


def run(command: Command) -> None:
    """Attribute, print, and write what was asked for."""
    import json

    import torch
    from rich.console import Console

    from writesae.artifacts import load_sae
    from writesae.attribution import ablate_atoms, ablate_heads, ablate_writes, attribute, write_page
    from writesae.attribution.listing import attribution_json, print_attribution
    from writesae.cli.capture import parse_layers
    from writesae.edits.generation import encode_prompts
    from writesae.errors import InputError
    from writesae.hosts import load
    from writesae.types import Site

    if command.top < 1:
        raise InputError(f"--top {command.top} entries were asked for; give at least 1")
    chosen = parse_layers(command.layers)
    host = load(command.host)
    pairs = [entry.partition("=") for entry in command.dictionary]
    if not all(site and folder for site, _, folder in pairs):
        raise InputError(f"dictionaries {command.dictionary} are not written like L5.H0=FOLDER")
    dictionaries = {
        Site.parse(site): load_sae(folder, site=Site.parse(site), host=host.name) for site, _, folder in pairs
    }
    tokens = torch.tensor(encode_prompts(host, command.prompt)[0])
    target = _target(command, host, tokens)
    layers = None if chosen == "all" else chosen
    found = attribute(host, tokens, target, dictionaries, layers, command.timing, command.form)
    console = Console()
    print_attribution(found, console, command.top)
    checks = {}
    if command.check:
        checks = {"writes": ablate_writes(found, command.top), "heads": ablate_heads(found)}
        if found.atoms:
            checks["atoms"] = ablate_atoms(found, command.top)
        for name, compared in checks.items():
            console.print(f"deleting {name} for real, {compared}", highlight=False)
    if command.html is not None:
        write_page(found, command.html, checks=checks)
        console.print(f"wrote {command.html}", highlight=False)
    if command.json is not None:
        command.json.write_text(json.dumps(attribution_json(found, command.top, checks), indent=1) + "\n")
        console.print(f"wrote {command.json}", highlight=False)


def _target(command: Command, host: Host, tokens: Tensor) -> Target:
    from writesae.causal.targets import Logit, LogitDifference, LogProbability, TextLoss, check_target, token_id
    from writesae.errors import InputError

    if command.quantity == "loss":
        if command.target is not None or command.against is not None:
            raise InputError("the loss of the prompt has no target token: leave out --target and --against")
        return TextLoss()
    check_target(Logit((0,), command.position), len(tokens), host.vocabulary)
    if command.target is None:
        wanted = int(host.logits(tokens[None])[0, command.position].argmax())
    else:
        wanted = token_id(host, command.target)
    if command.against is not None:
        return LogitDifference(wanted, token_id(host, command.against), command.position)
    if command.quantity == "logprob":
        return LogProbability(wanted, command.position)
    return Logit((wanted,), command.position)
