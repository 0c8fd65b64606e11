"""Where a host's files are: with the package, in a folder, or on the Hub, which is asked once and not for long."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError

from writesae.disk import missing, read_json
from writesae.errors import InputError
from writesae.hub import ask, is_hub_id

_HERE = Path(__file__).parent / "embedded"
EMBEDDED = {p.name.replace("_", "-"): p for p in sorted(_HERE.iterdir()) if (p / "config.json").is_file()}
"""Hosts that ship with the package."""
_GIVE = f"give one of {', '.join(EMBEDDED)}, a folder made by save_pretrained, or a Hub id user/name"


def embedded_tokenizer(name: str) -> Path:
    """The folder that keeps an embedded host's tokenizer: every `tiny-` host has tiny-gdn's, `memory-` memory-gdn's."""
    return EMBEDDED[f"{name.partition('-')[0]}-gdn"]


def pattern_of(name: str) -> str | None:
    """How facts are told to an embedded host that has learnt some, by its card; None for any other."""
    card = read_json(EMBEDDED[name] / "card.json") if name in EMBEDDED else {}
    pattern = card.get("pattern") if isinstance(card, dict) else None
    return None if pattern is None else str(pattern)


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
    why = f"{source} is a file" if folder.exists() else missing(folder, "folder", EMBEDDED)
    if folder.exists() or not is_hub_id(source):
        raise InputError(f"unknown host {source!r}: {why}; {_GIVE}")
    try:
        return Place(source, cache_only=ask_hub(source, revision))
    except InputError as error:
        raise InputError(f"{why}, and as a Hub id: {error}; {_GIVE}") from None


def ask_hub(repo: str, revision: str | None = None) -> bool:
    """Ask once whether a model is on the Hub; returns whether only the cache can serve it.

    Raises InputError in one line where neither has it.
    """
    answer = ask(repo, "config.json", revision)
    if answer.silent and in_cache(repo, revision) is None:
        raise InputError(f"the Hub cannot be reached ({answer.silent}), and {repo} is not in its cache")
    if not answer.silent and not answer.there:
        raise InputError(f"{repo} has no config.json: it is no language model that can be loaded")
    return bool(answer.silent)


def in_cache(repo: str, revision: str | None = None) -> Path | None:
    """The folder of a model in the Hub's cache, if it is there."""
    if not is_hub_id(repo):
        return None
    try:
        config = try_to_load_from_cache(repo, "config.json", revision=revision)
    except HFValidationError:
        return None
    return Path(config).parent if isinstance(config, str) else None
