"""The IPython extension: magics, the identity widget, results, and completion. Heavy imports load on first use."""

from typing import Final

SAVED_MIME_TYPE: Final = "application/vnd.micromegas.result+json"
"""Marks an output whose saved HTML is shown until the page has its widget."""
