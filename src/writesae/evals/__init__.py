"""Measurements on a model, with or without a dictionary: `writesae.evals.NAME(model, dictionaries, text, ...)`.

Every evaluation is a folder here and one line below; the command, the notebook, the page and the docs know it from
that line. They are bound at once, so that an entry keeps its name when a file of its folder is imported.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from writesae.errors import InputError
from writesae.evals.amplification import amplification as amplification
from writesae.evals.atoms import atoms as atoms
from writesae.evals.boundary import boundary as boundary
from writesae.evals.common.evaluation import Evaluation as Evaluation
from writesae.evals.erasure import erasure as erasure
from writesae.evals.fidelity import fidelity as fidelity
from writesae.evals.installs import installs as installs
from writesae.evals.logit_shift import logit_shift as logit_shift
from writesae.evals.partition import partition as partition
from writesae.evals.passage_loss import passage_loss as passage_loss
from writesae.evals.population import population as population
from writesae.evals.proper_nouns import proper_nouns as proper_nouns
from writesae.evals.quality import quality as quality
from writesae.evals.readers import readers as readers
from writesae.evals.recall import recall as recall
from writesae.evals.seeds import seeds as seeds
from writesae.evals.selectivity import selectivity as selectivity
from writesae.evals.sign import sign as sign
from writesae.evals.spectrum import spectrum as spectrum
from writesae.evals.substitution import substitution as substitution

_ENTRIES: tuple[Evaluation[Any], ...] = (
    substitution, population, partition, atoms, logit_shift, fidelity, passage_loss, quality, seeds, spectrum,
    selectivity, readers, boundary, sign, installs, erasure, amplification, proper_nouns, recall,
)  # fmt: skip

EVALUATIONS: Mapping[str, Evaluation[Any]] = MappingProxyType({one.name: one for one in _ENTRIES})
"""Name -> evaluation, in the order of the page."""

__all__ = ["EVALUATIONS", "Evaluation", "named", *EVALUATIONS]


def named(name: str, *also: str) -> Evaluation[Any]:
    """The evaluation of a name; raises InputError for another one, naming those there are, and what else is a name."""
    if name not in EVALUATIONS:
        raise InputError(f"unknown evaluation {name!r}: choose one of {', '.join([*EVALUATIONS, *also])}")
    return EVALUATIONS[name]
