"""Turns what DataFusion raises into the package's errors, by the prefixes of its texts, with a place and a suggestion.

DataFusion-Python has no classes for its errors: `ValueError` for SQL, schema and plan, bare `Exception` for the rest
and `PanicException` (a `BaseException`) for a panic. Which query failed, and what a client is told beyond the error's
own sentence, the server adds.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import pyarrow as pa

from micromegas_jupyter.engine.explanations import (
    Explanation,
    explain_planning,
    explain_syntax,
    explain_unsupported,
    explain_value,
)
from micromegas_jupyter.engine.file_errors import file_error, parquet_error
from micromegas_jupyter.engine.scanner import Kind, place_of, scan
from micromegas_jupyter.engine.unknown_names import find_name, unknown_name
from micromegas_jupyter.errors import (
    InternalError,
    InvalidStatement,
    MicromegasError,
    ResourcesExhausted,
    StatementRefused,
    UnsupportedStatement,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_log = logging.getLogger(__name__)

_PANIC: Final = "PanicException"  # pyo3 gives the class no module to import it from
_LONGEST_MESSAGE: Final = 600
# Messages repeat parts of the statement; what is looked through is cut first, so that no pattern runs long.
_LONGEST_READ: Final = 8000
_LONGEST_CLEANED: Final = 1000
_LONGEST_LOGGED: Final = 4000
_MORE_MEMORY: Final = "The query needs more memory or disk than this server gives one query."

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
# How Rust writes its own values: `: Identifier(Ident { value: …`; from there on nothing is meant for people.
_INNER = re.compile(r":? ?\b[A-Z]\w*(?:\(\[?[A-Z]\w*)*(?: \{ |\(\[?[A-Z]\w* \{ ).*", re.DOTALL)
_DISK_FULL = re.compile(r"^Io error: .*\(os error (?:27|28|122)\)", re.DOTALL)
_REGEX = re.compile(r"External error: (?:regex parse error|Compiled regex exceeds)")
# Complaints about arguments that DataFusion takes for defects of its own.
_ARGUMENT = re.compile(r"array_resize: failed|Min/Max accumulator not implemented|Assertion failed: n != 0: Nth value")
# A batch's texts or lists, or a count in the statement, are larger than an offset or an address can be.
_OVERSIZED = re.compile(r"(?:offset|capacity) overflow|maximum value for offset type", re.IGNORECASE)
_NO_FIELD = re.compile(r"No field named (.+?)\.(?:\s|$)")
_NO_TABLE = re.compile(r"table '([^']*)' not found", re.IGNORECASE)
_NO_FUNCTION = re.compile(r"(?:Invalid function|table function) '([^']*)'", re.IGNORECASE)
_UNBOUND = re.compile(r"Placeholder '([^']*)' was not provided|placeholder with name (\S+)")
_PREDICATE = re.compile(r'Error evaluating filter predicate: ArrowError\((\w+)(?:\("((?:[^"\\]|\\.)*)"\))?', re.DOTALL)
_VALUE_KIND = re.compile(r"^(?:(?:Cast|Compute|Parser|Execution|Invalid argument) error: )+")
_PARSER = re.compile(r'(?:ParserError|TokenizerError)\("(.*)"\)', re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What helps to explain a failure.

    Attributes:
        sql: The statement as DataFusion got it.
        tables: Names of the caller's tables.
        own_errors: What the project's own functions raised while the statement ran; the last one is the cause.
        hides_values: Whether an error must show no value, since rows that the caller must not see were read.
    """

    sql: str = field(repr=False)
    tables: tuple[str, ...] = ()
    own_errors: list[MicromegasError] = field(default_factory=list, repr=False)
    hides_values: bool = False


def is_engine_failure(error: BaseException) -> bool:
    """Return whether `error` is an ordinary exception or a panic of the engine, not a wish to stop the process."""
    return isinstance(error, Exception) or type(error).__name__ == _PANIC


def translate(error: BaseException, context: Context) -> MicromegasError:
    """Return the package's error for what DataFusion raised; an error of the package is returned as it is."""
    if isinstance(error, MicromegasError):
        return error
    if context.own_errors:
        return context.own_errors[-1]
    found = _found(error, context)
    return _without_values(found) if context.hides_values else found


def _without_values(error: MicromegasError) -> MicromegasError:
    """Return `error` without the engine's own words, which repeat values and parts of plans."""
    if isinstance(error, UnsupportedStatement):
        return UnsupportedStatement("The engine does not implement a part of the statement.")
    if isinstance(error, InvalidStatement):
        return InvalidStatement(
            "The statement failed on a value, which is not shown, since you see some rows of a table only.",
            remedy="Look at its casts (TRY_CAST gives NULL), divisions and regular expressions.",
        )
    return error


def _found(error: BaseException, context: Context) -> MicromegasError:
    text = str(error)
    if _OVERSIZED.search(text[:_LONGEST_READ]):
        return _oversized()
    if type(error).__name__ == _PANIC:
        return _internal(text, "the engine panicked", context)
    if _is_writing(context.sql):
        return StatementRefused("The statement would change something, and this server only reads.")
    if isinstance(error, pa.ArrowException):
        return _conversion_error(text, context)
    parts = [part.strip()[:_LONGEST_READ] for part in _CAUSE.split(text.removeprefix("DataFusion error: "))]
    found = _classify(parts[-1], parts, context)
    return found or _internal(text, "the engine failed", context)


def _oversized() -> ResourcesExhausted:
    return ResourcesExhausted(
        "The statement makes texts, lists or a state larger than the engine can hold (2 GiB for a batch of rows).",
        remedy="Make shorter texts and lists, or ask for a smaller number of elements.",
        limit="memory",
    )


def _conversion_error(text: str, context: Context) -> MicromegasError:
    """Return the error for a result that pyarrow cannot take over or convert to its form on the wire."""
    if "Recursion level" in text:
        return UnsupportedStatement("The result's type is nested too deep.")
    if "Null byte at position" in text:
        return InvalidStatement(
            "The name of a column in the result has a NUL character in it.",
            remedy="Give the column another name: SELECT … AS name.",
        )
    if "out of bounds timestamp" in text:
        return InvalidStatement(
            "A time in the result is outside the years 1677 to 2262, which nanoseconds can hold.",
            remedy="Ask for it as text: CAST(x AS VARCHAR).",
        )
    return _internal(text, "a result could not be converted", context)


def _is_writing(sql: str) -> bool:
    """Return whether a statement that failed begins like one that writes; only chooses the words of the refusal."""
    words = [token.text.lower() for token in scan(sql).tokens if token.kind is Kind.WORD]
    if words[:1] == ["explain"]:
        words = [word for word in words[:4] if word not in _EXPLAINING]
    return bool(words) and words[0] in _WRITING


def _internal(text: str, event: str, context: Context) -> InternalError:
    shown = "(it may repeat values of hidden rows)" if context.hides_values else text[:_LONGEST_LOGGED]
    _log.error(event, extra={"engine_error": shown})
    return InternalError("The query failed for a reason inside the server.")


def _classify(root: str, parts: list[str], context: Context) -> MicromegasError | None:
    if any(_SECRETIVE.search(part) for part in parts):
        return None
    if _is_about_resources(root):
        # What follows names expressions of the statement, which is the caller's own business.
        _log.warning("a query ran out of resources", extra={"engine_error": root.partition(" for ")[0][:200]})
        return ResourcesExhausted(_MORE_MEMORY, limit="memory")
    if root.startswith("External error: ") and (_REGEX.match(root) or parts[-2:-1] == ["Invalid regex"]):
        return InvalidStatement("A regular expression in the statement is not valid.")
    kind, rest = _split(root)
    explain = _KINDS.get(kind)
    return explain(rest, context) if explain else None


def _is_about_resources(root: str) -> bool:
    return root.startswith("Resources exhausted") or any(
        words in root for words in ("exceeded the allowable limit", "Memory error", "failed to allocate")
    )


def _split(text: str) -> tuple[str, str]:
    kind, _, rest = text.partition(": ")
    if kind == "Error during planning" and rest.startswith("Error during planning: "):
        return _split(rest)
    return kind, rest.removeprefix("Internal error: ") if kind == "Error during planning" else rest


def _sql_error(text: str, context: Context) -> MicromegasError:
    if "RecursionLimitExceeded" in text:
        return StatementRefused("The statement nests deeper than the parser goes.")
    parsed = _PARSER.search(text)
    message = (parsed[1] if parsed else text).replace('\\"', '"').replace("\\n", " ")
    found = _PLACE.search(message)
    place = (int(found[1]), int(found[2])) if found else _end_of(context.sql) if "found: EOF" in message else None
    told = _PLACE.sub("", message)
    explained = explain_syntax(_clean(told)) or Explanation(what=_sentence("The statement cannot be parsed", told))
    line, column = place or (None, None)
    return InvalidStatement(explained.what, remedy=explained.remedy, line=line, column=column)


def _end_of(sql: str) -> tuple[int, int]:
    return place_of(sql, len(sql.rstrip().rstrip(";").rstrip()))


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
            return unknown_name(what, found[1], candidates, context.sql)
    if explained := explain_planning(_clean(_without_tail(text))):
        return _explained(explained, context)
    return InvalidStatement(_sentence("", text))


def _explained(explained: Explanation, context: Context) -> InvalidStatement:
    line, column = (None, None) if explained.name is None else find_name(explained.name, context.sql)
    return InvalidStatement(explained.what, remedy=explained.remedy, line=line, column=column)


def _not_implemented(text: str, context: Context) -> MicromegasError:
    if "single SQL statement" in text:
        return StatementRefused("The text holds several statements.", remedy="Send one statement at a time.")
    if explained := explain_unsupported(_clean(_without_tail(text))):
        line, column = (None, None) if explained.name is None else find_name(explained.name, context.sql)
        return UnsupportedStatement(explained.what, remedy=explained.remedy, line=line, column=column)
    return UnsupportedStatement(_sentence("The engine does not implement this", text))


def _run_time_error(text: str, context: Context) -> MicromegasError | None:
    if unbound := _UNBOUND.search(text):
        return _unbound(unbound[1])
    if _DISK_FULL.search(text):
        _log.error("the disk for spilled rows is full")
        return ResourcesExhausted(
            "The server has no room left on its disk for what does not fit into memory.",
            remedy="Ask for less at a time, or try again later; the server's administrator can make room.",
            limit="memory",
        )
    if re.match(r"Parquet(?: argument)? error", text):
        return parquet_error(text)
    if re.match(r"(?:External|Ipc|Io|C Data interface)(?: argument)? error", text):
        return file_error(text)
    if found := re.match(r"Error during planning: ", text):
        return _planning_error(text[found.end() :], context)
    return _value_error(text, context)


def _value_error(text: str, context: Context) -> InvalidStatement:
    if explained := explain_value(_clean(_without_tail(text))):
        return _explained(explained, context)
    return InvalidStatement(_sentence("The statement failed on a value", _VALUE_KIND.sub("", text)))


def _own_error(text: str, context: Context) -> MicromegasError | None:
    if explained := explain_unsupported(_clean(_without_tail(text))):
        return UnsupportedStatement(explained.what, remedy=explained.remedy)
    if explained := explain_planning(_clean(_without_tail(text))):
        return _explained(explained, context)
    if _ARGUMENT.match(text) is None:
        return None
    return InvalidStatement("A function in the statement does not take an argument that it gets.")


def _parquet_error(text: str, context: Context) -> MicromegasError | None:
    """A predicate that runs inside the reader wraps its failure; all other failures are the file's."""
    found = _PREDICATE.search(text)
    if found is None:
        return parquet_error(text)
    message = found[2] or ("Divide by zero error" if found[1] == "DivideByZero" else "a predicate cannot be evaluated")
    return _value_error(message.replace("\\n", " ").replace("\\", ""), context)


def _storage_error(text: str, context: Context) -> MicromegasError | None:
    del context
    return file_error(text)


def _configuration_error(text: str, context: Context) -> MicromegasError:
    del context
    return InvalidStatement(_sentence("The statement asks for an unknown setting", text))


_KINDS: Final[Mapping[str, Callable[[str, Context], MicromegasError | None]]] = {
    "SQL error": _sql_error,
    "Schema error": _planning_error,
    "Error during planning": _planning_error,
    "This feature is not implemented": _not_implemented,
    "Execution error": _run_time_error,
    "Internal error": _own_error,
    "Arrow error": _run_time_error,
    "Object Store error": _storage_error,
    "Parquet error": _parquet_error,
    "Invalid or Unsupported Configuration": _configuration_error,
}


def _unbound(placeholder: str) -> InvalidStatement:
    return InvalidStatement(
        f"No value was given for the parameter {placeholder[:40]}.",
        remedy="Send one value for each placeholder of the statement.",
    )


def _valid_fields(text: str) -> list[str]:
    found = _VALID_FIELDS.search(text)
    return [one.strip() for one in found[1].split(",")] if found else []


def _suggested_functions(text: str) -> list[str]:
    found = re.search(r"Did you mean '([^']*)'", text)
    return [found[1]] if found else []


def _sentence(start: str, text: str) -> str:
    """Return a sentence of `text` without paths, hints for developers and line breaks."""
    message = _without_tail(text)
    if len(message) > _LONGEST_CLEANED:
        message = message[:_LONGEST_CLEANED].rpartition(" ")[0]  # half a path would not be known as one
    message = _clean(message)
    if len(message) > _LONGEST_MESSAGE:
        message = message[:_LONGEST_MESSAGE] + "…"
    message = message.rstrip(" .,")
    return f"{start}: {message}." if start else f"{message}."


def _without_tail(text: str) -> str:
    return _TAIL.sub("", text)


def _clean(text: str) -> str:
    return " ".join(_PATH.sub("…", _INNER.sub("", text)).replace("?table?.", "").split())
