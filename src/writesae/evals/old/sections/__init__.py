"""One section of the page for every evaluation. A new one is a module here and an entry below."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from writesae.evals.old.measured import Measured
from writesae.evals.old.sections import (
    boundary,
    fidelity,
    logit_shift,
    partition,
    passage_loss,
    population,
    quality,
    readers,
    seeds,
    selectivity,
    spectrum,
    substitution,
)
from writesae.show.parts import Panel


@dataclass(frozen=True)
class Section:
    """What the page says about one kind of evaluation."""

    short: str
    """In the navigation."""
    title: str
    intro: str
    """What was done, for a reader who has not read the paper."""
    build: Callable[[Measured], Panel]
    """Raises DataError where the result is damaged."""


SECTIONS: Mapping[str, Section] = MappingProxyType(
    {
        "substitution": Section(
            "Substitution",
            "One atom in the place of one write",
            "At a firing, the host\u2019s own write into the state is taken out and one dictionary atom is put in "
            "its place. "
            "KL divergence from the native next-token distribution, in nats, says how much that disturbs: smaller is "
            "closer to the untouched model.",
            substitution.build,
        ),
        "population": Section(
            "Population",
            "How many atoms can stand in for writes?",
            "The same test atom by atom: atoms sampled by class, a few firings each.",
            population.build,
        ),
        "partition": Section(
            "Partition",
            "Which atoms look like writes?",
            "An atom\u2019s cosine is the median, over its firings, of its cosine to the native write. Registers are "
            "the atoms "
            "of the upper of two Gaussians, bundles those of the lower one, nulls never fire.",
            partition.build,
        ),
        "logit_shift": Section(
            "Logit shift",
            "Can a formula say what a write does?",
            "A small rank-1 write is added after a token and the change of later logits measured. Closed form: "
            "decays, read, "
            "output projection, unembedding. Direct path: the same with erase terms and the norms\u2019 Jacobians. "
            "Exact "
            "first order: all of that through every layer above.",
            logit_shift.build,
        ),
        "fidelity": Section(
            "Fidelity",
            "What do reconstructed states cost?",
            "A prefix runs natively; then the states become their reconstruction (or zero, for scale), and the text "
            "that "
            "follows is scored.",
            fidelity.build,
        ),
        "passage_loss": Section(
            "Passage loss",
            "What if every such write is replaced?",
            "Wherever the top feature of a token belongs to the class, the token\u2019s write is deleted or "
            "replaced, over whole "
            "passages.",
            passage_loss.build,
        ),
        "quality": Section(
            "Quality",
            "How well does the dictionary reconstruct?",
            "One pass over the text without any edit: what is explained, and how features share the work.",
            quality.build,
        ),
        "seeds": Section(
            "Seeds",
            "Do other seeds find the same atoms?",
            "Dictionaries of one head, trained from several seeds, compared by class and atom by atom.",
            seeds.build,
        ),
        "spectrum": Section(
            "Heads",
            "Where in the model does a write matter?",
            "Every recurrent head measured on the same text; no dictionary is needed.",
            spectrum.build,
        ),
        "selectivity": Section(
            "Selectivity",
            "Does an atom move tokens of its own?",
            "The atom, a random rank-1 matrix and one orthogonal to the atom, all of the native write\u2019s norm, "
            "are added in "
            "turn, and the tokens that each moves most are compared.",
            selectivity.build,
        ),
        "readers": Section(
            "Readers",
            "Which later heads read an atom?",
            "The atom, at the native write\u2019s norm, is added after a token, and the change in every later "
            "head\u2019s output "
            "compared with that by random writes of the same size.",
            readers.build,
        ),
        "boundary": Section(
            "Boundary",
            "Which features mark a class of tokens?",
            "Coefficients at tokens of the class against those at all other tokens.",
            boundary.build,
        ),
    }
)
"""Name of the evaluation -> its section, in the order of the page."""
