"""Writes an error as a person sees it in a cell: what happened, what to do, where in the SQL, and no traceback.

The error keeps its class, so that a notebook can catch it; IPython asks it how it wants to be shown.
"""

import html
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from micromegas_jupyter.errors import MicromegasError, QueryCancelled, QueryError
from micromegas_jupyter.notebook.words import cut, printable, short_query_id, terminal_width

_MAX_SENTENCE_CHARACTERS = 2000
_EXCERPT_BEFORE = 80
_EXCERPT_AFTER = 40
_INDENT = "    "


@contextmanager
def errors_as_lines(*, sql: str | None = None, traceback: bool = False) -> Iterator[None]:
    """Let the package's errors through so that IPython shows their lines instead of a traceback.

    Args:
        sql: The statement that `line` and `column` of a `QueryError` point into.
        traceback: Leave the errors as they are.

    Raises:
        QueryCancelled: The kernel was interrupted.
    """
    try:
        yield
    except MicromegasError as error:
        if not traceback and "_render_traceback_" not in vars(error):
            show_as_lines(error, error_lines(error, sql=sql))
        raise
    except KeyboardInterrupt as interrupt:
        if traceback:
            raise
        stopped = QueryCancelled("Interrupted.")
        show_as_lines(stopped, ["✗ interrupted"])
        raise stopped from interrupt


def show_as_lines(error: BaseException, lines: Sequence[str]) -> None:
    """Give the error the methods that IPython asks for: text in place of a traceback, and escaped HTML."""
    shown = list(lines)
    vars(error)["_render_traceback_"] = lambda: shown
    vars(error)["_repr_html_"] = lambda: lines_html(shown)


def error_lines(error: MicromegasError, *, sql: str | None = None) -> list[str]:
    """Return the error's lines; one line when there is neither a place in the SQL nor a query to name."""
    sentence = "✗ " + cut(printable(f"{error.what} {error.remedy}".strip()), _MAX_SENTENCE_CHARACTERS)
    excerpt = _excerpt(error, sql)
    if not excerpt and error.query_id is None:
        return [f"{sentence} · {error.code}"]
    query = "" if error.query_id is None else f"query {short_query_id(error.query_id)} · "
    return [sentence, *excerpt, f"  {query}{error.code} · docs/errors.md#{error.code.lower()}"]


def lines_html(lines: Sequence[str]) -> str:
    """Return the lines as HTML in which nothing of them is markup."""
    return text_html("\n".join(lines), style="color:var(--jp-error-color0,inherit)")


def text_html(text: str, *, style: str = "") -> str:
    """Return text as HTML that keeps its lines, in which nothing of it is markup."""
    return f'<pre style="white-space:pre-wrap;{style}">{html.escape(text)}</pre>'


def _excerpt(error: MicromegasError, sql: str | None) -> list[str]:
    if not isinstance(error, QueryError) or sql is None or error.line is None or error.column is None:
        return []
    source = sql.split("\n")
    if not 1 <= error.line <= len(source):
        return []
    text = source[error.line - 1].replace("\t", " ").rstrip("\r")
    before = min(max(error.column - 1, 0), len(text))
    first = max(0, before - _EXCERPT_BEFORE)
    start = "…" if first else ""
    end = "…" if len(text) > before + _EXCERPT_AFTER else ""
    left = start + printable(text[first:before])
    right = printable(text[before : before + _EXCERPT_AFTER]) + end
    caret = " " * terminal_width(left) + f"^ line {error.line}, column {error.column}"
    return [_INDENT + left + right, _INDENT + caret]
