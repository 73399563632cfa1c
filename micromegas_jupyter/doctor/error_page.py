"""Explains error codes with the text of docs/errors.md, which the wheel holds beside this module."""

import re
from difflib import get_close_matches
from functools import cache
from pathlib import Path

from micromegas_jupyter.errors import UsageError

_HERE = Path(__file__)
_ENTRY = re.compile(r"^### ([A-Z]+\d{3})\n(.*?)(?=^##|\Z)", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[([^\]]+)\]\([^)]*\)")


@cache
def _entries() -> dict[str, str]:
    packaged = _HERE.with_name("errors.md")
    page = packaged if packaged.is_file() else _HERE.parents[2] / "docs" / "errors.md"  # a source tree
    return {code: _as_text(entry) for code, entry in _ENTRY.findall(page.read_text(encoding="utf-8"))}


def _as_text(entry: str) -> str:
    """Return Markdown as text: a line for each paragraph, and a link's text without where it leads."""
    paragraphs = (" ".join(paragraph.split()) for paragraph in _LINK.sub(r"\1", entry).split("\n\n"))
    return "\n".join(paragraph.replace("`", "") for paragraph in paragraphs if paragraph)


def explain_error(code: str | None, *, how_to_list: str) -> str:
    """Return what an error code means and what to do; None lists all codes, which `how_to_list` does for the person."""
    entries = _entries()
    if code is None:
        return "\n".join(f"{name}  {text.partition('. ')[0]}" for name, text in entries.items())
    text = entries.get(code.upper())
    if text is None:
        nearest = get_close_matches(code.upper(), entries, n=1)
        remedy = f"Did you mean {nearest[0]}?" if nearest else f"{how_to_list} lists the codes."
        raise UsageError("There is no error with this code.", remedy=remedy)
    return f"{code.upper()}  {text}"
