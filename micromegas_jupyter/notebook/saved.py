"""How outputs are marked that have a widget and the same as HTML."""

from typing import Final

SAVED_MIME_TYPE: Final = "application/vnd.micromegas.result+json"
"""Marks an output whose saved HTML is shown until its widget is in the page."""
