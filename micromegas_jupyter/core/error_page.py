"""Explains error codes with the docstrings of their classes, which are also the source of docs/errors.md.

If the installed distribution has a documentation URL, returns the URL of the entry, too.
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
    """Return an error class's entry for the errors page: a Markdown list with its cause, check, and fix."""
    cause, *rest = _paragraphs(error)
    items = (f"- **{label}:** {text}" for label, _, text in (one.partition(": ") for one in rest))
    facts = f"`{error.__name__}` (HTTP {error.http_status})"
    return "\n".join([f"{facts}\n", f"- **Cause:** {cause}", *items])


def _facts(error: type[MicromegasError]) -> str:
    facts = f"exit code {error.exit_code}, gRPC `{error.grpc_code}`, HTTP {error.http_status}"
    return f"`{error.__name__}` ({facts}{', retryable' * error.retryable})"


def _paragraphs(error: type[MicromegasError]) -> list[str]:
    meaning = cleandoc(error.__doc__ or "").partition(f"{_PARAGRAPH}Args:")[0]
    return [" ".join(paragraph.split()) for paragraph in meaning.split(_PARAGRAPH)]


def _as_text(markdown: str) -> str:
    """Return Markdown as plain text, without code formatting and link targets."""
    return _LINK.sub(r"\1", markdown).replace("`", "")


@cache
def _documentation() -> str | None:
    """Return the documentation URL (core metadata, `Project-URL`), or None."""
    try:
        named = metadata.metadata("micromegas_jupyter").get_all("Project-URL") or ()
    except metadata.PackageNotFoundError:  # a source tree
        return None
    return next((found[1].rstrip("/") for one in named if (found := _DOCUMENTATION.fullmatch(one))), None)


def where_to_read(code: str) -> str:
    """Return a suffix with the URL of an error's entry (` · https://…/errors/#sql001`), or an empty string."""
    address = _documentation()
    return "" if address is None else f" · {address}/errors/#{code.lower()}"


def explain_error(code: str | None, *, how_to_list: str) -> str:
    """Explain an error code, or list all codes if it is None; `how_to_list` is the command that lists them."""
    classes = dict(sorted(error_classes().items()))
    if code is None:
        return "\n".join(f"{name}  {_as_text(_paragraphs(error)[0])}" for name, error in classes.items())
    error = classes.get(code.upper())
    if error is None:
        nearest = get_close_matches(code.upper(), classes, n=1)
        remedy = f"Did you mean {nearest[0]}?" if nearest else f"{how_to_list} lists the codes."
        raise UsageError("This error code doesn't exist.", remedy=remedy)
    cause, *rest = _paragraphs(error)
    return _as_text("\n".join([f"{error.code}  {_facts(error)}", f"Cause: {cause}", *rest]))
