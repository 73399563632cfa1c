"""The engine's untyped exceptions become this package's errors, with the place in the statement where that is known.

Nothing of an exception that could hold a path or a trace reaches the caller; the server's log has it.
"""

from __future__ import annotations

import difflib
import logging
import re
from typing import Final

from micromegas_jupyter.engine.interim.statement_text import Kind, cut_statement
from micromegas_jupyter.errors import (
    InternalError,
    InvalidStatement,
    MicromegasError,
    ResourcesExhausted,
    StatementRefused,
    UnsupportedStatement,
)

_LOG: Final = logging.getLogger(__name__)
_MAX_SENTENCE: Final = 600

_PREFIX: Final = re.compile(
    r"^(?:DataFusion error: |Error during planning: |SQL error: |Schema error: |Execution error: |External error: "
    r"|Arrow error: |Internal error: |Optimizer rule '\w+' failed\s*(?:caused by\s*)?|type_coercion\s*caused by\s*"
    r"|Context: )+"
)
_PARSER: Final = re.compile(
    r'ParserError\("(?P<text>.*?)(?: at Line: (?P<line>\d+), Column: (?P<column>\d+))?"\)', re.DOTALL
)
_NO_FIELD: Final = re.compile(r"No field named (?P<name>(?:\"[^\"]*\"|[\w.])+?)\.(?:\s|$)")
_VALID_FIELDS: Final = re.compile(r"Valid fields are (?P<names>[^\n]*?)\.?$", re.MULTILINE)
_NO_TABLE: Final = re.compile(r"table '(?P<name>[^']*)' not found")
_NO_FUNCTION: Final = re.compile(r"Invalid function '(?P<name>[^']*)'")
_NOT_BOUND: Final = re.compile(r"Placeholder '(?P<name>[^']*)' was not provided a value")
_UNSAFE: Final = re.compile(r"(?:/[\w.%-]+){2,}|\w+://|Traceback|PyErr|\.rs:\d+|backtrace", re.IGNORECASE)


def translate_failure(error: BaseException, sql: str, *, table_names: tuple[str, ...] = ()) -> MicromegasError:
    """Return the error that a caller may see for whatever the engine raised.

    Args:
        error: What was raised.
        sql: The statement, to find the place of a name in.
        table_names: The tables that the caller may know of, for a suggestion.
    """
    if isinstance(error, MicromegasError):
        return error
    text = str(error)
    for applies, build in (
        (("ResourcesExhausted", "Resources exhausted", "Failed to allocate"), _exhausted),
        (("This feature is not implemented", "NotImplemented", "not supported by DataFusion"), _unsupported),
        (("DDL not supported", "DML not supported", "Statement not supported"), _refused),
    ):
        if any(sign in text for sign in applies):
            return build(text)
    known = _by_name(text, sql, table_names)
    if known is not None:
        return known
    if isinstance(error, ValueError) or "Execution error" in text or "Arrow error" in text or "planning" in text:
        return InvalidStatement(_sentence(text, "The statement cannot be run."))
    if "Invalid regex" in text:
        return InvalidStatement("The statement holds a regular expression that is not valid.")
    _LOG.error("The engine failed.", exc_info=error)
    return InternalError("The engine failed on this statement.")


def _exhausted(_text: str) -> MicromegasError:
    return ResourcesExhausted("The query needs more memory than the server has for queries.")


def _unsupported(text: str) -> MicromegasError:
    return UnsupportedStatement(_sentence(text, "The engine does not implement this."))


def _refused(_text: str) -> MicromegasError:
    return StatementRefused("The statement would write, create or set something.")


def _by_name(text: str, sql: str, table_names: tuple[str, ...]) -> MicromegasError | None:
    if found := _PARSER.search(text):
        line, column = found["line"], found["column"]
        return InvalidStatement(
            _sentence(found["text"], "The statement is not SQL."),
            line=int(line) if line and int(line) else None,
            column=int(column) if column and int(column) else None,
        )
    if "RecursionLimitExceeded" in text:
        return StatementRefused("The statement is nested too deeply.")
    if found := _NO_FIELD.search(text):
        name = found["name"].replace('"', "")
        fields = _VALID_FIELDS.search(text)
        known = tuple(part.strip().replace('"', "") for part in fields["names"].split(",")) if fields else ()
        return _unknown_name("column", name, sql, known)
    if found := _NO_TABLE.search(text):
        return _unknown_name("table", found["name"].removeprefix("datafusion.public."), sql, table_names)
    if found := _NO_FUNCTION.search(text):
        suggestion = re.search(r"Did you mean '([^']*)'", text)
        return _unknown_name("function", found["name"], sql, (suggestion[1],) if suggestion else ())
    if found := _NOT_BOUND.search(text):
        return InvalidStatement(f"There is no value for {found['name']}.", remedy="Give a value for every placeholder.")
    return None


def _unknown_name(what: str, name: str, sql: str, known: tuple[str, ...]) -> MicromegasError:
    last = name.rsplit(".", 1)[-1]
    by_last = {full.rsplit(".", 1)[-1]: full for full in known}
    close = difflib.get_close_matches(last.lower(), list(by_last), n=1, cutoff=0.6)
    if what == "function" and known:
        close = [known[0]]
    line, column = _place_of(last, sql)
    remedy = f'Did you mean "{close[0]}"?' if close else None
    return InvalidStatement(f'There is no {what} "{_clean(name)}".', line=line, column=column, remedy=remedy)


def _place_of(name: str, sql: str) -> tuple[int | None, int | None]:
    """Return line and column, from 1, where `name` first stands as a word of code or a quoted name."""
    word = re.compile(rf"(?<![\w$]){re.escape(name)}(?!\w)", re.IGNORECASE)
    for piece in cut_statement(sql):
        if piece.kind in {Kind.CODE, Kind.NAME} and (found := word.search(piece.text)):
            before = sql[: piece.start + found.start()]
            return before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1
    return None, None


def _sentence(text: str, fallback: str) -> str:
    root = text.rsplit("caused by\n", 1)[-1].strip()
    root = _PREFIX.sub("", root)
    first = _clean(root.split("\n\n")[0])
    if not first or _UNSAFE.search(first):
        return fallback
    return first if first.endswith((".", "?", "!")) else first + "."


def _clean(text: str) -> str:
    return " ".join(text.split())[:_MAX_SENTENCE]
