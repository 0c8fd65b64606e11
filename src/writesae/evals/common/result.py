"""The form of every result: what was asked, on what, how many were refused and why, a summary, and its records.

The summary is a function of the records and the config alone, so anybody can compute it again from the Parquet files.
Everything that is said of a result, in a terminal, a notebook, on the page or in the docs, is said by its evaluation's
`finding` and `panel`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field, is_dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

import numpy as np
import pandas as pd

from writesae.config import Json, from_json, from_plain, to_json
from writesae.disk import FileEntry, check_owner, inside, make_folder, read_json, read_table, whole, write_json, writing
from writesae.errors import DataError, InputError, OutputError
from writesae.evals.common.provenance import Provenance
from writesae.show import words
from writesae.show.document import Plots, Shown

if TYPE_CHECKING:
    from writesae.evals.common.evaluation import Evaluation
    from writesae.show.parts import Panel

SUMMARY = "summary.json"
PARTS = "parts"
"""Folder of finished pieces inside a result's."""
FORMAT, VERSION = "writesae.result", 4
"""Of the summary."""
OLDER = (2, 3)
"""Versions whose records are the same (those of 2 have no readings)."""

C = TypeVar("C")
S = TypeVar("S")


@dataclass(frozen=True)
class Result(Generic[C, S]):
    """One finished evaluation with configuration `C` and summary `S`."""

    name: str
    provenance: Provenance
    config: C
    attempted: int
    """Items that were looked at (firings, features or cells): `attempted = n + sum(refused)`."""
    refused: dict[str, int]
    """Reason -> how many items were not scored for it."""
    summary: S
    records: pd.DataFrame = field(repr=False)
    """One row an item, or several."""
    more: Mapping[str, pd.DataFrame] = field(default_factory=dict, repr=False)
    """Further tables that the summary needs."""
    shares: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Where something was edited: head -> form of the native write -> its norm over that of the state after it, the
    median over tokens of the passages, or over the firings that were scored."""

    @property
    def n(self) -> int:
        """Items that were scored."""
        return self.attempted - sum(self.refused.values())

    @property
    def tables(self) -> dict[str, pd.DataFrame]:
        """`records` and the further tables, by name."""
        return {"records": self.records, **self.more}

    @property
    def evaluation(self) -> Evaluation[C]:
        """The evaluation that this is a result of."""
        from writesae.evals import named  # the entries stand above what they share

        return named(self.name)

    @cached_property
    def finding(self) -> str:
        """What was found, in one or two sentences with their numbers."""
        return self.evaluation.finding(self)

    @cached_property
    def panel(self) -> Panel:
        """Figures, table and note."""
        return self.evaluation.panel(self)

    def __str__(self) -> str:
        """The finding, the columns of the table that go with it, and what was scored."""
        table = self.panel.table.text() if self.panel.table.brief else []
        return "\n".join([f"{self.name}: {words.plain_spaces(self.finding)}", *table, " | ".join(self.facts())])

    def facts(self) -> list[str]:
        """What it was measured on, each in a few words."""
        p = self.provenance
        dictionaries = [f"{one.name} ({words.brief(one.sha256)})" for one in p.dictionaries] or ["no dictionary"]
        text = f"{p.text.passages} passages of {p.text.length} tokens, {p.text.corpus}, {p.text.part}"
        refused = "".join(f"; refused: {words.count(n)} {reason}" for reason, n in self.refused.items())
        facts = [f"{p.host}, {p.dtype}", p.site, *dictionaries, text]
        if len(self.shares) == 1:
            ((site, own),) = self.shares.items()
            facts += [f"{words.percent(x)} of the state of {site} is its {form} write" for form, x in own.items()]
        seed = getattr(self.config, "seed", None)
        facts += [] if seed is None else [f"seed {seed}"]
        facts += [f"overlap with the training of {one.name} unknown" for one in p.dictionaries if one.overlap is None]
        facts += [f"overruled: {', '.join(p.allowed)}"] if p.allowed else []
        return [*facts, f"{words.count(self.n)} of {words.count(self.attempted)} scored{refused}"]

    def shown(self, key: str = "result", place: str = "") -> Shown:
        """The result as a page draws it; `place` says where it was found."""
        ledger = {
            "Protocol": words.flat(_mapping(plain(to_json(self.config)))),
            "Provenance": words.flat(_mapping(plain(to_json(self.provenance)))),
        }
        return Shown(key, place, self.finding, self.panel, tuple(self.facts()), ledger)

    def plot(self) -> Plots:
        """The figures, by name; in a notebook the finding, figures and table as the page shows them."""
        return Plots(self.evaluation.title, self.shown())

    def _repr_html_(self) -> str:
        return self.plot()._repr_html_()

    def to_json(self) -> dict[str, Json]:
        """Everything but the records."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "name": self.name,
            "provenance": plain(to_json(self.provenance)),
            "config": plain(to_json(self.config)),
            "attempted": self.attempted,
            "n": self.n,
            "refused": plain(self.refused),
            "finding": self.finding,
            "table": {"head": list(self.panel.table.head), "rows": [list(row) for row in self.panel.table.rows]},
            "facts": list(self.facts()),
            "shares": plain(self.shares),
            "summary": plain(self.summary),
        }

    def save(self, folder: str | Path) -> Path:
        """Write `records.parquet` (and `NAME.parquet` of further tables), then `summary.json`, each at once.

        The summary lists the tables with size and SHA-256; it is taken away first where it would speak of others.
        """
        place = Path(folder)
        refuse_other(place, self.name)
        make_folder(place / PARTS)  # says whose the folder is until the summary does, so that this can be done again
        with ExitStack() as appear:
            files = dict[str, FileEntry]()
            for name, table in self.tables.items():
                file = f"{name}.parquet"
                partial = appear.enter_context(whole(place / file))
                with writing(place / file):
                    table.to_parquet(partial, index=False)
                files[file] = FileEntry.of(partial)
            if any(entry.problem(place / file) for file, entry in files.items()):
                (place / SUMMARY).unlink(missing_ok=True)
        write_json(place / SUMMARY, {**self.to_json(), "files": to_json(files)})
        with suppress(OSError):  # it holds the pieces of a run
            (place / PARTS).rmdir()
        return place

    @classmethod
    def load(cls, folder: str | Path, anew: bool = False) -> Result[Any, Any]:
        """Read a result folder; raises DataError where it is not a whole one, or of an older form. The summary is
        computed from the records where it is asked for `anew`, whatever the file says."""
        from writesae.evals import named

        place = Path(folder)
        data = read_json(place / SUMMARY)
        file = place / SUMMARY
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise DataError(f"{file} is not the summary of an evaluation of this version: run the evaluation again")
        if data.get("version") not in ((*OLDER, VERSION) if anew else (VERSION,)):
            older = data.get("version") in OLDER
            hint = f": compute it from its records (writesae report {place} --recompute)" if older else ""
            raise DataError(f"{file} has version {data.get('version')}; this writesae reads {VERSION}{hint}")
        try:
            evaluation = named(str(data.get("name")))
            known = ("provenance", "attempted", "n", "refused", "shares", "files")
            header = from_plain(_Header, {k: data[k] for k in known if k in data})
            config: object = from_json(evaluation.config, data.get("config"))
            summary: object = None if anew else from_plain(evaluation.summary, data.get("summary"))
        except InputError as error:
            raise DataError(f"cannot understand {file}: {error}") from None
        if header.attempted != header.n + sum(header.refused.values()):
            raise DataError(
                f"{file} is damaged: {header.attempted} attempted, {header.n} scored, {header.refused} refused"
            )
        own = "state" if any(one.target == "state" for one in header.provenance.dictionaries) else "write"
        added = {"reading": own} if data.get("version") == 2 else {}  # that version read states as published
        if added and hasattr(config, "readings"):
            config = replace(cast(Any, config), readings=("state",))
        for name, entry in header.files.items():
            if problem := entry.problem(inside(place, name)):
                raise DataError(f"{place / name} {problem}: it is not what {SUMMARY} lists")
        tables = {
            name: _table(place / f"{name}.parquet", columns, added) for name, columns in evaluation.columns.items()
        }
        if anew:
            try:
                summary = evaluation.summarise(tables, config)
            except KeyError as error:
                raise DataError(f"{file}: its tables do not fit its config, {error} is missing") from error
        records = tables.pop("records")
        about = (evaluation.name, header.provenance, config, header.attempted, header.refused)
        return Result(*about, summary, records, tables, header.shares)


@dataclass(frozen=True)
class _Header:
    """What a summary file says beside config and summary."""

    provenance: Provenance
    attempted: int
    n: int
    refused: dict[str, int]
    shares: dict[str, dict[str, float]] = field(default_factory=dict)
    files: dict[str, FileEntry] = field(default_factory=dict)
    """Results that were written before tables were listed have none."""


def _table(path: Path, columns: Mapping[str, str], added: Mapping[str, str]) -> pd.DataFrame:
    """A table with its columns; those that are `added` have one value where the file has none."""
    table = read_table(path)
    table = table.assign(**{name: x for name, x in added.items() if name in columns and name not in table.columns})
    missing = [name for name in columns if not name.endswith(("*", "?")) and name not in table.columns]
    if missing:
        raise DataError(f"{path} has no column {', '.join(missing)}; it has {', '.join(map(str, table.columns))}")
    return table


def _mapping(data: Json) -> dict[str, object]:
    assert isinstance(data, dict)
    return dict(data)


def refuse_other(folder: Path, name: str) -> None:
    """Raise OutputError where a folder holds the result of something else, or cannot hold one."""
    if check_owner(folder, "result", SUMMARY, PARTS) and (folder / SUMMARY).exists():
        about = read_json(folder / SUMMARY)
        found = about.get("name") if isinstance(about, dict) else None
        if found != name:
            raise OutputError(f"{folder} holds the result of {found or 'something else'}: give a new folder for {name}")


def plain(x: object) -> Json:
    """JSON of nested dataclasses, dicts, lists, tuples and numbers; NaN and infinities become null."""
    if is_dataclass(x) and not isinstance(x, type):
        return plain(asdict(x))
    if isinstance(x, Mapping):
        return {str(key): plain(value) for key, value in x.items()}
    if isinstance(x, list | tuple):
        return [plain(value) for value in x]
    if isinstance(x, np.generic):
        return plain(x.item())
    if isinstance(x, float):
        return x if math.isfinite(x) else None
    if x is None or isinstance(x, bool | int | str):
        return x
    return str(x)


def count(reasons: Iterable[str]) -> dict[str, int]:
    """Reason -> how often, without the empty reason."""
    return {reason: n for reason, n in Counter(reasons).items() if reason}
