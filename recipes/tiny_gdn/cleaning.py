"""Plain prose out of markup and hard-wrapped text."""

from __future__ import annotations

import html
import re

QUOTES = {"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"'}
DASHES = {"\u2013": "-", "\u2014": "--", "\u2026": "..."}
ASCII = str.maketrans(QUOTES | DASHES | {"\u00a0": " ", "\t": " "})

BLOCK_TAGS = "p|br|div|li|h\\d|tr|dt|dd|ul|ol|table|pre|blockquote"
OSIS_BREAKS = (
    r'<div sID="[^"]*" type="x-p"/>|<div type="x-p"[^>]*>|<div sID[^>]*type="paragraph"[^>]*/>'
    r"|<lb[^>]*/>|<item[^>]*>|<l [^>]*sID[^>]*/>|<lg[^>]*/>|<p>|<br ?/>"
)


def normalise(text: str) -> str:
    """ASCII quotes and dashes, one kind of line end, single spaces, at most one empty line in a row."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").translate(ASCII)
    text = re.sub(r" +", " ", text)
    text = re.sub(r" *\n *", "\n", text)
    return re.sub(r"\n{3,}", "\n\n", text).strip()


def unwrap(text: str) -> str:
    """Join the hard-wrapped lines of each paragraph."""
    return "\n\n".join(paragraph.replace("\n", " ") for paragraph in re.split(r"\n\s*\n", text))


def strip_html(page: str) -> str:
    """The text of an HTML page, a paragraph a block element."""
    page = re.sub(r"(?is)<(script|style|head)\b.*?</\1>", " ", page)
    page = re.sub(rf"(?i)<({BLOCK_TAGS})\b[^>]*>", "\n\n", page)
    return html.unescape(re.sub(r"(?s)<[^>]*>", "", page))


def strip_osis(book: str) -> str:
    """The text of an OSIS (Bible markup) document: notes dropped, titles and paragraphs set apart."""
    book = re.sub(r"(?s)<note\b.*?</note>", "", book)
    book = re.sub(r"<title[^>]*>(.*?)</title>", r"\n\n\1\n\n", book)
    book = re.sub(OSIS_BREAKS, "\n\n", book)
    book = html.unescape(re.sub(r"(?s)<[^>]*>", "", book))
    book = re.sub(r"[\x00-\x08\x0b-\x1f]", "", book)
    return re.sub(r" +([,.;:!?])", r"\1", book)


def prose_of_html(page: str, shortest: int = 80) -> str:
    """Only the running paragraphs of a technical page: `<p>` blocks of at least `shortest` characters."""
    ends = r"<p>|<h\d|<pre|<table|<ul|<ol|<dl|</div>|<blockquote|<div"
    blocks = re.findall(rf"(?is)<p>(.*?)(?={ends})", page)
    paragraphs = (" ".join(html.unescape(re.sub(r"(?s)<[^>]*>", "", block)).split()) for block in blocks)
    return "\n\n".join(paragraph for paragraph in paragraphs if len(paragraph) > shortest)


def strip_gutenberg(text: str) -> str:
    """A Project Gutenberg text without its licence header and without lines that name the project."""
    header = re.search(r"\*END\*.*?\n", text)
    body = text[header.end() :] if header else text
    return re.sub(r"(?m)^.*(Project Gutenberg|Gutenberg|Etext|etext).*$", "", body)
