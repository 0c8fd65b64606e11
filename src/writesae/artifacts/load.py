"""`load_sae`: one line that loads a dictionary from wherever it is."""

from __future__ import annotations

from pathlib import Path

from writesae.artifacts.collection import INDEX, Cell, Choice, local_cells
from writesae.artifacts.folder import CONFIG, WEIGHTS, load_folder
from writesae.artifacts.manifest import MANIFEST
from writesae.artifacts.shipped import NAMES, place_of
from writesae.calls import worded
from writesae.disk import check_there, inside, missing
from writesae.errors import InputError
from writesae.sae import SAE
from writesae.types import Site


@worded
def load_sae(
    source: str | Path,
    *,
    site: Site | str | None = None,
    variant: str | None = None,
    host: str | None = None,
    seed: int | None = None,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    offline: bool = False,
    hashes: bool = True,
) -> SAE:
    """Load a dictionary from a folder, from a collection of them, from what `train` wrote, by the name of one that
    ships with the package (`memory-gdn/state`, `memory-gdn/write`), or from the Hub (`user/repo`), in evaluation mode.

    `site`, `variant`, `host` and `seed` choose one of several; a single dictionary must agree with them. From the
    Hub only its JSON and safetensors files are fetched, into the cache, and `offline` uses the cache alone; `revision`
    pins a commit, branch or tag. `hashes=False` skips SHA-256 (sizes are always compared). No code of the files runs.
    Raises InputError (nothing or several there), DataError (damaged, hostile or too new), ConfigError.
    """
    path, choice = place_of(source), Choice(host, site, variant, seed)
    if not path.exists():
        check_there(path, hub=True)  # and put back what a kill set aside
    if not path.exists():
        from writesae.artifacts.hub import fetch_cell

        try:
            return load_folder(fetch_cell(str(source), choice, revision, cache_dir, offline), hashes=hashes).sae
        except InputError as error:
            raise InputError(f"{missing(path, 'folder', NAMES)}, and as a Hub id: {error}") from None
    if path.is_file():
        raise InputError(f"{path} is a file, a dictionary is a folder; `writesae convert` imports checkpoints")
    if cells := cells_in(path):
        path = inside(path, f"{choice.of(cells, str(path)).path}/{MANIFEST}").parent
    loaded = load_folder(path, hashes=hashes)
    choice.check(loaded.manifest.record, str(path))
    return loaded.sae


def cells_in(folder: Path) -> tuple[Cell, ...]:
    """The dictionaries in a folder; empty for a folder that is one. Raises InputError where there is none."""
    own = not (folder / INDEX).exists() and any((folder / name).exists() for name in (MANIFEST, CONFIG, WEIGHTS))
    return () if own else local_cells(folder)
