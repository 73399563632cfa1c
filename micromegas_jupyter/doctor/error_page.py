"""Explains error codes with the text of docs/errors.md, which the wheel holds beside this module.

And says where the same page is on the web, if the installed distribution names a documentation there.
"""

import re
from difflib import get_close_matches
from functools import cache
from importlib import metadata
from pathlib import Path

from micromegas_jupyter.errors import UsageError

_HERE = Path(__file__)
_ENTRY = re.compile(r"^### ([A-Z]+\d{3})\n(.*?)(?=^##|\Z)", re.MULTILINE | re.DOTALL)
_DOCUMENTATION = re.compile(r"documentation\s*,\s*(https?://[!-~]{1,200})\s*", re.IGNORECASE)
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


@cache
def _documentation() -> str | None:
    """Return the address of the documentation (core metadata, `Project-URL`), None if there is none."""
    try:
        named = metadata.metadata("micromegas_jupyter").get_all("Project-URL") or ()
    except metadata.PackageNotFoundError:  # a source tree
        return None
    return next((found[1].rstrip("/") for one in named if (found := _DOCUMENTATION.fullmatch(one))), None)


def where_to_read(code: str) -> str:
    """Return the end of an error's line, with the address of its entry: ` · https://…/errors/#sql001`; mostly empty."""
    address = _documentation()
    return "" if address is None else f" · {address}/errors/#{code.lower()}"


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
