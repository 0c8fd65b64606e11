"""What a reproduction runs. Free of torch, so that the command line can show it at once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from writesae.config import at_least, no_repeats, not_empty
from writesae.reproduce.claims import claim, claims
from writesae.reproduce.sizes import SIZES, Sizes
from writesae.types import Site


@dataclass(frozen=True)
class ReproduceConfig:
    """The settings of one reproduction; two runs with equal settings give equal numbers."""

    hosts: tuple[str, ...] = ("tiny-gdn", "tiny-mamba2")
    """Hosts: embedded ones by name, folders, Hub ids; `all` are all embedded ones. A claim
    about one host alone is measured there beside them."""
    claims: tuple[str, ...] = ()
    """Claims by their ids, and all that begin so (`edit` is every edit); all if none is named."""
    quick: bool = False
    """Small dictionaries and few places, for a look in minutes."""
    preset: Literal["default", "published"] = "default"
    """Sizes: ours for a laptop, or those of the paper (Table 8), for a GPU."""
    features: int | None = None
    """Atoms a dictionary; those of the sizes if not said (published: 2,048 in the paper, 16,384 in the release)."""
    corpus: str | None = None
    """Text, where a host has learnt text: `sample` (embedded), a file or folder, or `hf:` with a data set's name; by
    default the embedded one, or the published one with the published sizes."""
    site: str | None = None
    """Head of the dictionaries, like L9.H4; by default the published one with the published sizes on a host that has
    it, else the audit chooses one for each host."""
    workers: int = 2
    """Dictionaries trained at a time. Changes no number."""

    def __post_init__(self) -> None:
        not_empty(self, "hosts")
        no_repeats(self, "hosts", "claims")
        at_least(self, workers=1, features=1)
        for name in self.claims:
            chosen(name)
        if self.site is not None:
            Site.parse(self.site)

    def wanted(self) -> list[str]:
        """The claims by their ids."""
        every = [one.id for one in claims()]
        return list(dict.fromkeys(one for name in self.claims or every for one in chosen(name)))

    @property
    def sizes(self) -> Sizes:
        """How much of everything."""
        sizes = SIZES["quick" if self.quick else self.preset]
        return replace(sizes, features=self.features or sizes.features, corpus=self.corpus or sizes.corpus)


def chosen(name: str) -> list[str]:
    """The claims of a name or of a beginning; raises InputError where there is none."""
    return [one.id for one in claims() if one.id == name or one.id.startswith(f"{name}.")] or [claim(name).id]
