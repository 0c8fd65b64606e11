"""A page as a browser would take it apart."""

from __future__ import annotations

import base64
import gzip
from collections import Counter
from html.parser import HTMLParser

VOID = {"meta", "link", "input", "br", "img", "hr"}


class Page(HTMLParser):
    """Elements, attributes and text of a page; fails on elements that do not nest."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []
        self.scripts: list[tuple[dict[str, str], str]] = []
        self.text = ""
        self.marked: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        values = {name: value or "" for name, value in attrs}
        self.attributes += [(tag, name, value) for name, value in values.items()]
        if tag == "script":
            self.scripts.append((values, ""))
        if tag == "mark":
            self.marked.append("")
        if tag not in VOID and tag != "path":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        inside = self.open[-1] if self.open else ""
        if inside == "script":
            values, text = self.scripts[-1]
            self.scripts[-1] = (values, text + data)
        elif inside != "style":
            self.text += data
            if inside == "mark":
                self.marked[-1] += data

    def packed(self, name: str) -> str:
        """The unpacked text of a packed script element."""
        text = next(text for values, text in self.scripts if values.get("id") == name)
        return gzip.decompress(base64.b64decode(text)).decode()
