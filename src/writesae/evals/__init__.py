"""Measurements on a model, with or without a dictionary: `writesae.evals.NAME(model, dictionaries, text, ...)`.

Every evaluation is a folder here and one line below; the command, the notebook, the page and the docs know it from
that line. They are bound at once, so that an entry keeps its name when a file of its folder is imported.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from writesae.errors import InputError
from writesae.evals.amplification import entry as amplification
from writesae.evals.atoms import entry as atoms
from writesae.evals.boundary import entry as boundary
from writesae.evals.common.evaluation import Evaluation
from writesae.evals.erasure import entry as erasure
from writesae.evals.fidelity import entry as fidelity
from writesae.evals.installs import entry as installs
from writesae.evals.logit_shift import entry as logit_shift
from writesae.evals.partition import entry as partition
from writesae.evals.passage_loss import entry as passage_loss
from writesae.evals.population import entry as population
from writesae.evals.proper_nouns import entry as proper_nouns
from writesae.evals.quality import entry as quality
from writesae.evals.readers import entry as readers
from writesae.evals.seeds import entry as seeds
from writesae.evals.selectivity import entry as selectivity
from writesae.evals.sign import entry as sign
from writesae.evals.spectrum import entry as spectrum
from writesae.evals.substitution import entry as substitution

_ENTRIES: tuple[Evaluation[Any], ...] = (
    substitution,
    population,
    partition,
    atoms,
    logit_shift,
    fidelity,
    passage_loss,
    quality,
    seeds,
    spectrum,
    selectivity,
    readers,
    boundary,
    sign,
    installs,
    erasure,
    amplification,
    proper_nouns,
)

EVALUATIONS: Mapping[str, Evaluation[Any]] = MappingProxyType({one.name: one for one in _ENTRIES})
"""Name -> evaluation, in the order of the page."""

__all__ = [
    "EVALUATIONS",
    "Evaluation",
    "amplification",
    "atoms",
    "boundary",
    "erasure",
    "fidelity",
    "installs",
    "logit_shift",
    "named",
    "partition",
    "passage_loss",
    "population",
    "proper_nouns",
    "quality",
    "readers",
    "seeds",
    "selectivity",
    "sign",
    "spectrum",
    "substitution",
]


def named(name: str, *also: str) -> Evaluation[Any]:
    """The evaluation of a name; raises InputError for another one, naming those there are, and what else is a name."""
    if name not in EVALUATIONS:
        raise InputError(f"unknown evaluation {name!r}: choose one of {', '.join([*EVALUATIONS, *also])}")
    return EVALUATIONS[name]
