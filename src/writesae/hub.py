"""The Hugging Face Hub: what a repository is called, and whether it answers, which is asked once and not for long."""

from __future__ import annotations

import re
from typing import NamedTuple

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+", re.ASCII)
PATIENCE = 5.0
"""Seconds within which the Hub must begin to answer."""


class Answer(NamedTuple):
    """What the Hub says about a file."""

    there: bool
    """Whether the repository holds it."""
    silent: str = ""
    """Why there was no answer; empty where there was one. What is in the cache can serve then."""


def is_hub_id(text: str) -> bool:
    """Whether a text is written like a repository on the Hub, `user/name`."""
    return HUB_ID.fullmatch(text) is not None


def ask(repo: str, file: str, revision: str | None = None) -> Answer:
    """Ask once for a file of a repository. Raises InputError where there is no such repository or revision."""
    from huggingface_hub import errors, get_hf_file_metadata, hf_hub_url

    from writesae.errors import InputError

    try:
        get_hf_file_metadata(hf_hub_url(repo, file, revision=revision), timeout=PATIENCE)
    except errors.RevisionNotFoundError:
        raise InputError(f"{repo} has no revision {revision} on the Hub") from None
    except (errors.RepositoryNotFoundError, errors.HFValidationError):
        raise InputError(f"there is no {repo} on the Hub, or it needs a login (hf auth login)") from None
    except errors.EntryNotFoundError:
        return Answer(False)
    except (errors.OfflineModeIsEnabled, errors.HTTPError, OSError) as error:  # type: ignore[attr-defined]
        return Answer(False, " ".join(str(error).split())[:120] or type(error).__name__)
    return Answer(True)
