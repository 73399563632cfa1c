"""Turns what DataFusion raises into the package's errors, by the prefixes of its texts, with a place and a suggestion.

DataFusion-Python has no classes for its errors: `ValueError` for SQL, schema and plan, bare `Exception` for the rest
and `PanicException` (a `BaseException`) for a panic. Which query failed, and what a client is told beyond the error's
own sentence, the server adds.
"""

from __future__ import annotations

import difflib
import logging
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import pyarrow as pa

from micromegas_jupyter.engine.scanner import Kind, place_of, scan
from micromegas_jupyter.errors import (
    InternalError,
    InvalidStatement,
    MicromegasError,
    ResourcesExhausted,
    StatementRefused,
    Unavailable,
    UnsupportedStatement,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

_log = logging.getLogger(__name__)

_PANIC: Final = "PanicException"  # pyo3 gives the class no module to import it from
_LONGEST_MESSAGE: Final = 600
# Messages repeat parts of the statement; what is looked through is cut first, so that no pattern runs long.
_LONGEST_READ: Final = 8000
_LONGEST_CLEANED: Final = 1000
_LONGEST_LOGGED: Final = 4000
_MORE_MEMORY: Final = "The query needs more memory or disk than this server gives one query."
_GONE: Final = "A file of a table went away while the query began, since the table was being compacted."

_EXPLAINING: Final = frozenset({"explain", "analyze", "verbose"})
# fmt: off
_WRITING: Final = frozenset({
    "alter", "analyze", "attach", "begin", "call", "comment", "commit", "copy", "create", "deallocate", "delete",
    "detach", "drop", "execute", "export", "grant", "import", "insert", "install", "kill", "load", "lock",
    "merge", "optimize", "pragma", "prepare", "refresh", "release", "rename", "replace", "reset", "revoke", "rollback",
    "savepoint", "set", "start", "truncate", "unload", "update", "use", "vacuum",
})
# fmt: on

_CAUSE = re.compile(r"\ncaused by\n")
_PLACE = re.compile(r"at Line: (\d+), Column: (\d+)")
_TAIL = re.compile(
    r"(?:\bbacktrace:|This issue was likely caused by a bug in DataFusion|Valid fields are|, errors: ).*", re.DOTALL
)
_VALID_FIELDS = re.compile(r"Valid fields are (.*?)\.?$", re.DOTALL)
_SECRETIVE = re.compile(r"PyErr|Traceback|\.rs:\d|\.py\b")
# A path is a URL, or two parts or more that begin at the root, in what may be a sentence.
_PATH = re.compile(r"\b[A-Za-z][\w+.-]*://\S*|(?<![\w<])/[^\s/,;:'\"()]+/[^\s,;:'\")]*|[\w./%=@+-]*\.parquet\b")
_NO_FIELD = re.compile(r"No field named (.+?)\.(?:\s|$)")
_NO_TABLE = re.compile(r"table '([^']*)' not found", re.IGNORECASE)
_NO_FUNCTION = re.compile(r"(?:Invalid function|table function) '([^']*)'", re.IGNORECASE)
_UNBOUND = re.compile(r"Placeholder '([^']*)' was not provided|placeholder with name (\S+)")
_PARSER = re.compile(r'(?:ParserError|TokenizerError)\("(.*)"\)', re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What helps to explain a failure.

    Attributes:
        sql: The statement as DataFusion got it.
        tables: Names of the caller's tables.
    """

    sql: str = field(repr=False)
    tables: tuple[str, ...] = ()


def is_engine_failure(error: BaseException) -> bool:
    """Return whether `error` is an ordinary exception or a panic of the engine, not a wish to stop the process."""
    return isinstance(error, Exception) or type(error).__name__ == _PANIC


def file_gone() -> Unavailable:
    """Return the error for a file that a snapshot names and that is not there any more."""
    return Unavailable(_GONE)


def translate(error: BaseException, context: Context) -> MicromegasError:
    """Return the package's error for what DataFusion raised; an error of the package is returned as it is."""
    if isinstance(error, MicromegasError):
        return error
    text = str(error)
    if type(error).__name__ == _PANIC:
        return _internal(text, "the engine panicked")
    if _is_writing(context.sql):
        return StatementRefused("The statement would change something, and this server only reads.")
    if isinstance(error, pa.ArrowException):
        return _conversion_error(text)
    parts = [part.strip()[:_LONGEST_READ] for part in _CAUSE.split(text.removeprefix("DataFusion error: "))]
    found = _classify(parts[-1], parts, context)
    return found or _internal(text, "the engine failed")


def _conversion_error(text: str) -> MicromegasError:
    """Return the error for a result that pyarrow cannot take over or convert to its form on the wire."""
    if "Recursion level" in text:
        return UnsupportedStatement("The result's type is nested too deep.")
    if "out of bounds timestamp" in text:
        return InvalidStatement("A time in the result is outside the years 1677 to 2262, which nanoseconds can hold.")
    return _internal(text, "a result could not be converted")


def _is_writing(sql: str) -> bool:
    """Return whether a statement that failed begins like one that writes; only chooses the words of the refusal."""
    words = [token.text.lower() for token in scan(sql).tokens if token.kind is Kind.WORD]
    if words[:1] == ["explain"]:
        words = [word for word in words[:4] if word not in _EXPLAINING]
    return bool(words) and words[0] in _WRITING


def _internal(text: str, event: str) -> InternalError:
    _log.error(event, extra={"engine_error": text[:_LONGEST_LOGGED]})
    return InternalError("The query failed for a reason inside the server.")


def _classify(root: str, parts: list[str], context: Context) -> MicromegasError | None:
    if any(_SECRETIVE.search(part) for part in parts):
        return None
    if _is_about_resources(root):
        _log.warning("a query ran out of resources", extra={"engine_error": root[:_LONGEST_LOGGED]})
        return ResourcesExhausted(_MORE_MEMORY)
    if root.startswith("External error: ") and parts[-2:-1] == ["Invalid regex"]:
        return InvalidStatement("A regular expression in the statement is not valid.")
    kind, rest = _split(root)
    explain = _KINDS.get(kind)
    return explain(rest, context) if explain else None


def _is_about_resources(root: str) -> bool:
    return root.startswith("Resources exhausted") or "exceeded the allowable limit" in root or "Memory error" in root


def _split(text: str) -> tuple[str, str]:
    kind, _, rest = text.partition(": ")
    if kind == "Error during planning" and rest.startswith("Error during planning: "):
        return _split(rest)
    return kind, rest.removeprefix("Internal error: ") if kind == "Error during planning" else rest


def _sql_error(text: str, context: Context) -> MicromegasError:
    del context
    if "RecursionLimitExceeded" in text:
        return StatementRefused("The statement nests deeper than the parser goes.")
    parsed = _PARSER.search(text)
    message = (parsed[1] if parsed else text).replace('\\"', '"').replace("\\n", " ")
    place = _PLACE.search(message)
    if place is None:
        return InvalidStatement(_sentence("The statement cannot be parsed", message))
    return InvalidStatement(
        _sentence("The statement cannot be parsed", _PLACE.sub("", message)), line=int(place[1]), column=int(place[2])
    )


def _planning_error(text: str, context: Context) -> MicromegasError:
    if refused := re.match(r"(?:DDL|DML|Statement) not supported: (\w+)", text):
        return StatementRefused(f"The statement would change something ({refused[1]}), and this server only reads.")
    if unbound := _UNBOUND.search(text):
        return _unbound(unbound[1] or unbound[2])
    for pattern, what, candidates in (
        (_NO_FIELD, "There is no column", _valid_fields(text)),
        (_NO_TABLE, "There is no table", list(context.tables)),
        (_NO_FUNCTION, "There is no function", _suggested_functions(text)),
    ):
        if found := pattern.search(text):
            return _unknown_name(what, found[1], candidates, context)
    return InvalidStatement(_sentence("", text))


def _not_implemented(text: str, context: Context) -> MicromegasError:
    del context
    if "single SQL statement" in text:
        return StatementRefused("The text holds several statements.", remedy="Send one statement at a time.")
    return UnsupportedStatement(_sentence("The engine does not implement this", text))


def _run_time_error(text: str, context: Context) -> MicromegasError | None:
    if unbound := _UNBOUND.search(text):
        return _unbound(unbound[1])
    if re.match(r"(?:External|Ipc|Io|Parquet|C Data interface) error", text):
        return None
    if found := re.match(r"Error during planning: ", text):
        return _planning_error(text[found.end() :], context)
    return InvalidStatement(_sentence("The statement failed on a value", text))


def _storage_error(text: str, context: Context) -> MicromegasError | None:
    del context
    return file_gone() if "not found" in text.lower() else None


def _configuration_error(text: str, context: Context) -> MicromegasError:
    del context
    return InvalidStatement(_sentence("The statement asks for an unknown setting", text))


_KINDS: Final[Mapping[str, Callable[[str, Context], MicromegasError | None]]] = {
    "SQL error": _sql_error,
    "Schema error": _planning_error,
    "Error during planning": _planning_error,
    "This feature is not implemented": _not_implemented,
    "Execution error": _run_time_error,
    "Arrow error": _run_time_error,
    "Object Store error": _storage_error,
    "Invalid or Unsupported Configuration": _configuration_error,
}


def _unbound(placeholder: str) -> InvalidStatement:
    return InvalidStatement(
        f"No value was given for the parameter {placeholder[:40]}.",
        remedy="Send one value for each placeholder of the statement.",
    )


def _unknown_name(what: str, name: str, candidates: Iterable[str], context: Context) -> InvalidStatement:
    last = _last_part(name)
    close = difflib.get_close_matches(last, sorted({_last_part(one) for one in candidates}), n=1, cutoff=0.6)
    close = [one for one in close if one != last]
    hint = f" Did you mean {close[0][:80]}?" if close else ""
    line, column = _find_name(last, context.sql)
    shown = name.removeprefix("datafusion.").removeprefix("public.")
    return InvalidStatement(f"{what} named {_clean(shown)[:120]}.{hint}", line=line, column=column)


def _valid_fields(text: str) -> list[str]:
    found = _VALID_FIELDS.search(text)
    return [one.strip() for one in found[1].split(",")] if found else []


def _suggested_functions(text: str) -> list[str]:
    found = re.search(r"Did you mean '([^']*)'", text)
    return [found[1]] if found else []


def _last_part(name: str) -> str:
    """Return the last part of a dotted name, without quotes: `t."a.b"` is `a.b`."""
    if name.endswith('"'):
        return name[:-1].rpartition('"')[2]
    return name.rpartition(".")[2]


def _find_name(name: str, sql: str) -> tuple[int | None, int | None]:
    for token in scan(sql).tokens:
        if token.kind in {Kind.WORD, Kind.QUOTED} and token.name == name:
            return place_of(sql, token.start)
    return None, None


def _sentence(start: str, text: str) -> str:
    """Return a sentence of `text` without paths, hints for developers and line breaks."""
    message = _TAIL.sub("", text)
    if len(message) > _LONGEST_CLEANED:
        message = message[:_LONGEST_CLEANED].rpartition(" ")[0]  # half a path would not be known as one
    message = _clean(message)
    if len(message) > _LONGEST_MESSAGE:
        message = message[:_LONGEST_MESSAGE] + "…"
    message = message.rstrip(" .,")
    return f"{start}: {message}." if start else f"{message}."


def _clean(text: str) -> str:
    return " ".join(_PATH.sub("…", text).split())
