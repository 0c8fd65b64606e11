"""Results -> one self-contained HTML page, or figures. Reads results only; never a model, a store or a dictionary."""

from __future__ import annotations

from typing import TYPE_CHECKING

from writesae.page.render import write_report

if TYPE_CHECKING:
    from writesae.page.notebook import Plots, plot

__all__ = ["Plots", "plot", "write_report"]


def __getattr__(name: str) -> object:
    """`plot` knows the results of evaluations, and so loads torch; the page does not."""
    if name in ("Plots", "plot"):
        import writesae.page.notebook

        return getattr(writesae.page.notebook, name)
    raise AttributeError(f"module 'writesae.page' has no attribute {name!r}")
