"""Many dictionaries under one root: `HOST/L9.H4/VARIANT[-sSEED]/` folders and one index, `collection.json`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from writesae.artifacts.card import collection_card
from writesae.artifacts.folder import dictionaries_in, read_config, save_sae
from writesae.artifacts.manifest import MANIFEST, NAMES, known, library_version, read_manifest, read_versioned
from writesae.config import Json, to_json
from writesae.disk import LARGE, FileEntry, check_name, files_under, inside, read_json, write_json, write_text
from writesae.errors import DataError, InputError
from writesae.sae import SAE, Record
from writesae.types import Site

INDEX, COLLECTION_CARD, RESULTS = "collection.json", "README.md", "results"
RELEASE = ("LICENSE", "LOAD_EXAMPLE.py", "MODEL_CARD.md", MANIFEST)
"""Files at the root of a release, which is a collection with a list of all its files (docs/formats/sae.md)."""
FORMAT, VERSION = "writesae.collection", (1, 0)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One dictionary of a collection."""

    path: str
    """Its folder, relative to the collection."""
    host: str | None = None
    """Id of the host model."""
    site: Site | None = None
    """The head."""
    variant: str | None = None
    """Name of the composition."""
    seed: int | None = None
    """Seed of the training run."""
    target: str
    """The matrix that it models."""
    features: int
    """Number of atoms."""
    manifest: FileEntry
    """Hash and size of its `manifest.json`, and through it of everything."""

    def __str__(self) -> str:
        parts = [self.host, self.site, self.variant, None if self.seed is None else f"seed {self.seed}"]
        return " ".join(str(part) for part in parts if part is not None)


@dataclass(frozen=True, kw_only=True)
class Collection:
    """The parsed index."""

    format: str = FORMAT
    """Name of the format."""
    version: str = ".".join(map(str, VERSION))
    """Its version, `major.minor`."""
    library: str = field(default_factory=library_version)
    """Version of writesae that wrote it."""
    cells: tuple[Cell, ...]
    """Every dictionary, by path."""
    files: dict[str, FileEntry] = field(default_factory=dict)
    """Other files that belong to it: results."""

    def to_json(self) -> dict[str, Json]:
        """The JSON form of the index."""
        data = to_json(self)
        assert isinstance(data, dict)
        return data | {"cells": [known(to_json(cell)) for cell in self.cells]}


def cell_path(record: Record) -> str:
    """Where a dictionary stands in a collection: `Qwen--Qwen3.5-0.8B/L9.H4/writesae-s42`."""
    host = _slug(record.host or "unknown-host")
    seed = "" if record.seed is None else f"-s{record.seed}"
    return f"{host}/{record.site or 'unknown-site'}/{_slug(record.variant or 'dictionary')}{seed}"


def add_to_collection(sae: SAE, root: str | Path, record: Record, *, replace: bool = False) -> Cell:
    """Save a dictionary as one cell of the collection at `root` and bring its index up to date."""
    path = cell_path(record)
    save_sae(sae, Path(root) / path, record, replace=replace)
    return next(cell for cell in write_index(root).cells if cell.path == path)


def read_collection(root: str | Path) -> Collection:
    """Read the index of a collection; raises DataError where it is damaged or of a newer major version."""
    found = read_versioned(Collection, inside(Path(root), INDEX), FORMAT, VERSION, LARGE)
    for cell in found.cells:
        check_name(cell.path, Path(root), NAMES)
    for name in found.files:
        check_name(name, Path(root))
    if len({cell.path for cell in found.cells}) < len(found.cells):
        raise DataError(f"{Path(root) / INDEX} names a dictionary twice")
    return found


def local_cells(root: Path) -> tuple[Cell, ...]:
    """The dictionaries of a folder: a collection's, one, or those that `train` wrote. Raises InputError for none."""
    if (root / INDEX).exists():
        return read_collection(root).cells
    found = dictionaries_in(root)
    if not found:
        raise InputError(f"{root} holds neither {MANIFEST} (a dictionary) nor {INDEX} (a collection) nor a run")
    return tuple(scan_cell(root, folder) for folder in found)


def write_index(root: str | Path) -> Collection:
    """Scan a folder for dictionaries and results and write its index and card, each in one step."""
    root = Path(root)
    cells = [scan_cell(root, folder) for folder in cell_folders(root)]
    results = [*files_under(root / RESULTS, ".json"), *files_under(root / RESULTS, ".parquet")]
    others = sorted(path for path in [*results, *(root / name for name in RELEASE)] if path.is_file())
    files = {path.relative_to(root).as_posix(): FileEntry.of(path) for path in others}
    collection = Collection(cells=tuple(cells), files=files)
    write_text(root / COLLECTION_CARD, collection_card(collection.to_json(), results_of(root, files)))
    write_json(root / INDEX, collection.to_json())
    return collection


def cell_folders(root: Path) -> list[Path]:
    """The folders below a collection's root that are dictionaries, in order."""
    return [path.parent for path in files_under(root, MANIFEST) if path.name == MANIFEST and path.parent != root]


def results_of(root: Path, names: Iterable[str]) -> dict[str, Json]:
    """Name -> what stands in it, of the JSON files among a collection's results."""
    shown = [name for name in names if name.startswith(f"{RESULTS}/") and name.endswith(".json")]
    return {name: read_json(inside(root, name), LARGE) for name in shown}


@dataclass(frozen=True)
class Choice:
    """Which dictionary of several is meant; what is None says nothing."""

    host: str | None = None
    site: Site | str | None = None
    """A head, or how it is written: `L9.H4`."""
    variant: str | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        if isinstance(self.site, str):
            object.__setattr__(self, "site", Site.parse(self.site))

    @property
    def asked(self) -> dict[str, object]:
        """What is said, by name."""
        return {name: value for name, value in vars(self).items() if value is not None}

    def fits(self, one: Cell | Record) -> bool:
        """Whether a dictionary is meant."""
        return all(getattr(one, name) == value for name, value in self.asked.items())

    def of(self, cells: Iterable[Cell], name: str) -> Cell:
        """The one that is meant; raises InputError listing the choices where none or several are."""
        cells = list(cells)
        found = [cell for cell in cells if self.fits(cell)]
        if len(found) == 1:
            return found[0]
        told = " ".join(f"{key}={value}" for key, value in self.asked.items()) or "no choice"
        shown = "; ".join(str(cell) for cell in (found or cells)[:12]) + (" .." if len(found or cells) > 12 else "")
        problem = "fits several dictionaries" if found else "fits no dictionary"
        raise InputError(f"{told} {problem} of {name}; choose one by site, variant, host or seed: {shown}")

    def check(self, record: Record, name: str) -> None:
        """Raise InputError where a single dictionary is not the one that is meant."""
        for what, asked in self.asked.items():
            if (found := getattr(record, what)) != asked:
                raise InputError(f"{name} was asked for {what} {asked}, but holds {'none' if found is None else found}")


def scan_cell(root: Path, folder: Path) -> Cell:
    """The index entry of a dictionary folder under `root`."""
    name = folder.relative_to(root).as_posix()
    record, config = read_manifest(folder).record, read_config(folder)
    return Cell(
        path=name,
        manifest=FileEntry.of(inside(folder, MANIFEST)),
        target=config.target,
        features=config.features,
        host=record.host,
        site=record.site,
        variant=record.variant,
        seed=record.seed,
    )


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text.replace("/", "--")).strip(".-") or "unnamed"
