"""Where a host's files are: with the package, in a folder, or on the Hub, which is asked once and not for long."""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import (  # type: ignore[attr-defined] # HTTPError is its HTTP client's own
    EntryNotFoundError,
    HFValidationError,
    HTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from writesae.errors import HostError, InputError

_HERE = Path(__file__).parent / "embedded"
EMBEDDED = {"tiny-gdn": _HERE / "tiny_gdn", "tiny-mamba2": _HERE / "tiny_mamba2"}
"""Hosts that ship with the package; they have one tokenizer, which is kept with the first."""
PATIENCE = 5.0
"""Seconds within which the Hub must begin to answer."""
_HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")


@dataclass(frozen=True)
class Place:
    """Where a model's files are."""

    where: str
    """Folder or Hub id."""
    cache_only: bool = False
    """Whether the Hub cannot be reached and its cache serves."""


def find(source: str, revision: str | None) -> Place:
    """The place of a host; raises InputError in one line for what is none, with the names that are near."""
    folder = EMBEDDED.get(source, Path(source).expanduser())
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise InputError(f"{source} is no host: the folder has no config.json (save it with save_pretrained)")
        return Place(str(folder))
    missing = f"there is no folder {source}{_near(folder)}"
    if folder.exists():
        missing = f"{source} is a file"
    if folder.exists() or not _HUB_ID.fullmatch(source):
        raise InputError(
            f"unknown host {source!r}: {missing}; give one of {', '.join(EMBEDDED)}, a folder made by save_pretrained, "
            "or a Hub id user/name"
        )
    try:
        return Place(source, cache_only=ask_hub(source, revision))
    except HostError as error:
        raise InputError(f"{missing}, and as a Hub id: {error}") from None


def ask_hub(repo: str, revision: str | None = None) -> bool:
    """Ask once whether a model is on the Hub; returns whether only the cache can serve it.

    Raises HostError in one line where neither has it.
    """
    try:
        get_hf_file_metadata(hf_hub_url(repo, "config.json", revision=revision), timeout=PATIENCE)
    except RevisionNotFoundError:
        raise HostError(f"{repo} has no revision {revision}") from None
    except (RepositoryNotFoundError, HFValidationError):
        raise HostError(f"there is no {repo} on the Hub, or it needs a login (hf auth login)") from None
    except EntryNotFoundError:
        raise HostError(f"{repo} has no config.json: it is no language model that can be loaded") from None
    except (OfflineModeIsEnabled, HTTPError, OSError) as error:
        if in_cache(repo, revision) is None:
            reason = " ".join(str(error).split())[:120] or type(error).__name__
            raise HostError(f"the Hub cannot be reached ({reason}), and {repo} is not in its cache") from None
        return True
    return False


def in_cache(repo: str, revision: str | None = None) -> Path | None:
    """The folder of a model in the Hub's cache, if it is there."""
    if not _HUB_ID.fullmatch(repo):
        return None
    try:
        config = try_to_load_from_cache(repo, "config.json", revision=revision)
    except HFValidationError:
        return None
    return Path(config).parent if isinstance(config, str) else None


def _near(folder: Path) -> str:
    """What a mistyped name may have meant."""
    parent = folder.parent
    while not parent.is_dir():
        folder, parent = parent, parent.parent
    beside = sorted(place.name for place in parent.iterdir() if place.is_dir())
    close = [str(parent / name) for name in get_close_matches(folder.name, beside, n=3)]
    close += get_close_matches(str(folder), EMBEDDED, n=1)
    return f" (near: {', '.join(close)})" if close else ""
