"""Reads the pages of the guides as their parts: tables, fenced blocks, headings, links."""

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


class Block(NamedTuple):
    """One fenced block."""

    place: str
    language: str
    text: str


_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def read_page(name):
    return (DOCS / name).read_text(encoding="utf-8")


def blocks(*names):
    pages = {name: read_page(name) for name in names}
    return [
        Block(f"{name}:{text[: fence.start()].count(chr(10)) + 1}", fence[1], fence[2])
        for name, text in pages.items()
        for fence in _FENCE.finditer(text)
    ]


def table_rows(text):
    lines = [line.strip() for line in text.split("\n") if line.startswith("|")]
    return [tuple(cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]) for line in lines]


def anchors(text):
    headings = re.findall(r"^#{1,6} (.+)$", _FENCE.sub("", text), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def dangling_links(page):
    """Return the links of a page below docs, or at `../README.md`, whose file or heading is not there."""
    text = read_page(page)
    links = re.findall(r"\]\(([^)\s]+)\)", _FENCE.sub("", text))
    return [link for link in links if "://" not in link and not _leads_somewhere(page, text, link)]


def _leads_somewhere(page, text, link):
    target, _, anchor = link.partition("#")
    path = (DOCS / page).parent / target
    if not target:
        return anchor in anchors(text)
    return path.is_file() and (not anchor or anchor in anchors(path.read_text(encoding="utf-8")))
