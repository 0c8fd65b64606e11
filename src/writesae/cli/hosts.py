"""`writesae hosts`"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import tyro
from tyro.conf import Positional

from writesae.cli.options import Flat, Running, console
from writesae.errors import InputError


@dataclass(frozen=True)
class Command:
    """Without a model: list the recurrent families and model classes that are supported, the installed package that
    serves each and the devices it runs on, and the embedded hosts with how good they are. With a model: load it, prove
    its recorded stream by replay, and list its sites with their shapes."""

    model: Positional[str | None] = None
    """An embedded host (tiny-gdn, memory-gdn, ...), a folder made by save_pretrained, or a Hub id (user/name)."""
    running: Flat[Running] = field(default_factory=Running)
    given: Annotated[frozenset[str], tyro.conf.Suppress] = frozenset()
    """Names of the flags that were given."""


def run(command: Command) -> None:
    """Print one table."""
    if command.model is None:
        if command.given:
            raise InputError(f"--{min(command.given).replace('_', '-')} has no effect without a model: name one")
        _print_inventory()
    else:
        _print_sites(command.model, command)


def _print_inventory() -> None:
    from rich.padding import Padding
    from rich.text import Text

    from writesae.hosts.inventory import inventory, shipped

    terminal = console()

    def indented(line: str) -> None:
        terminal.print(Padding(Text(line), (0, 0, 0, 4), expand=False))

    for row in inventory():
        package = f"{row.package} {row.version}" if row.version else f"{row.package} (not installed)"
        terminal.print(Text(f"{row.family}: {package}; {row.devices}; {row.can}", "bold"))
        indented(", ".join(row.models))
    terminal.print(Text("hosts that ship with writesae", "bold"))
    for host in shipped():
        indented(f"{host.name:<15} {host.model:<22} {host.quality}" + f"; {host.needs}" * bool(host.needs))


def _print_sites(model: str, command: Command) -> None:
    from rich.table import Table

    host = command.running.open(model)
    table = Table("layer", "family", "sites", "d_k x d_v")
    table.add_column("module", overflow="fold")
    for layer in host.layers.values():
        sites, size = f"L{layer.index}.H0 to L{layer.index}.H{layer.heads - 1}", f"{layer.d_k} x {layer.d_v}"
        if layer.one_site:
            sites, size = f"L{layer.index}.H0", f"{layer.d_k} x {layer.heads}"
        table.add_row(str(layer.index), layer.family, sites, size, layer.name)
    terminal = console()
    terminal.print(f"{host.name}: {type(host.model).__name__}, {host.dtype}, {host.device}, revision {host.revision}")
    terminal.print(f"{len(host.sites)} sites in {len(host.layers)} of {len(host.blocks)} layers; replay check passed")
    terminal.print(table)
