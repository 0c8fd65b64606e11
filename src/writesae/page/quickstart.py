"""A quickstart's folder: what only such a run has (training, portraits of atoms), and its results as evaluations."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from writesae.errors import DataError, InputError
from writesae.page.measured import Measured, Source
from writesae.page.sections.substitution import Outcome
from writesae.page.structure import converter, read_json, read_table, structure


@dataclass(frozen=True)
class HostRecord:
    """The model that was recorded."""

    name: str
    revision: str = "not recorded"


@dataclass(frozen=True)
class Substitution(Outcome):
    """The result under the main protocol, and beside it the result under each protocol."""

    protocol: str = "after_token"
    by_protocol: dict[str, Outcome] = field(default_factory=dict)

    def outcomes(self) -> dict[str, Outcome]:
        """Every protocol's outcome, the main one first."""
        return {self.protocol: self} | {k: v for k, v in self.by_protocol.items() if k != self.protocol}


@dataclass(frozen=True)
class Summary:
    """summary.json"""

    host: HostRecord
    site: str
    tokens: int
    """Training tokens captured."""
    features: int
    k: int
    alive: dict[str, int]
    explained_variance: dict[str, float | None]
    substitution: dict[str, Substitution]
    protocol: dict[str, object] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    seed: int | None = None
    versions: dict[str, str] = field(default_factory=dict)
    hashes: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class HistoryRow:
    """One record of train/<target>/history.jsonl."""

    step: int
    tokens: int
    loss: float | None
    explained_variance: float | None
    """On the training batch."""
    alive: int | None
    held_out: float | None = None
    """Explained variance on held-out sequences, where this step measured it."""


@dataclass(frozen=True)
class Context:
    """A firing in real text."""

    before: str
    token: str
    after: str
    coefficient: float


@dataclass(frozen=True)
class ScoredToken:
    """A vocabulary token and how much the atom moves its logit."""

    token: str
    score: float


@dataclass(frozen=True)
class AtomKL:
    """Median KLs over one atom's scored firings; None where none was scored."""

    atom: float | None = None
    delete: float | None = None
    random: float | None = None


@dataclass(frozen=True)
class Atom:
    """One entry of atoms/<target>.json: a dictionary atom `v w^T` as it fires on held-out text."""

    feature: int
    firings: int
    frequency: float
    """Firings a token."""
    mean_coefficient: float
    cosine: float | None
    """Median cosine between the atom and the native write at its firings."""
    v: list[float]
    """Key side [K]."""
    w: list[float]
    """Value side [V]."""
    contexts: list[Context]
    kl: AtomKL = field(default_factory=AtomKL)
    win_rate: float | None = None
    scored: int | None = None
    """Firings behind `cosine`, `kl` and `win_rate`."""
    promotes: list[ScoredToken] = field(default_factory=list)
    suppresses: list[ScoredToken] = field(default_factory=list)


@dataclass(frozen=True)
class TargetRun:
    """What a run knows about the dictionary of one target (`state` or `write`), beside its evaluation."""

    name: str
    substitution: Substitution
    history: list[HistoryRow]
    atoms: list[Atom]


@dataclass(frozen=True)
class Run:
    """A finished run, read from its folder."""

    summary: Summary
    targets: list[TargetRun]
    """In the order of the summary."""
    results: list[Measured]
    """Its evaluations: substitution of each dictionary, and the spectrum."""


def _host(value: object, _: type) -> HostRecord:
    if isinstance(value, str):
        return HostRecord(value)
    if isinstance(value, dict) and isinstance(value.get("name"), str):
        return HostRecord(value["name"], str(value.get("revision") or HostRecord.revision))
    raise TypeError(f"{value!r} is neither a host's name nor an object with a name")


converter.register_structure_hook(HostRecord, _host)


def load_run(folder: Path, data: Mapping[str, object]) -> Run:
    """Read every file of a finished run, whose summary.json is `data`.

    Raises InputError where one is missing, DataError where one cannot be understood.
    """
    summary = structure(Summary, dict(data), str(folder / "summary.json"))
    if not summary.substitution:
        raise DataError(f"{folder / 'summary.json'} names no target under 'substitution': there is nothing to report")
    targets = [_target(folder, summary, name) for name in summary.substitution]
    results = [_substitution(folder, summary, name) for name in summary.substitution]
    return Run(summary, targets, [*results, _spectrum(folder, summary)])


def _target(folder: Path, summary: Summary, name: str) -> TargetRun:
    history = _find(folder, f"train/{name}/history.jsonl")
    try:
        lines = history.read_text(encoding="utf-8", errors="replace").splitlines()
        rows = [json.loads(line, parse_constant=lambda _: None) for line in lines if line.strip()]
    except ValueError as error:
        raise DataError(f"cannot read {history} as JSON lines: {error}") from None
    atoms = _find(folder, f"atoms/{name}.json")
    return TargetRun(
        name,
        summary.substitution[name],
        structure(list[HistoryRow], rows, str(history)),
        structure(list[Atom], read_json(atoms), str(atoms)),
    )


def _substitution(folder: Path, summary: Summary, name: str) -> Measured:
    """A target's substitution test in the form of every evaluation."""
    path = _find(folder, f"substitution/{name}.parquet")
    main, hashes = summary.substitution[name], summary.hashes.get("sae")
    sae = hashes.get(name) if isinstance(hashes, Mapping) else None
    given = _json_of(folder, name)
    return _measured(
        summary,
        "substitution",
        f"{name.capitalize()} dictionary",
        path,
        sae,
        main.attempted,
        main.n,
        main.refused,
        given,
    )


def _json_of(folder: Path, name: str) -> object:
    """Timing -> outcome, as the run's summary has it."""
    data = read_json(folder / "summary.json")
    assert isinstance(data, dict)
    main = data["substitution"][name]
    return {main.get("protocol", Substitution.protocol): main} | main.get("by_protocol", {})


def _spectrum(folder: Path, summary: Summary) -> Measured:
    path = _find(folder, "spectrum.parquet")
    heads = len(read_table(path))
    return _measured(summary, "spectrum", "Every head", path, None, heads, heads, {}, {"default_site": summary.site})


def _measured(
    summary: Summary,
    name: str,
    place: str,
    path: Path,
    sae: object,
    attempted: int,
    n: int,
    refused: Mapping[str, int],
    given: object,
) -> Measured:
    host, site = summary.host, "all" if name == "spectrum" else summary.site
    source = Source(host.name, host.revision, site, () if sae is None else (str(sae),), "")
    corpus = {"training_corpus": str(summary.hashes["corpus"])} if "corpus" in summary.hashes else {}
    provenance = {key: value for key, value in vars(source).items() if value} | corpus
    seed = {} if summary.seed is None else {"seed": summary.seed}
    config = (summary.protocol if name == "substitution" else {}) | seed
    found = Measured(name, place, str(path), source, provenance, config, attempted, n, refused, given)
    return found.filled(read_table(path), {})


def _find(folder: Path, name: str) -> Path:
    path = folder / name
    if not path.is_file():
        raise InputError(
            f"cannot report on {folder}: it has no {name}; "
            f"a finished run has it, so finish this one with `writesae quickstart --out {folder}`"
        )
    return path
