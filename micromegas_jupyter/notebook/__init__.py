"""The IPython extension: magics, the identity widget, results and completion. Nothing heavy loads before it is used."""

from typing import Final

SAVED_MIME_TYPE: Final = "application/vnd.micromegas.result+json"
"""Marks an output whose saved HTML is shown until its widget is in the page."""
