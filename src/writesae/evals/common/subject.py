"""What an evaluation is run on: a host, dictionaries at their heads, passages. All that fits is checked here, once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from writesae.causal.identity import check_size, mismatches, remedy
from writesae.corpus import Passages, Text
from writesae.errors import InputError
from writesae.evals.common.identity import provenance
from writesae.evals.common.provenance import Allowance, Provenance
from writesae.hosts import Host
from writesae.sae import SAE
from writesae.types import Site

if TYPE_CHECKING:
    from typing import Any

    from writesae.evals.common.evaluation import Evaluation

Dictionaries = SAE | Sequence[SAE] | Mapping[Site, SAE] | Mapping[str, SAE]
Sites = Site | str | Sequence[Site] | Sequence[str]
TextLike = Tensor | NDArray[np.int64]

OVERLAP = 0.01
"""Largest share of a text's token windows that a dictionary may have been trained on."""


@dataclass(frozen=True)
class Subject:
    """One evaluation's inputs."""

    host: Host
    saes: tuple[tuple[Site, SAE], ...]
    """Dictionaries and the heads that they are measured at, on the host's device."""
    sites: tuple[Site, ...]
    """The heads: those of the dictionaries, or those that were named."""
    passages: Passages
    provenance: Provenance

    @property
    def tokens(self) -> Tensor:
        """Token ids `[B, T]`."""
        return torch.from_numpy(self.passages.tokens)

    @property
    def site(self) -> Site:
        """The head, where there is one."""
        return self.sites[0]

    @property
    def sae(self) -> SAE:
        """The dictionary, where there is one."""
        return self.saes[0][1]

    def first_and_second(self) -> tuple[dict[Site, SAE], dict[Site, SAE]]:
        """By head: the first dictionary, and the second where one was given."""
        first, second = dict[Site, SAE](), dict[Site, SAE]()
        for site, sae in self.saes:
            (second if site in first else first)[site] = sae
        return first, second


def subject_of(
    evaluation: Evaluation[Any], host: Host, given: tuple[object, ...], site: Sites | None, passages: int | None,
    length: int | None, text_seed: int, allow: tuple[Allowance, ...],
) -> Subject:  # fmt: skip
    """Sort out what an evaluation was called with; raises InputError where it does not fit."""
    name = evaluation.name
    if not isinstance(host, Host):
        raise InputError(f"{name} takes a model first, as writesae.load gives it, not {type(host).__name__}")
    without = evaluation.takes in ("none", "sites") or (evaluation.takes == "optional" and len(given) == 1)
    if len(given) != (1 if without else 2):
        called = f"{name}(model, text)" if without else f"{name}(model, dictionaries, text)"
        raise InputError(f"{name} was given {len(given)} things beside the model: call {called}")
    named = sites_of(host, site)
    saes = () if without else tuple(_placed(given[0], named, name))
    bare = without or (evaluation.takes == "optional" and not saes)
    sites = _heads(evaluation, host, named) if bare else tuple(dict.fromkeys(s for s, _ in saes))
    check_counts(evaluation, saes, sites)
    needed = [*check_precision(host, allow)]
    for where, sae in saes:
        needed += check_fit(host, where, sae, evaluation, allow)
    drawn = passages_of(given[-1], evaluation, passages, length, text_seed)
    placed = tuple((where, sae.on(host.device)) for where, sae in saes)
    source = provenance(host, placed, sites, drawn, ())
    needed += check_overlap(source, [sae for _, sae in saes], allow)
    allowed = tuple(sorted(set(needed)))
    source = provenance(host, placed, sites, drawn, allowed) if allowed else source
    return Subject(host, placed, sites, drawn, source)


def passages_of(
    text: object, evaluation: Evaluation[Any], count: int | None, length: int | None, seed: int
) -> Passages:
    """The passages of whatever text was given."""
    if any(given is not None and given < 1 for given in (count, length)):
        raise InputError(f"passages {count} of {length} tokens hold no text: give at least 1")
    if isinstance(text, Text):
        tokens = length or evaluation.length
        drawn = text if tokens is None else text.at(tokens)
        return drawn.draw(count or evaluation.passages, seed)
    if isinstance(text, Tensor | np.ndarray):
        array = text.cpu().numpy() if isinstance(text, Tensor) else text
        text = Passages.of(array)
    if not isinstance(text, Passages):
        raise InputError(
            f"{evaluation.name} takes a text last (writesae.text, passages, or token ids [B, T]), not "
            f"{type(text).__name__}"
        )
    if count is not None or length is not None:
        raise InputError("passages were given as they are: leave out passages= and length=, or give a writesae.text")
    return text


def sites_of(host: Host, site: Sites | None) -> tuple[Site, ...]:
    """Heads from their names; "all" stands for every head of the host."""
    if site is None:
        return ()
    many: list[Site | str] = [site] if isinstance(site, Site | str) else list(site)
    if many == ["all"]:
        return tuple(host.sites)
    return tuple(one if isinstance(one, Site) else Site.parse(one) for one in many)


def _heads(evaluation: Evaluation[Any], host: Host, named: tuple[Site, ...]) -> tuple[Site, ...]:
    if evaluation.takes in ("none", "optional"):
        if named:
            raise InputError(f"{evaluation.name} measures every head: leave out the site")
        return ()
    if not named:
        raise InputError(f"{evaluation.name} needs a head: give site (--site), such as {host.sites[0]}")
    for one in named:
        host.check_site(one)
    return named


def _placed(given: object, named: tuple[Site, ...], name: str) -> Iterable[tuple[Site, SAE]]:
    """Every dictionary with its head."""
    if isinstance(given, Mapping):
        pairs: list[tuple[Site | None, object]] = [
            (key if isinstance(key, Site) else Site.parse(str(key)), sae) for key, sae in given.items()
        ]
    else:
        many = [given] if isinstance(given, SAE) else list(given) if isinstance(given, Sequence) else None
        if many is None:
            raise InputError(f"{name} takes dictionaries second (one, several, or by head), not {type(given).__name__}")
        if len(named) > 1:
            raise InputError(f"{len(named)} sites were named for dictionaries: give a mapping from site to dictionary")
        pairs = [(named[0] if named else None, sae) for sae in many]
    for site, sae in pairs:
        if not isinstance(sae, SAE):
            raise InputError(f"{name} takes dictionaries (writesae.SAE), not {type(sae).__name__}")
        own = site or sae.site
        if own is None:
            raise InputError("a dictionary does not know its head: give site (--site), such as L5.H0")
        yield own, sae


def check_counts(evaluation: Evaluation[Any], saes: tuple[tuple[Site, SAE], ...], sites: tuple[Site, ...]) -> None:
    """Raise InputError where there are too few or too many dictionaries, or two of a head."""
    takes, count = evaluation.takes, len(saes)
    if takes in ("one", "heads", "seeds") and count == 0:
        raise InputError(f"{evaluation.name} measures dictionaries: give at least one (--sae)")
    if takes == "seeds" and (count < 2 or len(sites) != 1):
        heads = ", ".join(map(str, sites))
        raise InputError(f"{evaluation.name} compares two or more dictionaries of one head, not {count} of {heads}")
    if takes in ("one", "heads", "optional"):
        most = 2 if evaluation.second else 1
        for site in sites:
            own = sum(where == site for where, _ in saes)
            if own > most:
                raise InputError(f"{own} dictionaries of {site} were given; {evaluation.name} takes {most} of a head")
    if takes == "one" and len(sites) > 1:
        raise InputError(f"{evaluation.name} takes one dictionary, not {count}: measure each by itself (--each)")


def check_precision(host: Host, allow: tuple[Allowance, ...]) -> list[Allowance]:
    """Refuse a host in less than float32, unless that is allowed."""
    if host.exact:
        return []
    if "precision" not in allow:
        dtype = str(host.dtype).removeprefix("torch.")
        raise InputError(
            f"{host.name} runs in {dtype}, whose rounding hides small effects: load it in "
            'float32, or measure it as it is with allow="precision" (--allow precision)'
        )
    return ["precision"]


def check_fit(
    host: Host, site: Site, sae: SAE, evaluation: Evaluation[Any], allow: tuple[Allowance, ...]
) -> list[Allowance]:
    """Refuse a dictionary of another shape; one of another head or host unless that is allowed."""
    layer, config = check_size(host, site, sae), sae.config
    if layer.two_writes and config.target not in evaluation.pairs:
        raise InputError(
            f"{site} ({layer.family}) adds two rank-1 matrices a token: {evaluation.name} takes a "
            f"dictionary of {' or '.join(evaluation.pairs)} there, not one of {config.target}"
        )
    reason = "; ".join(mismatches(host, site, sae))
    if not reason:
        return []
    if "mismatch" not in allow:
        raise InputError(
            f'{reason}: {remedy(host, sae)}, or measure it all the same with allow="mismatch" (--allow mismatch)'
        )
    return ["mismatch"]


def check_overlap(source: Provenance, saes: Sequence[SAE], allow: tuple[Allowance, ...]) -> list[Allowance]:
    """Refuse text that a dictionary was trained on, or may have been and cannot be told, unless that is allowed."""
    worst = max((one.overlap or 0.0 for one in source.dictionaries), default=0.0)
    unknown = [
        one.name for one, sae in zip(source.dictionaries, saes, strict=True)
        if one.overlap is None and sae.record is not None and sae.record.text is not None
    ]  # fmt: skip
    if worst > OVERLAP:
        reason = f"{worst:.1%} of the text was in the training of a dictionary"
    elif unknown and source.text.part.startswith("train"):
        reason = f"the text is of the part for training, and too short to tell whether {unknown[0]} was trained on it"
    else:
        return []
    if "overlap" not in allow:
        raise InputError(
            f"{reason}: evaluate on the other part of the split (writesae.text(...).split(), --part test), or measure "
            'it all the same with allow="overlap" (--allow overlap)'
        )
    return ["overlap"]
