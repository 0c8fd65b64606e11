"""Every evaluation by its name, with one way to configure and to run it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from writesae.config import Json, from_json
from writesae.errors import ConfigError, InputError
from writesae.evals.boundary import BoundaryConfig, boundary
from writesae.evals.fidelity import FidelityConfig, fidelity
from writesae.evals.logit_shift import LogitShiftConfig, logit_shift
from writesae.evals.partition import PartitionConfig, labels, partition
from writesae.evals.passage_loss import PassageLossConfig, passage_loss
from writesae.evals.population import PopulationConfig, population
from writesae.evals.provenance import Provenance, provenance, tokens_hash
from writesae.evals.quality import QualityConfig, quality
from writesae.evals.readers import ReadersConfig, readers
from writesae.evals.result import Result
from writesae.evals.seeds import SeedsConfig, seeds
from writesae.evals.selectivity import SelectivityConfig, selectivity
from writesae.evals.spectrum import spectrum
from writesae.evals.substitution import SubstitutionConfig, substitution
from writesae.hosts import Host
from writesae.sae import SAE
from writesae.types import Protocol, Site

AnyResult = Result[Any, Any]


@dataclass(frozen=True)
class Inputs:
    """What an evaluation is run on."""

    host: Host
    saes: tuple[tuple[Site, SAE], ...]
    """Dictionaries and the heads they belong to."""
    tokens: Tensor
    """`[B, T]`."""
    folder: Path | None = None
    """Where finished pieces are kept."""

    def one(self) -> tuple[Site, SAE]:
        """The one dictionary; raises InputError where there is another number of them."""
        if len(self.saes) != 1:
            raise InputError(f"this evaluation takes one dictionary, not {len(self.saes)}")
        return self.saes[0]


@dataclass(frozen=True)
class Evaluation:
    """One entry."""

    help: str
    config: type
    run: Callable[[Inputs, Any], AnyResult]


@dataclass(frozen=True)
class SpectrumConfig:
    """The audit of every head, without a dictionary."""

    writes: int = 40
    """Random positions a layer."""
    timing: Protocol = "after_token"
    seed: int = 0


def _substitution(inputs: Inputs, config: SubstitutionConfig) -> AnyResult:
    """With a second dictionary, that is the flat one of the control `flat_svd`."""
    flat = None
    if len(inputs.saes) == 2 and "flat_svd" in config.controls:
        flat, inputs = inputs.saes[1][1], replace(inputs, saes=inputs.saes[:1])
    site, sae = inputs.one()
    found = substitution(inputs.host, sae, site, inputs.tokens, config, flat=flat, folder=inputs.folder)
    summary = {timing: asdict(s) | {"detail": asdict(found.details[timing])} for timing, s in found.summaries.items()}
    refused = found.main.refused
    return Result("substitution", found.provenance, config, found.main.attempted, refused, summary, found.records)


def _spectrum(inputs: Inputs, config: SpectrumConfig) -> AnyResult:
    host, tokens = inputs.host, inputs.tokens
    found = spectrum(host, tokens, writes=config.writes, timing=config.timing, seed=config.seed)
    source = Provenance(host.name, host.revision, "all", (), tokens_hash(tokens))
    site = found.default_site()
    return Result("spectrum", source, config, len(found.heads), {}, {"default_site": str(site)}, found.frame(site))


def _population(inputs: Inputs, config: PopulationConfig) -> AnyResult:
    site, sae = inputs.one()
    return population(inputs.host, sae, site, inputs.tokens, config, inputs.folder)


def _passage_loss(inputs: Inputs, config: PassageLossConfig) -> AnyResult:
    """The registers."""
    site, sae = inputs.one()
    classing = PartitionConfig(native_write=config.native_write, ks=(), seed=config.seed)
    kind = labels(partition(inputs.host, sae, site, inputs.tokens, classing).records, classing)
    registers = [feature for feature, name in kind.items() if name == "register"]
    return passage_loss(inputs.host, sae, site, inputs.tokens, registers, config)


def _fidelity(inputs: Inputs, config: FidelityConfig) -> AnyResult:
    if not inputs.saes:
        inputs.one()
    if len(dict(inputs.saes)) < len(inputs.saes):
        raise InputError("fidelity takes one dictionary a head: two of those given belong to the same head")
    return fidelity(inputs.host, dict(inputs.saes), inputs.tokens, config)


def _seeds(inputs: Inputs, config: SeedsConfig) -> AnyResult:
    sites = {site for site, _ in inputs.saes}
    if len(sites) > 1:
        raise InputError(f"seeds compares dictionaries of one head, not of {', '.join(map(str, sorted(sites)))}")
    if not sites:
        raise InputError("seeds compares dictionaries with each other: give at least 2, not 0")
    return seeds(inputs.host, [sae for _, sae in inputs.saes], sites.pop(), inputs.tokens, config)


def _single(function: Callable[..., AnyResult]) -> Callable[[Inputs, Any], AnyResult]:
    def run(inputs: Inputs, config: object) -> AnyResult:
        site, sae = inputs.one()
        return function(inputs.host, sae, site, inputs.tokens, config)

    return run


EVALUATIONS: Mapping[str, Evaluation] = MappingProxyType(
    {
        "substitution": Evaluation("one atom in the place of one write", SubstitutionConfig, _substitution),
        "population": Evaluation("the same atom by atom, by class", PopulationConfig, _population),
        "partition": Evaluation("registers, bundles and nulls", PartitionConfig, _single(partition)),
        "logit_shift": Evaluation("predicted against measured logit changes", LogitShiftConfig, _single(logit_shift)),
        "fidelity": Evaluation("perplexity with reconstructed states", FidelityConfig, _fidelity),
        "passage_loss": Evaluation("every register firing deleted or replaced", PassageLossConfig, _passage_loss),
        "quality": Evaluation("reconstruction and use of features", QualityConfig, _single(quality)),
        "seeds": Evaluation("dictionaries of several seeds compared", SeedsConfig, _seeds),
        "selectivity": Evaluation("overlap of most moved tokens", SelectivityConfig, _single(selectivity)),
        "readers": Evaluation("later heads that read an atom", ReadersConfig, _single(readers)),
        "boundary": Evaluation("features of a token class", BoundaryConfig, _single(boundary)),
        "spectrum": Evaluation("audit of every head, no dictionary", SpectrumConfig, _spectrum),
    }
)
"""Name -> evaluation."""


def configure(name: str, options: Mapping[str, Json]) -> Any:
    """The configuration of an evaluation; raises InputError for another name, ConfigError for a wrong option."""
    if name not in EVALUATIONS:
        raise InputError(f"unknown evaluation {name!r}: one of {', '.join(EVALUATIONS)}")
    try:
        return from_json(EVALUATIONS[name].config, dict(options))
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from None


@torch.no_grad()
def run_evaluation(name: str, inputs: Inputs, config: object) -> AnyResult:
    """Run one evaluation."""
    for site, sae in inputs.saes:
        provenance(inputs.host, site, inputs.tokens, sae)
    return EVALUATIONS[name].run(inputs, config)
