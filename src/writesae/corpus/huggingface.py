"""Stream a data set from the Hugging Face Hub. The only file that imports `datasets` (extra `datasets`).

    hf:user/name?split=train&config=en&column=text&revision=main

Everything after `?` is optional: `split` is `train`, `column` is `text`, `config` and `revision` are the
Hub's own defaults.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from urllib.parse import parse_qsl, urlsplit

from writesae.errors import DataError, InputError

OPTIONS = ("split", "config", "column", "revision")


def stream_dataset(spec: str) -> Iterator[tuple[str, str]]:
    """(name, text) of every row, streamed: nothing is downloaded ahead of need.

    Raises InputError for a malformed spec, a missing extra, or a data set that cannot be opened.
    """
    path, options = check_spec(spec)
    import datasets

    split, column = options.get("split", "train"), options.get("column", "text")
    try:
        rows = datasets.load_dataset(
            path,
            options.get("config"),
            split=split,
            revision=options.get("revision"),
            streaming=True,
        )
    except (ValueError, OSError) as error:  # datasets' own errors derive from these
        reason = str(error).partition("\n")[0]
        raise InputError(f"cannot open the data set {path} (split {split}): {reason}") from None
    return _rows(path, split, column, rows)


def check_spec(spec: str) -> tuple[str, dict[str, str]]:
    """The data set of a spec and its options; raises InputError for a malformed one, or without the extra."""
    parts = urlsplit(spec)
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    unknown = sorted(set(options) - set(OPTIONS))
    if parts.scheme != "hf" or not parts.path or parts.netloc or unknown:
        detail = f"; unknown option {unknown[0]!r}" if unknown else ""
        raise InputError(
            f"corpus {spec!r} is not written like hf:user/name?split=train (options: {', '.join(OPTIONS)}){detail}"
        )
    if find_spec("datasets") is None:
        raise InputError(f"corpus {spec!r} needs the package `datasets`: pip install 'writesae[datasets]'")
    return parts.path, options


def _rows(name: str, split: str, column: str, rows: Iterator[dict[str, object]]) -> Iterator[tuple[str, str]]:
    for number, row in enumerate(rows):
        text = row.get(column)
        if not isinstance(text, str):
            raise DataError(
                f"row {number} of {name} ({split}) has no text under {column!r}; "
                f"its columns are {sorted(row)}: choose one with ?column=NAME"
            )
        yield f"{name}/{split}/{number}", text
