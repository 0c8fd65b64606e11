"""A folder of results -> report.html."""

from __future__ import annotations

import os
from pathlib import Path

from writesae.errors import OutputError
from writesae.page.page import page
from writesae.page.reading import find


def write_report(folder: Path) -> Path:
    """Write `report.html` into a folder from the results under it, a quickstart's or evaluations', and return its path.

    The page is one file that opens without a network. Raises InputError where there is no result or a file is missing,
    DataError where one is damaged or unknown, OutputError where the page cannot be written; the folder is left as it
    was then.
    """
    found = find(folder)
    text = page(found.results, found.run)
    path, partial = folder / "report.html", folder / ".report.html.partial"
    try:
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise OutputError(f"cannot write {path}: {error.strerror}") from None
    return path
