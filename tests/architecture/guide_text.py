"""Reads the administrator guide as its parts: tables, fenced blocks, headings, links."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
GUIDE = ("access.md", "access-providers.md", "access-reasons.md")

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One fenced block."""

    place: str
    language: str
    text: str
    announced_by: str


def read_page(name):
    return (DOCS / name).read_text(encoding="utf-8")


def read_guide():
    return "\n".join(read_page(name) for name in GUIDE)


def blocks(*names):
    found = []
    for name in names:
        text = read_page(name)
        for fence in _FENCE.finditer(text):
            before = text[: fence.start()]
            lines = [line for line in before.split("\n") if line.strip()]
            found.append(
                Block(
                    place=f"{name}:{before.count(chr(10)) + 1}",
                    language=fence[1],
                    text=fence[2],
                    announced_by=lines[-1] if lines else "",
                )
            )
    return found


def table_rows(text):
    lines = [line.strip() for line in text.split("\n") if line.startswith("|")]
    return [tuple(cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]) for line in lines]


def headings(text):
    return re.findall(r"^#{1,6} (.+)$", _FENCE.sub("", text), flags=re.MULTILINE)


def anchors(text):
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings(text)}


def links(text):
    return _LINK.findall(_FENCE.sub("", text))


def dangling_links(page):
    """Return the links of a page below docs, or at `../README.md`, whose file or heading is not there."""
    text = read_page(page)
    return [link for link in links(text) if "://" not in link and not _leads_somewhere(page, text, link)]


def _leads_somewhere(page, text, link):
    target, _, anchor = link.partition("#")
    path = (DOCS / page).parent / target
    if not target:
        return anchor in anchors(text)
    return path.is_file() and (not anchor or anchor in anchors(path.read_text(encoding="utf-8")))
