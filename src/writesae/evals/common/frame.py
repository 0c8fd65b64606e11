"""Run one evaluation: keep its pieces, check where they belong, summarise, save."""

from __future__ import annotations

import shutil
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import torch

from writesae.config import to_json
from writesae.disk import alone, claim
from writesae.errors import DataError, InputError
from writesae.evals.common.evaluation import Evaluation, Progress
from writesae.evals.common.pieces import Keep
from writesae.evals.common.result import PARTS, SUMMARY, Result, plain, refuse_other
from writesae.evals.common.share import known_shares
from writesae.evals.common.subject import Subject

C = TypeVar("C")


@torch.no_grad()
def evaluate(
    evaluation: Evaluation[C], subject: Subject, config: C, out: str | Path | None, progress: Progress | None
) -> Result[C, Any]:
    """Measure and summarise. With a folder `out`, go on there where it was stopped, and save the result in it; one
    that is finished is read.

    Raises InputError where there is nothing to score, and leaves no folder then; OutputError for a folder of another
    evaluation, or where another process is at work in it.
    """
    if out is None:
        return _measured(evaluation, subject, config, Keep(None, progress))
    folder = Path(out)
    refuse_other(folder, evaluation.name)
    begun = folder.exists()
    asked = {"name": evaluation.name} | {
        name: plain(to_json(x)) for name, x in (("provenance", subject.provenance), ("config", config))
    }
    try:
        with alone(folder):
            if claim(folder / PARTS, "evaluation", asked) and (folder / SUMMARY).exists():
                return Result.load(folder)
            result = _measured(evaluation, subject, config, Keep(folder / PARTS, progress))
            result.save(folder)
            return result
    except InputError:
        if not begun:
            shutil.rmtree(folder)
        raise


def _measured(evaluation: Evaluation[C], subject: Subject, config: C, keep: Keep) -> Result[C, Any]:
    measured = evaluation.measure(subject, config, keep)
    for name, table in {"records": measured.records, **measured.more}.items():
        _check_finite(evaluation, name, table)
    summary = evaluation.summarise({"records": measured.records, **measured.more}, config)
    known = measured.shares or (known_shares(subject, measured.records) if evaluation.causal else {})
    return Result(
        evaluation.name, subject.provenance, config, measured.attempted, dict(measured.refused), summary,
        measured.records, measured.more, known,
    )  # fmt: skip


def _check_finite(evaluation: Evaluation[Any], name: str, table: pd.DataFrame) -> None:
    """Raise DataError for a number of a table that is infinite, or NaN where its column does not say when it is."""
    declared = evaluation.columns[name]
    for column in table.select_dtypes("float"):
        told = next(text for known, text in declared.items() if fnmatch(str(column), known.replace("?", "")))
        bad = np.isinf(table[column]) | (np.isnan(table[column]) & ("NaN" not in told))
        if bad.any():
            row = table[bad].iloc[0]
            where = ", ".join(f"{key} {row[key]}" for key in ("passage", "position", "feature") if key in row)
            raise DataError(f"{evaluation.name}: {column} is {row[column]}{f' at {where}' * bool(where)}: not saved")
