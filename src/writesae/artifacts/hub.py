"""Dictionaries on the Hugging Face Hub: fetch one, download many, upload. Only JSON and safetensors are fetched.

The one file that talks to the Hub. A repository holds one dictionary (its files at the root) or a collection.
"""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants, hf_hub_download
from huggingface_hub.errors import (  # type: ignore[attr-defined] # HTTPError is its HTTP client's own
    EntryNotFoundError,
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
)

from writesae.artifacts.card import collection_card
from writesae.artifacts.collection import (
    COLLECTION_CARD,
    INDEX,
    Cell,
    Choice,
    Collection,
    cell_path,
    local_cells,
    read_collection,
    results_of,
    scan_cell,
    write_index,
)
from writesae.artifacts.folder import CONFIG, content, dictionaries_in, save_sae
from writesae.artifacts.manifest import MANIFEST, check_files, read_manifest
from writesae.artifacts.shipped import place_of
from writesae.artifacts.verify import verify
from writesae.calls import worded
from writesae.disk import check_there, inside, json_bytes, missing, new_folder
from writesae.errors import DataError, InputError, OutputError
from writesae.hub import Answer, ask
from writesae.sae import SAE, Record
from writesae.types import Site

CommitOperation = CommitOperationAdd | CommitOperationDelete
_FETCHED = (".json", ".safetensors")
_BESIDE = (".json", ".parquet", ".md", "LOAD_EXAMPLE.py", "LICENSE")
"""What is fetched of a collection beside its dictionaries, as its index lists it; none of it is run."""


class Repository:
    """One revision of a Hub repository, read through the local cache."""

    def __init__(self, repo: str, revision: str | None, cache_dir: str | Path | None, offline: bool) -> None:
        self.repo, self.cache_dir, self.revision = repo, cache_dir, revision
        self.collection: Collection | None = None
        answer = Answer(False) if offline else ask(repo, INDEX, revision)
        self.offline, self.silent = offline or bool(answer.silent), answer.silent
        with self._readable_errors():
            try:
                index = self._download(INDEX) if self.offline or answer.there else None
            except LocalEntryNotFoundError:  # a single dictionary may be in the cache
                index = None
            first = index or self._download(MANIFEST)
        self.root = first.parent
        self.revision = first.parent.name
        if index is not None:
            self.collection = read_collection(self.root)

    def fetch(self, name: str, kinds: tuple[str, ...] = _FETCHED) -> Path:
        """One JSON or safetensors file; raises DataError for any other kind of file."""
        if not name.endswith(kinds):
            raise DataError(f"{self.repo}: only {', '.join(kinds)} files are fetched here, not {name!r}")
        with self._readable_errors():
            self._download(name)
        return inside(self.root, name)

    def fetch_folder(self, path: str) -> Path:
        """The files of one dictionary; returns its folder in the cache."""
        prefix = f"{path}/" if path else ""
        self.fetch(prefix + MANIFEST)
        folder = self.root / path if path else self.root
        for name in content(read_manifest(folder)):
            self.fetch(prefix + name)
        return folder

    def fetch_cell(self, cell: Cell) -> Path:
        """The files of one dictionary of a collection, as its index says; returns its folder in the cache."""
        folder = self.fetch_folder(cell.path)
        check_files(self.root, {f"{cell.path}/{MANIFEST}": cell.manifest})
        return folder

    def _download(self, name: str) -> Path:
        path = hf_hub_download(
            self.repo, name, revision=self.revision, cache_dir=self.cache_dir, local_files_only=self.offline
        )
        return Path(str(path))

    @contextmanager
    def _readable_errors(self) -> Iterator[None]:
        try:
            yield
        except LocalEntryNotFoundError as error:
            raise InputError(self._unreachable(error)) from None
        except EntryNotFoundError:
            raise InputError(
                f"the repository {self.repo} holds neither {INDEX} nor {MANIFEST}, or lacks a file that they list; "
                "checkpoints (.pt) are never fetched: download them yourself and use `writesae convert`"
            ) from None
        except (HTTPError, OSError) as error:
            raise InputError(self._unreachable(error)) from None

    def _unreachable(self, error: Exception) -> str:
        reason = self.silent or " ".join(str(error).split())[:160] or type(error).__name__
        return (
            f"cannot fetch {self.repo} from the Hub, and it is not in the cache at {cache_folder(self.cache_dir)} "
            f"({reason}); fetch it once while connected, then use the cache alone with --offline (or HF_HUB_OFFLINE=1)"
        )


def fetch_cell(repo: str, choice: Choice, revision: str | None, cache_dir: str | Path | None, offline: bool) -> Path:
    """Fetch one dictionary of a repository and return its folder in the cache. Errors as in `load_sae`."""
    source = Repository(repo, revision, cache_dir, offline)
    if source.collection is None:
        folder = source.fetch_folder("")
        choice.check(read_manifest(folder).record, repo)
        return folder
    return source.fetch_cell(choice.of(source.collection.cells, repo))


def list_cells(
    source: str | Path, *, revision: str | None = None, cache_dir: str | Path | None = None, offline: bool = False
) -> tuple[Cell, ...]:
    """The dictionaries of a folder or of a Hub repository, or the one of a name that ships with the package."""
    path = place_of(source)
    check_there(path, hub=True)
    if path.exists():
        return local_cells(path)
    try:
        repository = Repository(str(source), revision, cache_dir, offline)
    except InputError as error:
        raise InputError(f"{missing(Path(source), 'folder')}, and as a Hub id: {error}") from None
    if repository.collection is not None:
        return repository.collection.cells
    repository.fetch(CONFIG)
    return (scan_cell(repository.root, repository.root),)


def pull(
    repo: str,
    out: str | Path,
    *,
    site: Site | str | None = None,
    variant: str | None = None,
    host: str | None = None,
    seed: int | None = None,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    offline: bool = False,
) -> tuple[Cell, ...]:
    """Download dictionaries into a new folder, verified: a whole collection, or the ones that the choice fits.

    Raises InputError where nothing fits, DataError where a file differs from its manifest (nothing is left behind).
    """
    choice = Choice(host, site, variant, seed)
    with new_folder(Path(out)) as partial:  # what is wrong with `out` is known before the Hub is asked
        source = Repository(repo, revision, cache_dir, offline)
        if source.collection is None:
            folder = source.fetch_folder("")
            choice.check(read_manifest(folder).record, repo)
            _copy(folder, partial)
            return (scan_cell(partial, partial),)
        cells = [cell for cell in source.collection.cells if choice.fits(cell)]
        for cell in cells or [choice.of(source.collection.cells, repo)]:
            _copy(source.fetch_cell(cell), partial / cell.path)
        for name, entry in () if choice.asked else source.collection.files.items():
            source.fetch(name, _BESIDE)
            check_files(source.root, {name: entry})
            (partial / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source.root / name, partial / name)
        return write_index(partial).cells


def _copy(folder: Path, target: Path) -> None:
    manifest = read_manifest(folder)
    check_files(folder, {name: manifest.files[name] for name in content(manifest)})
    target.mkdir(parents=True, exist_ok=True)
    for name in (*content(manifest), MANIFEST):
        shutil.copyfile(folder / name, target / name)


def push(
    source: str | Path,
    repo: str,
    *,
    private: bool = False,
    revision: str | None = None,
    message: str | None = None,
    as_cell: bool = False,
) -> str:
    """Upload a dictionary folder, a collection or what `train` wrote, verified first; returns the commit's address.

    Cells are added to a collection that is already there, and its index is updated in the same commit. A single
    dictionary becomes a cell where the repository holds others or `as_cell` asks for one; one that stands alone at the
    repository's root moves to its place in the collection then. Raises DataError where the source is damaged,
    OutputError where the Hub refuses.
    """
    source = Path(source)
    check_there(source)
    local = read_collection(source) if (source / INDEX).exists() else None
    folders = [source] if local is not None else dictionaries_in(source)
    if found := [finding for folder in folders for finding in verify(folder).findings]:
        raise DataError(f"{source} is not uploaded: {found[0]}")
    if not folders:
        raise InputError(f"{source} is neither a dictionary nor a collection, nor a run that made one")
    cells = local.cells if local is not None else _as_cells(folders)
    api = HfApi()
    with _writable_errors(repo):
        api.create_repo(repo, private=private or None, exist_ok=True)
        parent = api.repo_info(repo, revision=revision).sha
        there = any(api.file_exists(repo, name, revision=parent) for name in (INDEX, MANIFEST))
    remote = Repository(repo, parent, None, False) if there else None
    places = dict(zip(cells, folders if local is None else [source / cell.path for cell in cells], strict=True))
    held = None if remote is None else remote.collection
    single = remote.fetch_folder("") if remote is not None and held is None else None
    before = held.cells if held is not None else _as_cells([single] if single is not None else [])
    merged = {cell.path: cell for cell in (*before, *cells)}
    if local is None and held is None and not as_cell and len(merged) == 1:
        files = _folder_files(folders[0], "")
    else:
        moved = {cell: single for cell in before if single is not None and merged[cell.path] is cell}
        results = dict(local.files) if local is not None else {}
        known = dict(held.files) if held is not None else {}
        index = Collection(cells=tuple(merged[path] for path in sorted(merged)), files=known | results).to_json()
        shown = results_of(source, results)
        files = {name: source / name for name in results}
        files |= {INDEX: json_bytes(index, INDEX), COLLECTION_CARD: collection_card(index, shown).encode()}
        for cell, folder in (places | moved).items():
            files |= _folder_files(folder, cell.path)
    gone = set(_folder_files(single, "") if single is not None else ()) - files.keys()
    operations: list[CommitOperation]
    operations = [*(CommitOperationAdd(name, data) for name, data in files.items()), *map(CommitOperationDelete, gone)]
    with _writable_errors(repo), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "It seems that you are about to commit a data file")  # a release's records
        done = api.create_commit(
            repo, operations, commit_message=message or f"Add {source.name}", revision=revision, parent_commit=parent
        )
    return str(done.commit_url)


@worded
def push_sae(sae: SAE, repo: str, record: Record | None = None, *, private: bool = False, as_cell: bool = True) -> str:
    """Upload a dictionary straight from memory, as a cell of the repository's collection."""
    with TemporaryDirectory(prefix="writesae-") as scratch:
        folder = Path(scratch) / "dictionary"
        name = cell_path(save_sae(sae, folder, record).record)
        return push(folder, repo, private=private, as_cell=as_cell, message=f"Add {name}")


def _folder_files(folder: Path, path: str) -> dict[str, Path | bytes]:
    names = [*read_manifest(folder).files, MANIFEST]
    prefix = f"{path}/" if path else ""
    return {prefix + name: folder / name for name in names if (folder / name).exists()}


def _as_cells(folders: list[Path]) -> tuple[Cell, ...]:
    """Dictionaries of a machine as cells of a collection; raises InputError where two would be the same cell."""
    cells = tuple(
        replace(scan_cell(folder, folder), path=cell_path(read_manifest(folder).record)) for folder in folders
    )
    paths = [cell.path for cell in cells]
    if len(set(paths)) < len(paths):
        twice = next(path for path in paths if paths.count(path) > 1)
        names = " and ".join(str(folder) for folder, path in zip(folders, paths, strict=True) if path == twice)
        raise InputError(f"{names} would be the same cell of a collection, {twice}: push them one by one")
    return cells


def cache_folder(cache_dir: str | Path | None = None) -> Path:
    """Where fetched files are kept."""
    return Path(cache_dir or os.environ.get("HF_HUB_CACHE") or constants.HF_HUB_CACHE)


@contextmanager
def _writable_errors(repo: str) -> Iterator[None]:
    try:
        yield
    except (HTTPError, HFValidationError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise OutputError(
            f"cannot upload to {repo}: {reason}; check the network and the login (hf auth login)"
        ) from None
