"""Registers and bundles: which atoms look like the writes they fire on (paper section 3.1).

An atom's cosine is the median over its firings of its cosine to the native write. Two Gaussians are fitted to the
cosines of the alive atoms; atoms above the point where they cross are registers, the others bundles.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from writesae.errors import InputError
from writesae.evals.common.cells import Column
from writesae.evals.common.stats import two_gaussians
from writesae.show import words
from writesae.types import NativeWrite

CLASSES = ("register", "bundle")
COLOURS = {"register": "state", "bundle": "write"}
FEWEST = 4
"""Alive atoms that a mixture needs."""


def portraits(fired: pd.DataFrame, features: int, k: int, native_writes: Sequence[NativeWrite]) -> pd.DataFrame:
    """One row a feature and form of the write: firings, median cosine, mean coefficient. `k` names the selection of
    firings that `fired` holds (0: all)."""
    by = fired.groupby("feature")
    tables = []
    for form in native_writes:
        cosine = by[f"cosine_{form}"].median()
        table = pd.DataFrame({"firings": by.size(), "cosine": cosine, "coefficient": by.coefficient.mean()})
        table = table.reindex(range(features)).rename_axis("feature").reset_index()
        tables.append(table.assign(firings=table.firings.fillna(0).astype(int), k=k, native_write=form))
    return pd.concat(tables, ignore_index=True)


def labels(table: pd.DataFrame, minimum: int, seed: int) -> dict[int, str]:
    """Feature -> "register" or "bundle", for those of a portrait table of one form that fire at least `minimum` times.

    Raises InputError where these are too few to tell two classes apart.
    """
    used = table[table.firings >= minimum]
    if len(used) < FEWEST:
        raise InputError(
            f"only {len(used)} of {len(table)} features fire at least {minimum} times: registers and bundles can be "
            f"told apart from {FEWEST} on; pass more text or a lower minimum"
        )
    register = used.cosine >= two_gaussians(used.cosine.to_numpy(), seed).cut
    return {int(f): "register" if high else "bundle" for f, high in zip(used.feature, register, strict=True)}


@dataclass(frozen=True)
class Classes:
    """One partition."""

    alive: Annotated[int, Column("features that fire", words.count)]
    register: Annotated[int, Column("registers", words.count)]
    bundle: Annotated[int, Column("bundles", words.count)]
    register_median: Annotated[float, Column("register cosine", words.quantity)]
    """Median over the registers of their cosine."""
    bundle_median: Annotated[float, Column("bundle cosine", words.quantity)]
    cut: Annotated[float, Column("cut", words.quantity)]
    """The cosine from which on an atom is a register."""
    delta_bic: Annotated[float, Column("\u0394BIC", lambda bic: words.signed(bic, 0))]
    """BIC of two Gaussians minus BIC of one: negative where two are better."""


def classes(cosine: NDArray[np.float64], seed: int) -> Classes | None:
    """The partition of some atoms by their cosines; None where they are too few."""
    if cosine.size < FEWEST:
        return None
    found = two_gaussians(cosine, seed)
    upper = cosine >= found.cut
    high, low = (float(np.median(cosine[m])) if m.any() else float("nan") for m in (upper, ~upper))
    return Classes(cosine.size, int(upper.sum()), int((~upper).sum()), high, low, found.cut, found.delta_bic)


def refusals(firings: Sequence[int], minimum: int) -> list[str]:
    """Why each feature is not classed, by its number of firings; empty where it is."""
    return ["never fires" if n == 0 else f"fewer than {minimum} firings" if n < minimum else "" for n in firings]
