"""A result as one piece of HTML: a preview that needs nothing, and a script that makes a table of it to work with.

Where scripts do not run (a notebook that is not trusted, GitHub) the preview stays. What the preview shows is
`preview`'s, the data `result_data`'s, the table `static/result.js`'s job.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from micromegas_jupyter.notebook.preview import MAX_PREVIEW_ROWS, preview_html
from micromegas_jupyter.notebook.result_data import result_data

if TYPE_CHECKING:
    import pyarrow as pa

_STATIC = Path(__file__).parent / "static"
_MIN_ROWS = 2  # nothing to sort, filter or turn the page of below


def result_html(table: pa.Table, *, max_rows: int) -> str:
    """Return the result's first rows as HTML.

    Args:
        table: The rows.
        max_rows: How many rows at most can be sorted, filtered and paged through; 0 leaves it at the preview.
    """
    preview = preview_html(table)
    if min(max_rows, table.num_rows) < _MIN_ROWS:
        return preview
    data = result_data(table, max_rows=max_rows)
    if data.rows < min(MAX_PREVIEW_ROWS, max_rows, table.num_rows):
        return preview  # rows so large that the preview holds more of them
    return (
        f'<div class="micromegas-result"><style>{static_text("result.css")}</style>{preview}'
        f'<script type="application/json">{data.text}</script>'
        f"<script>{static_text('result.js')}</script></div>"
    )


@cache
def static_text(name: str) -> str:
    """Return one of the package's scripts or style sheets without comments and indents: every output holds a copy."""
    lines = (line.strip() for line in (_STATIC / name).read_text(encoding="utf-8").splitlines())
    return "\n".join(line for line in lines if line and not line.startswith(("//", "/*")))
