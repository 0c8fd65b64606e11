"""Results -> one self-contained HTML page, or figures. Reads results only; never a model, a store or a dictionary."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from writesae.calls import worded
from writesae.errors import InputError
from writesae.evals.common.result import Result
from writesae.page.find import one_result
from writesae.page.write import report
from writesae.show.document import Plots

__all__ = ["plot", "report"]


@worded
def plot(result: Result[Any, Any] | str | Path) -> Plots:
    """The figures of a result, or of the one result in a folder, the same as on the page.

    Raises InputError for anything else and for a folder with another number of results, DataError for a damaged one.
    """
    if isinstance(result, str | Path):
        return one_result(Path(result)).plot()
    if not isinstance(result, Result):
        raise InputError(f"writesae.plot draws the result of an evaluation, or its folder, not {type(result).__name__}")
    return result.plot()
