"""The protocol of every evaluation: its flags on the command line, its JSON, and the header of its result.

Nothing heavy is imported here, so that `writesae eval NAME --help` is quick.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from types import MappingProxyType

from writesae.errors import ConfigError, InputError
from writesae.types import NativeWrite

EVALUATIONS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "substitution": (
            "writesae.evals.old.substitution_config:SubstitutionConfig",
            "one atom in the place of one write",
        ),
        "population": ("writesae.evals.old.population_config:PopulationConfig", "the same atom by atom, by class"),
        "partition": ("writesae.evals.old.configs:PartitionConfig", "registers, bundles and nulls"),
        "seeds": ("writesae.evals.old.configs:SeedsConfig", "dictionaries of several seeds compared"),
    }
)
"""Name -> where its configuration is (`module:class`), and one line of help."""


def config_class(name: str) -> type:
    """The configuration class of an evaluation; raises InputError for another name."""
    if name not in EVALUATIONS:
        raise InputError(f"unknown evaluation {name!r}: choose one of {', '.join(EVALUATIONS)}")
    module, _, cls = EVALUATIONS[name][0].partition(":")
    found: type = getattr(import_module(module), cls)
    return found


def at_least(config: object, **least: float) -> None:
    """Raises ConfigError where a field, or a member of it, is smaller than it may be."""
    for name, bound in least.items():
        given = getattr(config, name)
        if any(x < bound for x in (given if isinstance(given, tuple) else (given,))):
            raise ConfigError(f"{name.replace('_', ' ')} {given} is too small: give at least {bound}")


def not_empty(config: object, *names: str) -> None:
    """Raises ConfigError where nothing was given."""
    for name in names:
        if not getattr(config, name):
            raise ConfigError(f"{name.replace('_', ' ')} is empty: give at least one value")


@dataclass(frozen=True)
class PartitionConfig:
    """Class every feature by how much it looks like the writes it fires on: registers, bundles, nulls."""

    native_write: NativeWrite = "delta"
    """The matrix that an atom is compared with: what the token really adds, or b k v^T."""
    minimum: int = 1
    """Fewest firings for an atom to be classed."""
    thresholds: tuple[float, ...] = (0.05, 0.1, 0.2, 0.3, 0.5)
    """Cosines for the sweep that uses no mixture."""
    ks: tuple[int, ...] = (1, 2, 4, 8, 16)
    """Sweep: only the so many largest coefficients of a token count as firings."""
    seed: int = 0
    """Of the mixture's starts."""

    def __post_init__(self) -> None:
        at_least(self, minimum=1, ks=1)


@dataclass(frozen=True)
class SeedsConfig:
    """Compare dictionaries of one head: counts by class, and how many atoms they share."""

    partition: PartitionConfig = field(default_factory=PartitionConfig)
    """How atoms are classed."""
    match: float = 0.9
    """Absolute cosine above which two atoms are the same."""
