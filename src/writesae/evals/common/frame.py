"""Run one evaluation: keep its pieces, check where they belong, summarise, save."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, TypeVar

import torch

from writesae.config import to_json
from writesae.disk import claim
from writesae.errors import InputError
from writesae.evals.common.evaluation import Evaluation, Progress
from writesae.evals.common.pieces import Keep
from writesae.evals.common.result import PARTS, SUMMARY, Result, plain, refuse_other
from writesae.evals.common.subject import Subject

C = TypeVar("C")


@torch.no_grad()
def evaluate(
    evaluation: Evaluation[C], subject: Subject, config: C, out: str | Path | None, progress: Progress | None
) -> Result[C, Any]:
    """Measure and summarise. With a folder `out`, go on there where it was stopped, and save the result in it; one
    that is finished is read.

    Raises InputError where there is nothing to score, and leaves no folder then; OutputError for a folder of another
    evaluation.
    """
    folder = None if out is None else Path(out)
    keep, begun = Keep(None, progress), False
    if folder is not None:
        refuse_other(folder, evaluation.name)
        begun = folder.exists()
        asked = {
            "name": evaluation.name,
            "provenance": plain(to_json(subject.provenance)),
            "config": plain(to_json(config)),
        }
        finished = claim(folder / PARTS, "evaluation", asked) and (folder / SUMMARY).exists()
        if finished:
            return Result.load(folder)
        keep.folder = folder / PARTS
    try:
        measured = evaluation.measure(subject, config, keep)
    except InputError:
        if folder is not None and not begun:
            shutil.rmtree(folder)
        raise
    tables = {"records": measured.records, **measured.more}
    summary = evaluation.summarise(tables, config)
    result: Result[C, Any] = Result(
        evaluation.name, subject.provenance, config, measured.attempted, dict(measured.refused), summary,
        measured.records, measured.more,
    )  # fmt: skip
    if folder is not None:
        result.save(folder)
    return result
