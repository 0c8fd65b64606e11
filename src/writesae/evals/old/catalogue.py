"""Every evaluation by its name: how it is run, and how its summary follows from its files."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import torch
from torch import Tensor

from writesae.config import Json
from writesae.errors import InputError
from writesae.evals.old import boundary as boundary_
from writesae.evals.old import fidelity as fidelity_
from writesae.evals.old import logit_shift as logit_shift_
from writesae.evals.old import partition as partition_
from writesae.evals.old import passage_loss as passage_loss_
from writesae.evals.old import population as population_
from writesae.evals.old import quality as quality_
from writesae.evals.old import readers as readers_
from writesae.evals.old import seeds as seeds_
from writesae.evals.old import selectivity as selectivity_
from writesae.evals.old import spectrum as spectrum_
from writesae.evals.old.configs import (
    FidelityConfig,
    PartitionConfig,
    PassageLossConfig,
    SeedsConfig,
    SpectrumConfig,
)
from writesae.evals.old.provenance import provenance
from writesae.evals.old.result import Result, Stored, plain, read_result
from writesae.evals.old.substitution import SubstitutionConfig, detail, first_and_second, joint_substitution
from writesae.evals.old.substitution import summarise as summarise_substitution
from writesae.hosts import Host
from writesae.sae import SAE
from writesae.types import Site

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

    run: Callable[[Inputs, Any], AnyResult]
    summarise: Callable[[Stored], object]
    """The summary of a result folder's tables."""


def _substitution(inputs: Inputs, config: SubstitutionConfig) -> AnyResult:
    """Dictionaries of several heads are edited together; a second one of a head is that of the control `flat_svd`."""
    saes, flats = first_and_second(inputs.saes, config)
    return joint_substitution(inputs.host, saes, inputs.tokens, config, flats=flats, folder=inputs.folder).result()


def _substitution_summary(stored: Stored) -> object:
    config = cast(SubstitutionConfig, stored.config)
    by_timing = {}
    for timing in config.timings:
        records = stored.records[stored.records.protocol == timing]
        by_timing[timing] = asdict(summarise_substitution(records, stored.refused, config.seed)) | {
            "detail": asdict(detail(records, config.seed))
        }
    return by_timing


def _spectrum(inputs: Inputs, config: SpectrumConfig) -> AnyResult:
    return spectrum_.audit(inputs.host, inputs.tokens, config)


def _passage_loss(inputs: Inputs, config: PassageLossConfig) -> AnyResult:
    """The features asked for, or all of the class."""
    site, sae = inputs.one()
    features: tuple[int, ...] = config.features
    if not features:
        classing = PartitionConfig(native_write=config.native_write, ks=(), seed=config.seed)
        kinds = partition_.labels(
            partition_.partition(inputs.host, sae, site, inputs.tokens, classing).records, classing
        )
        features = tuple(feature for feature, kind in kinds.items() if kind == config.kind)
    return passage_loss_.passage_loss(inputs.host, sae, site, inputs.tokens, features, config, inputs.folder)


def _misfit(inputs: Inputs, site: Site, sae: SAE) -> str:
    """Why a dictionary cannot be measured there; empty where it can."""
    try:
        provenance(inputs.host, site, inputs.tokens, sae)
    except InputError as error:
        return f"dictionary of {site}: {error}"
    return ""


def _without(inputs: Inputs, reasons: list[str]) -> Inputs:
    """The dictionaries without a reason against them; raises InputError where none is left."""
    fitting = tuple(given for given, reason in zip(inputs.saes, reasons, strict=True) if not reason)
    if inputs.saes and not fitting:
        raise InputError(f"none of {len(reasons)} dictionaries can be measured; the first: {reasons[0]}")
    return replace(inputs, saes=fitting)


def _refusing(result: AnyResult, refused: Mapping[str, int]) -> AnyResult:
    """A result with further refused items."""
    more = result.refused | dict(refused)
    return replace(result, attempted=result.attempted + sum(refused.values()), refused=more)


def _fidelity(inputs: Inputs, config: FidelityConfig) -> AnyResult:
    """Beside the passages, a dictionary that does not fit is one refused item."""
    reasons = [_misfit(inputs, site, sae) for site, sae in inputs.saes]
    saes = _without(inputs, reasons).saes
    if not saes:
        raise InputError("fidelity replaces states by their reconstruction: give at least 1 dictionary, not 0")
    if len(dict(saes)) < len(saes):
        raise InputError("fidelity takes one dictionary a head: two of those given belong to the same head")
    result = fidelity_.fidelity(inputs.host, dict(saes), inputs.tokens, config, inputs.folder)
    return _refusing(result, {reason: reasons.count(reason) for reason in reasons if reason})


def _seeds(inputs: Inputs, config: SeedsConfig) -> AnyResult:
    """The first dictionary that fits says which head; the features of one that does not are refused items."""
    reasons = [_misfit(inputs, site, sae) for site, sae in inputs.saes]
    fitting = _without(inputs, reasons).saes
    wanted = fitting[0][0] if fitting else None
    reasons = [
        reason or ("" if site == wanted else f"dictionary of {site}: the first one is of {wanted}")
        for reason, (site, _) in zip(reasons, inputs.saes, strict=True)
    ]
    saes = [sae for _, sae in _without(inputs, reasons).saes]
    if wanted is None or len(saes) < 2:
        why = "".join(f"; {reason}" for reason in reasons if reason)
        raise InputError(f"seeds compares dictionaries with each other: give at least 2, not {len(saes)}{why}")
    result = seeds_.seeds(inputs.host, saes, wanted, inputs.tokens, config, inputs.folder)
    refused: dict[str, int] = {}
    for reason, (_, sae) in zip(reasons, inputs.saes, strict=True):
        if reason:
            refused[reason] = refused.get(reason, 0) + sae.config.features
    return _refusing(result, refused)


def _single(function: Callable[..., AnyResult], resumes: bool = True) -> Callable[[Inputs, Any], AnyResult]:
    def run(inputs: Inputs, config: object) -> AnyResult:
        site, sae = inputs.one()
        where = (inputs.folder,) if resumes else ()
        return function(inputs.host, sae, site, inputs.tokens, config, *where)

    return run


def _of_records(summarise: Callable[..., object]) -> Callable[[Stored], object]:
    return lambda stored: summarise(stored.records, stored.config)


def _with(summarise: Callable[..., object], table: str) -> Callable[[Stored], object]:
    return lambda stored: summarise(stored.records, stored.tables[table], stored.config)


EVALUATIONS: Mapping[str, Evaluation] = MappingProxyType(
    {
        "substitution": Evaluation(_substitution, _substitution_summary),
        "population": Evaluation(_single(population_.population), _of_records(population_.summarise)),
        "partition": Evaluation(_single(partition_.partition, False), _of_records(partition_.summarise)),
        "logit_shift": Evaluation(_single(logit_shift_.logit_shift), _of_records(logit_shift_.summarise)),
        "fidelity": Evaluation(_fidelity, _with(fidelity_.summarise, "scopes")),
        "passage_loss": Evaluation(_passage_loss, _of_records(passage_loss_.summarise)),
        "quality": Evaluation(_single(quality_.quality, False), _with(quality_.summarise, "passages")),
        "seeds": Evaluation(_seeds, _of_records(seeds_.summarise)),
        "selectivity": Evaluation(_single(selectivity_.selectivity), _of_records(selectivity_.summarise)),
        "readers": Evaluation(_single(readers_.readers), _of_records(readers_.summarise)),
        "boundary": Evaluation(_single(boundary_.boundary, False), _of_records(boundary_.summarise)),
        "spectrum": Evaluation(_spectrum, _with(spectrum_.summarise, "writes")),
    }
)
"""Name -> evaluation, the names of `configs.EVALUATIONS`."""


@torch.no_grad()
def run_evaluation(name: str, inputs: Inputs, config: object) -> AnyResult:
    """Run one evaluation; raises InputError where there is nothing to score, with the reason, and leaves no folder."""
    folder = inputs.folder
    begun = folder is not None and folder.exists()
    try:
        return EVALUATIONS[name].run(inputs, config)
    except InputError:
        if folder is not None and folder.exists() and not begun:
            shutil.rmtree(folder)
            if not any(folder.parent.iterdir()):
                folder.parent.rmdir()
        raise


def recompute(folder: Path) -> Json:
    """The summary of a result folder, computed again from its Parquet files and its configuration alone."""
    stored = read_result(folder)
    return plain(EVALUATIONS[stored.name].summarise(stored))
