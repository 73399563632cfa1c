"""Explains error codes with the docstrings of their classes; docs/errors.md is generated from them, too.

And says where that page is on the web, if the installed distribution names a documentation there.
"""

import re
from difflib import get_close_matches
from functools import cache
from importlib import metadata
from inspect import cleandoc

from micromegas_jupyter.errors import MicromegasError, UsageError, error_classes

_DOCUMENTATION = re.compile(r"documentation\s*,\s*(https?://[!-~]{1,200})\s*", re.IGNORECASE)
_PARAGRAPH = "\n\n"
_LINK = re.compile(r"\[([^\]]+)\]\([^)]*\)")


def error_entry(error: type[MicromegasError]) -> str:
    """Return a class's entry on the errors page, in Markdown."""
    facts = f"exit code {error.exit_code}, gRPC `{error.grpc_code}`, HTTP {error.http_status}"
    return (
        f"`{error.__name__}` ({facts}{', retryable' * error.retryable}). {_meaning(error).replace(_PARAGRAPH, ' ', 1)}"
    )


def _meaning(error: type[MicromegasError]) -> str:
    return cleandoc(error.__doc__ or "").partition(f"{_PARAGRAPH}Args:")[0]


def _as_text(entry: str) -> str:
    """Return Markdown as text: a line for each paragraph, and a link's text without where it leads."""
    paragraphs = (" ".join(paragraph.split()) for paragraph in _LINK.sub(r"\1", entry).split(_PARAGRAPH))
    return "\n".join(paragraph.replace("`", "") for paragraph in paragraphs)


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
    """Return an error code's meaning and remedy, or all codes for None; `how_to_list` shows users how."""
    classes = dict(sorted(error_classes().items()))
    if code is None:
        return "\n".join(f"{name}  {_as_text(_meaning(error).split(_PARAGRAPH)[0])}" for name, error in classes.items())
    error = classes.get(code.upper())
    if error is None:
        nearest = get_close_matches(code.upper(), classes, n=1)
        remedy = f"Did you mean {nearest[0]}?" if nearest else f"{how_to_list} lists the codes."
        raise UsageError("There is no error with this code.", remedy=remedy)
    return f"{error.code}  {_as_text(error_entry(error))}"
