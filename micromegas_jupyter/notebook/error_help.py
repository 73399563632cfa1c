"""The help below a failed statement: the meaning of the error, and a corrected cell."""

from __future__ import annotations

import html
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anywidget
import traitlets

from micromegas_jupyter.core.error_page import explain_error
from micromegas_jupyter.errors import QueryError
from micromegas_jupyter.notebook import SAVED_MIME_TYPE

if TYPE_CHECKING:
    from micromegas_jupyter.errors import MicromegasError

_STATIC = Path(__file__).parent / "frontend" / "static"


class ErrorHelp(anywidget.AnyWidget):
    """Shows the explanation of an error code, and offers `source` for the user to run."""

    # These aren't paths, because anywidget 0.11 would then keep each closed widget in memory.
    _esm = traitlets.Unicode((_STATIC / "explain.js").read_text(encoding="utf-8")).tag(sync=True)
    _css = traitlets.Unicode((_STATIC / "explain.css").read_text(encoding="utf-8")).tag(sync=True)
    code = traitlets.Unicode().tag(sync=True)
    text = traitlets.Unicode().tag(sync=True)
    source = traitlets.Unicode().tag(sync=True)

    def __init__(self, error: MicromegasError, *, cell: str, sql: str | None) -> None:
        text = explain_error(error.code, how_to_list="%micromegas_explain")
        super().__init__(code=error.code, text=text, source=corrected_cell(error, cell=cell, sql=sql))

    def _repr_mimebundle_(self, **options: Any) -> Any:
        shown = super()._repr_mimebundle_(**options)
        if shown is None:
            return shown
        text = f"{self.text}\n\nCorrected:\n{self.source}" if self.source else self.text
        folded = f"<details><summary>Explain {self.code}</summary><pre>{html.escape(text)}</pre></details>"
        return shown[0] | {SAVED_MIME_TYPE: {"version": 1}, "text/plain": text, "text/html": folded}, shown[1]


def corrected_cell(error: MicromegasError, *, cell: str, sql: str | None) -> str:
    """Return a cell that contains the server's corrected statement, or an empty string if there's no correction."""
    if not isinstance(error, QueryError) or error.correction is None or sql is None:
        return ""
    corrected = error.correction.apply(sql).strip("\n")
    return cell.replace(sql.strip("\n"), corrected, 1) if sql.strip("\n") in cell else f"%%sql\n{corrected}"
