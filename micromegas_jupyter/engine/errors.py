"""Translates DataFusion's exceptions into the package's errors, based on their message prefixes.

DataFusion-Python has no error classes: it raises `ValueError` for SQL, schema, and plan, bare `Exception` for the rest,
and `PanicException` (a `BaseException`) for a panic.
"""

import contextlib
import difflib
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple

import pyarrow as pa

from micromegas_jupyter.core.protocols import TableProblem
from micromegas_jupyter.core.storage import refused_credentials
from micromegas_jupyter.engine.scanner import Kind, Scan, Token, line_and_column, scan
from micromegas_jupyter.engine.schemas import with_sql_names
from micromegas_jupyter.errors import (
    UPSTREAM_ONLY_PAGE,
    Correction,
    InternalError,
    InvalidStatement,
    MicromegasError,
    QueryError,
    ResourcesExhausted,
    StatementRefused,
    Unavailable,
    UnsupportedStatement,
)
from micromegas_jupyter.telemetry.levels import Level

_log = logging.getLogger(__name__)

_PANIC: Final = "PanicException"  # pyo3 doesn't put the class in an importable module
_MAX_SHOWN: Final = 600
# Messages repeat parts of the statement; they are truncated so that pattern matching is fast.
_MAX_MATCHED: Final = 8000
_MAX_CLEANED: Final = 1000
_MAX_LOGGED: Final = 4000

_EXPLAIN_KEYWORDS: Final = frozenset({"explain", "analyze", "verbose"})
_WRITING_KEYWORDS: Final = re.compile(
    "alter|analyze|attach|begin|call|comment|commit|copy|create|deallocate|delete|detach|drop|execute|export|grant|"
    "import|insert|install|kill|load|lock|merge|optimize|pragma|prepare|refresh|release|rename|replace|reset|revoke|"
    "rollback|savepoint|set|start|truncate|unload|update|use|vacuum"
)

_CAUSE = re.compile(r"\ncaused by\n")
_POSITION = re.compile(r"at Line: (\d+), Column: (\d+)")
_TAIL = re.compile(
    r"(?:\bbacktrace:|This issue was likely caused by a bug in DataFusion|Valid fields are|, errors: ).*", re.DOTALL
)
_VALID_FIELDS = re.compile(r"Valid fields are (.*?)\.?$", re.DOTALL)
_SECRET = re.compile(r"PyErr|Traceback|\.rs:\d|\.py\b")
# A path is a URL, or at least two parts that begin at the root, possibly within a sentence.
_PATH = re.compile(r"\b[A-Za-z][\w+.-]*://\S*|(?<![\w<])/[^\s/,;:'\"()]+/[^\s,;:'\")]*|[\w./%=@+-]*\.parquet\b")
# Rust's debug format: `: Identifier(Ident { value: …`; from there on, the text is useless to users.
_RUST_VALUE = re.compile(r":? ?\b[A-Z]\w*(?:\(\[?[A-Z]\w*)*(?: \{ |\(\[?[A-Z]\w* \{ ).*", re.DOTALL)
_RESOURCES = re.compile(r"^Resources exhausted|exceeded the allowable limit|Memory error|failed to allocate")
_DISK_FULL = re.compile(r"^Io error: .*\(os error (?:27|28|122)\)", re.DOTALL)
_REGEX = re.compile(r"regex parse error:|Compiled regex exceeds|Regular expression did not compile")
# Errors in arguments that DataFusion reports as internal errors.
_ARGUMENT = re.compile(r"array_resize: failed|Min/Max accumulator not implemented|Assertion failed: n != 0: Nth value")
# A batch's strings or lists, or a count in the statement, exceed the range of an offset or an address.
_OVERSIZED = re.compile(r"(?:offset|capacity) overflow|maximum value for offset type", re.IGNORECASE)
_NO_FIELD = re.compile(r"No field named (.+?)\.(?:\s|$)")
_NO_TABLE = re.compile(r"table '([^']*)' not found", re.IGNORECASE)
_NO_FUNCTION = re.compile(r"(?:Invalid function|table function) '([^']*)'", re.IGNORECASE)
_ARGUMENTS = re.compile(r"argument types '(\w+)\((.*?)\)'\. You might")
_UNBOUND = re.compile(r"Placeholder '([^']*)' was not provided|placeholder with name (\S+)")
_PREDICATE = re.compile(
    r'Error evaluating filter predicate: (?:ArrowError\()?(\w+)(?:\("((?:[^"\\]|\\.)*)"\))?', re.DOTALL
)
_VALUE_KIND = re.compile(r"^(?:(?:Cast|Compute|Parser|Execution|Invalid argument) error: )+")
_PARSER = re.compile(r'(?:ParserError|TokenizerError)\("(.*)"\)', re.DOTALL)
# Other programs may replace, remove, or close a file in a plain folder at any time, even during a query.
_CHANGED_FILE = re.compile(r"not found|Out of range of file", re.IGNORECASE)
_UNREADABLE_FILE = re.compile(r"Unable to open file|Permission denied|failed to fill whole buffer")
# Parquet reader errors that aren't caused by a file, but by a predicate or an unsupported feature.
_NOT_OF_THE_FILE = re.compile(
    r"evaluating filter predicate|\bNYI\b|not (?:yet )?(?:implemented|supported)", re.IGNORECASE
)


@dataclass(slots=True, kw_only=True)
class Context:
    """The context of a failure: the statement as passed to DataFusion, the caller's tables, and the unreadable ones.

    The last of `own_errors`, raised by the project's own functions during the statement, is the cause. With
    `hides_values`, errors must not contain values, because rows that the caller must not see were read.
    """

    sql: str = field(repr=False)
    tables: tuple[str, ...] = ()
    problems: Mapping[str, TableProblem] = field(default_factory=dict)
    own_errors: list[MicromegasError] = field(default_factory=list, repr=False)
    hides_values: bool = False


def is_engine_failure(error: BaseException) -> bool:
    """Return whether `error` is an ordinary exception or a panic of the engine, not a request to stop the process."""
    return isinstance(error, Exception) or type(error).__name__ == _PANIC


def translate(error: BaseException, context: Context) -> MicromegasError:
    """Return the package's error for a DataFusion error; the package's own errors are returned unchanged."""
    if isinstance(error, MicromegasError):
        return error
    if context.own_errors:
        return context.own_errors[-1]
    found = _translate(error, context)
    if isinstance(found, QueryError) and found.what == _JSONB_FIELD.what:
        return found
    # The engine's own messages repeat values and parts of plans.
    if context.hides_values and isinstance(found, UnsupportedStatement):
        return UnsupportedStatement("The engine does not implement part of the statement.")
    if context.hides_values and isinstance(found, InvalidStatement):
        return InvalidStatement(
            "The statement failed on a value, which is not shown because you may read only some rows of a table.",
            remedy="Check its casts (TRY_CAST returns NULL), divisions, and regular expressions.",
        )
    return found


@contextlib.contextmanager
def translated(context: Context) -> Iterator[None]:
    """Convert DataFusion's errors in the block to the package's errors."""
    try:
        yield
    except BaseException as error:
        if isinstance(error, MicromegasError) or not is_engine_failure(error):
            raise
        raise translate(error, context) from error


def _translate(error: BaseException, context: Context) -> MicromegasError:
    text = str(error)
    if _OVERSIZED.search(text[:_MAX_MATCHED]):
        return ResourcesExhausted(
            "The statement's strings, lists, or state exceed the engine's limit (2 GiB per batch of rows).",
            remedy="Shorten the strings and lists, or select fewer elements.",
            limit="memory",
        )
    if type(error).__name__ == _PANIC:
        return _internal(text, "the engine panicked", context)
    if _is_writing(context.sql):
        return StatementRefused("The statement would change something, but this server is read-only.")
    if isinstance(error, SystemError):  # raised by pyarrow 23 for a null in a fixed-size list parameter
        what = "A value contains a null in place of a fixed-size list."
        return InvalidStatement(what, remedy="Send variable-size lists instead.")
    if isinstance(error, pa.ArrowException):
        return explain(text, context.sql) or UnsupportedStatement(
            _sentence("A result of this kind cannot be sent", text)
        )
    causes = [cause.strip()[:_MAX_MATCHED] for cause in _CAUSE.split(text.removeprefix("DataFusion error: "))]
    return _classify(causes, context) or _internal(text, "the engine failed", context)


def _is_writing(sql: str) -> bool:
    """Return whether a failed statement looks like one that writes; affects only the error message."""
    words = [token.text.lower() for token in scan(sql).tokens if token.kind is Kind.WORD]
    if words[:1] == ["explain"]:
        words = [word for word in words[:4] if word not in _EXPLAIN_KEYWORDS]
    return bool(words) and _WRITING_KEYWORDS.fullmatch(words[0]) is not None


def _internal(text: str, event: str, context: Context) -> InternalError:
    shown = "(it may repeat values of hidden rows)" if context.hides_values else text[:_MAX_LOGGED]
    _log.error(event, extra={"engine_error": shown})
    return InternalError("The query failed because of an internal error.")


def _classify(causes: list[str], context: Context) -> MicromegasError | None:
    root = causes[-1]
    if any(_SECRET.search(cause) for cause in causes):
        return None
    if _RESOURCES.search(root):
        # The text after " for " contains expressions from the statement, which are confidential.
        _log.warning("a query ran out of resources", extra={"engine_error": root.partition(" for ")[0][:200]})
        return ResourcesExhausted(
            "The query needs more memory or disk than this server allows per query.", limit="memory"
        )
    if causes[-2:-1] == ["Invalid regex"] or _REGEX.search(root):
        return InvalidStatement(
            "A regular expression in the statement is invalid or too large.",
            remedy=r"Close its brackets, or escape them with a backslash: '\('. Use small repetition counts.",
        )
    if unbound := _UNBOUND.search(root):
        return missing_parameter([(unbound[1] or unbound[2])[:40]])
    kind, _, text = root.partition(": ")
    while kind == "Error during planning" and text.startswith("Error during planning: "):
        text = text.removeprefix("Error during planning: ")
    explain_kind = _KINDS.get(kind)
    return explain_kind(text, context) if explain_kind else None


def _syntax_error(text: str, context: Context) -> MicromegasError:
    if "RecursionLimitExceeded" in text:
        return StatementRefused("The statement is nested deeper than the parser allows.")
    parsed = _PARSER.search(text)
    message = (parsed[1] if parsed else text).replace('\\"', '"').replace("\\n", " ")
    complaint, scanned = _POSITION.sub("", message), scan(context.sql)
    end = len(context.sql.rstrip().rstrip(";").rstrip())
    position = _POSITION.search(message)
    at = _offset(context.sql, int(position[1]), int(position[2])) if position else end
    unclosed = (_open_bracket(scanned, end) or _open_case(scanned)) if scanned.is_certain else None
    error = unclosed or explain(_clean(complaint), context.sql) or _unexpected(complaint, at, scanned)
    if error.line is None and (position or "found: EOF" in message):
        error.line, error.column = line_and_column(context.sql, at)
    return error


_BRACKETS: Final = {"(": ")", "[": "]", "{": "}"}
_CLAUSES: Final = ("SELECT", "FROM", "WHERE", "GROUP", "HAVING", "ORDER", "LIMIT")
_KEYWORDS: Final = (*_CLAUSES, "JOIN", "UNION", "DISTINCT", "BETWEEN", "WITH", "DESCRIBE", "EXPLAIN")
# After these, a bracket may contain a word that otherwise begins a clause.
_WITH_KEYWORDS: Final = frozenset({"extract", "substring", "trim", "overlay", "position", "over", "group", "("})
_SIGNS: Final = {
    "#": "Begin a comment with --.",
    "!": "Write <> for not equal.",
    "&": "Write AND.",
}
_EXPECTED: Final = {
    "end of statement": "{} is not expected here.",
    "an SQL statement": "No statement begins with {}.",
    "an expression": "An expression is missing before {}.",
}
_LISTS: Final = frozenset({"select", "group", "order"})
_VALUES: Final = frozenset({Kind.WORD, Kind.QUOTED, Kind.STRING, Kind.NUMBER})


def _mistake(
    scanned: Scan, at: int, what: str, remedy: str | None = None, change: tuple[int, int, str] | None = None
) -> InvalidStatement:
    """Return an error at an offset; `change` is an offset, a length, and the replacement text."""
    line, column = line_and_column(scanned.sql, at)
    error = InvalidStatement(what, remedy=remedy, line=line, column=column)
    if change is not None:
        error.correction = Correction(*line_and_column(scanned.sql, change[0]), *change[1:])
    return error


def _offset(sql: str, line: int, column: int) -> int:
    return min(sum(len(text) + 1 for text in sql.split("\n")[: line - 1]) + column - 1, len(sql))


def _open_bracket(scanned: Scan, end: int) -> InvalidStatement | None:
    """Return the error for the first unmatched bracket, or None."""
    opened: list[int] = []
    for place, token in enumerate(scanned.tokens):
        if token.kind is Kind.OPEN:
            opened.append(place)
        elif token.kind is Kind.CLOSE and not opened:
            what, remedy = f'This "{token.text}" matches no opening one.', "Remove it, or add the one that it closes."
            return _mistake(scanned, token.start, what, remedy, (token.start, 1, ""))
        elif token.kind is Kind.CLOSE and token.text != (
            wanted := _BRACKETS[(own := scanned.tokens[opened.pop()]).text]
        ):
            what, remedy = f'This "{token.text}" does not match "{own.text}".', f'Write "{wanted}" instead.'
            return _mistake(scanned, token.start, what, remedy, (token.start, 1, wanted))
    if not opened:
        return None
    first, rest = scanned.tokens[opened[-1]], scanned.tokens[opened[-1] + 1 :]
    before = scanned.tokens[opened[-1] - 1].name if opened[-1] else ""
    is_query = bool(rest) and rest[0].name in {"select", "with", "values"}
    clause = None
    if not is_query and before not in _WITH_KEYWORDS:
        clause = next((one for one in rest if one.kind is Kind.WORD and one.text.upper() in _CLAUSES), None)
    wanted = _BRACKETS[first.text]
    where = "at the end" if clause is None else f"before {clause.text}"
    at = end if clause is None else len(scanned.sql[: clause.start].rstrip())
    what, remedy = f'This "{first.text}" is never closed.', f'Add "{wanted}", probably {where}.'
    return _mistake(scanned, first.start, what, remedy, (at, 0, wanted))


def _open_case(scanned: Scan) -> InvalidStatement | None:
    opened: list[int] = []
    for token in scanned.tokens:
        if token.kind is Kind.WORD and token.name == "case":
            opened.append(token.start)
        elif token.kind is Kind.WORD and token.name == "end" and opened:
            opened.pop()
    return _mistake(scanned, opened[-1], "CASE has no END.", "Write CASE WHEN … THEN … ELSE … END.") if opened else None


def _unexpected(complaint: str, at: int, scanned: Scan) -> InvalidStatement:
    """Return the error for an unexpected token at an offset."""
    found = re.search(r"Expected: (.{1,200}), found: (.*)", complaint)
    if found is None:
        return InvalidStatement(_sentence("The statement cannot be parsed", complaint))
    tokens = [token for token in scanned.tokens if token.start <= at]
    now = tokens.pop() if tokens and tokens[-1].start == at else None
    before = tokens[-1] if tokens else None
    for token in filter(None, (now, before)):
        written = token.text.upper()
        near = difflib.get_close_matches(written, _KEYWORDS, n=1, cutoff=0.7)
        if token.kind is Kind.WORD and near and written not in _KEYWORDS:
            what, change = f"{token.text} is not expected here.", (token.start, len(token.text), near[0])
            return _mistake(scanned, token.start, what, f"Did you mean {near[0]}?", change)
    shown = "the end" if now is None else now.text if now.kind in _VALUES else f'"{now.text}"'
    what = _EXPECTED.get(found[1], f"{_shorten(_clean(found[1]))} is expected here, not {{}}.").format(_shorten(shown))
    remedy, added = _SIGNS.get(now.text) if now else None, None
    clause = next((one.name for one in reversed(tokens) if one.text.upper() in _CLAUSES), "") in _LISTS
    if now is not None and now.text.upper() in {"GROUP", "ORDER"} and found[1] == "end of statement":
        remedy = f"{now.text.upper()} BY must come after WHERE and before LIMIT."
    elif now is not None and now.text.upper() in _CLAUSES:
        remedy = "The clauses must be in this order: SELECT, FROM, WHERE, GROUP BY, HAVING, ORDER BY, LIMIT."
    elif now and before and clause and {now.kind, before.kind} <= _VALUES and before.name not in {"by", "on", "as"}:
        remedy, added = f"Is a comma missing before {now.text}?", (before.start + len(before.text), 0, ",")
    return _mistake(scanned, at, what, remedy, added)


def _table_problem(problem: TableProblem) -> MicromegasError:
    if problem.is_elsewhere:
        return UnsupportedStatement(problem.what, remedy=problem.remedy)
    return Unavailable(problem.what, remedy=problem.remedy, retryable=problem.retryable)


def _planning_error(text: str, context: Context) -> MicromegasError:
    text = text.removeprefix("Internal error: ")
    if refused := re.match(r"(?:DDL|DML|Statement) not supported: (\w+)", text):
        return StatementRefused(f"The statement would change something ({refused[1]}), but this server is read-only.")
    if found := _NO_FIELD.search(text):
        fields = _VALID_FIELDS.search(text)
        candidates = [one.strip() for one in fields[1].split(",")] if fields else []
        return unknown_name("column", found[1], candidates, context.sql)
    if found := _NO_TABLE.search(text):
        if (problem := context.problems.get(_last_part(found[1]))) is not None:
            return _table_problem(problem)
        return unknown_name("table", found[1], context.tables, context.sql)
    if found := _NO_FUNCTION.search(text):
        return unknown_name("function", found[1], re.findall(r"Did you mean '([^']*)'", text), context.sql)
    line, column = _find_mentioned(text, context.sql)
    return (
        _wrong_arguments(text, context.sql)
        or explain(_without_tail(text), context.sql)
        or InvalidStatement(_sentence("", text), line=line, column=column)
    )


def _wrong_arguments(text: str, sql: str) -> QueryError | None:
    if (found := _ARGUMENTS.search(text)) is None:
        return None
    function, types = found.groups()
    forms = [" ".join(one.split()) for one in text.partition("Candidate functions:")[2].strip().split("\n")]
    remedy = "Use other arguments, or convert them with CAST."
    if 0 < len(forms) <= _MAX_FORMS and all(_FORM.fullmatch(one) for one in forms):
        remedy = f"It takes {' or '.join(function + one.removeprefix(function).upper() for one in forms)}."
        remedy = remedy.replace("STRING", "VARCHAR")
    line, column = find_name(function, sql)
    shown = _shorten(with_sql_names(types)) or "no arguments"
    return explain(f"{function}:{types}", sql) or InvalidStatement(
        f"The function {function} does not take {shown}.", remedy=remedy, line=line, column=column
    )


def _not_implemented(text: str, context: Context) -> MicromegasError:
    if "single SQL statement" in text:
        return StatementRefused("The request contains several statements.", remedy="Send one statement at a time.")
    kind = re.match(r"Physical plan does not support logical expression (?:Wildcard|WindowFunction)\b", text)
    explained = explain(kind[0] if kind else _without_tail(text), context.sql)
    return explained or UnsupportedStatement(_sentence("The engine does not implement this", text))


def _run_time_error(text: str, context: Context) -> MicromegasError | None:
    if _DISK_FULL.search(text):
        _log.error("the disk for spilled rows is full")
        return ResourcesExhausted(
            "The server's disk is too full to spill data that doesn't fit in memory.",
            remedy="Request less data, or try again later. The server's administrator can free space.",
            limit="memory",
        )
    if re.match(r"Parquet(?: argument)? error", text):
        return _parquet_error(text, context)
    if re.match(r"(?:External|Ipc|Io|C Data interface)(?: argument)? error", text):
        return _storage_error(text, context)
    if found := re.match(r"Error during planning: ", text):
        return _planning_error(text[found.end() :], context)
    return _value_error(text, context)


def _value_error(text: str, context: Context) -> MicromegasError:
    explained = explain(_without_tail(text), context.sql)
    return explained or InvalidStatement(_sentence("The statement failed on a value", _VALUE_KIND.sub("", text)))


def _own_error(text: str, context: Context) -> MicromegasError | None:
    if _ARGUMENT.match(text):
        return InvalidStatement("A function in the statement gets an argument that it does not take.")
    return explain(_without_tail(text), context.sql)


def _parquet_error(text: str, context: Context) -> MicromegasError | None:
    """Return the error for a Parquet reader's failure, or None if it is caused by neither the statement nor a file.

    A predicate that runs inside the reader wraps its failure. A file that was replaced while it was read looks like a
    corrupted one, and each encoding and compression codec has different messages for corruption.
    """
    if found := _PREDICATE.search(text):
        explain_kind = _not_implemented if found[1] == "NotImplemented" else _value_error
        return explain_kind((found[2] or found[1]).replace("\\n", " ").replace("\\", ""), context)
    return _storage_error(text, context) or (None if _NOT_OF_THE_FILE.search(text) else _unreadable(text))


def _storage_error(text: str, _context: Context) -> MicromegasError | None:
    if (refused := refused_credentials("A table file could not be read.", text)) is not None:
        return refused
    if _CHANGED_FILE.search(text):
        return file_gone()
    return _unreadable(text) if _UNREADABLE_FILE.search(text) else None


def file_gone() -> Unavailable:
    """Return the error for a file that was removed or replaced while a statement ran."""
    return Unavailable("A table file was removed or replaced when the query began.")


def files_removed(table: str) -> Unavailable:
    """Return the error for a table with missing files, before a statement runs."""
    return Unavailable(
        f"The table {table} cannot be read: some of its files were removed or replaced.",
        remedy="Tell the server's administrator that another program removed files that the table still needs.",
        retryable=False,
    )


def damaged_vector(table: str, why: str) -> Unavailable:
    """Return the error for a table whose deleted rows can't be identified."""
    return Unavailable(
        f"The table {table} cannot be read: a deletion vector {why}.",
        remedy="Tell the server's administrator.",
        retryable=False,
    )


def _unreadable(text: str) -> Unavailable:
    _log.error("a file of a table cannot be read", extra={"engine_error": text[:_MAX_LOGGED]})  # contains the file
    return Unavailable(
        "A table file cannot be read: it has changed, it is corrupted, or the server is not allowed to read it.",
        remedy="Try again. If the problem persists, tell the server's administrator; the server's log has details.",
    )


_KINDS: Final[Mapping[str, Callable[[str, Context], MicromegasError | None]]] = {
    "SQL error": _syntax_error,
    "Schema error": _planning_error,
    "Error during planning": _planning_error,
    "This feature is not implemented": _not_implemented,
    "Execution error": _run_time_error,
    "Internal error": _own_error,
    "Arrow error": _run_time_error,
    "Object Store error": _storage_error,
    "Parquet error": _parquet_error,
    "Invalid or Unsupported Configuration": lambda text, _context: InvalidStatement(
        _sentence("The statement asks for an unknown setting", text)
    ),
}


def missing_parameter(written: list[str]) -> InvalidStatement:
    """Return the error for placeholders without values, as spelled in the statement."""
    return InvalidStatement(
        f"The parameter {', '.join(written[:5])} has no value.",
        remedy="Send one value for each placeholder in the statement; with `micromegas query`, use -p.",
    )


def _sentence(start: str, text: str) -> str:
    """Return `text` as a sentence without paths, developer hints, or line breaks."""
    message = _TAIL.sub("", text)
    if len(message) > _MAX_CLEANED:
        message = message[:_MAX_CLEANED].rpartition(" ")[0]  # a partial path would not be recognized
    message = with_sql_names(_clean(message))
    if len(message) > _MAX_SHOWN:
        message = message[:_MAX_SHOWN] + "…"
    message = message.rstrip(" .,")
    return f"{start}: {message}." if start else f"{message}."


def _without_tail(text: str) -> str:
    return _clean(_TAIL.sub("", text))


def _clean(text: str) -> str:
    return " ".join(_PATH.sub("…", _RUST_VALUE.sub("", text)).replace("?table?.", "").split())


_MAX_NAME_LENGTH: Final = 120
_MAX_LIST_LENGTH: Final = 200
_MAX_LISTED: Final = 12
_MAX_FORMS: Final = 3
_FORM: Final = re.compile(r"\w+\((?:String|Timestamp|Time|Date|Interval|Integer|Int64|Float64|, )+\)")
_PLAIN_NAME: Final = re.compile(r"[a-z_][a-z0-9_]*")


class Rule(NamedTuple):
    """A message rule; in its strings, `{1}` is the matched group, and `{last}` the group `name` without its table.

    Without a name, the error is at the first of the tokens `at` that occurs exactly once in the statement. If that
    token has a trailing blank, the error is at the next token.
    """

    pattern: str
    what: str
    remedy: str | None = None
    name: int = 0
    kind: type[QueryError] = InvalidStatement
    at: tuple[str, ...] = ()
    correct: Callable[[re.Match[str], str], tuple[int, int, str] | None] | None = None


def explain(text: str, sql: str) -> QueryError | None:
    """Return the error for a message by the first matching rule, or None."""
    for rule in _RULES:
        if found := re.search(rule.pattern, text):
            name = _last_part(found[rule.name].strip('"')) if rule.name else ""
            groups = [_shorten(with_sql_names(group or "none")) for group in (found[0], *found.groups())]
            written = [one.format(found[0], *found.groups()) for one in rule.at]
            line, column = find_name(name, sql) if name else _find_only(written, sql)
            remedy = rule.remedy and rule.remedy.format(*groups, last=_shorten(name))
            error = rule.kind(rule.what.format(*groups), remedy=remedy, line=line, column=column)
            if rule.correct is not None and (change := rule.correct(found, sql)) is not None:
                error.correction = Correction(*line_and_column(sql, change[0]), *change[1:])
            return error
    return None


def _qualify(found: re.Match[str], sql: str) -> tuple[int, int, str] | None:
    """Return the change that qualifies a column with the first table's alias."""
    table = re.search(
        r"\bFROM\s+(\w+)(?:\s+(?:AS\s+)?(?!(?:JOIN|ON|USING|LEFT|RIGHT|FULL|INNER|CROSS|NATURAL)\b)(\w+))?",
        sql,
        re.IGNORECASE,
    )
    use = _uses(_last_part(found[1].strip('"')), sql)
    return (use[-1].start, 0, f"{table[2] or table[1]}.") if table and use else None


def _group(found: re.Match[str], sql: str) -> tuple[int, int, str] | None:
    """Return the change that groups a simple statement by a column."""
    words = [token for token in scan(sql).tokens if token.kind is Kind.WORD]
    if [token.name for token in words if token.name in {"select", "group", "over"}] != ["select"]:
        return None
    rest = next((token.start for token in words if token.name in {"having", "order", "limit"}), len(sql))
    end = len(sql[:rest].rstrip().rstrip(";").rstrip())
    return end, 0, f" GROUP BY {_quote(_last_part(found[1].strip(chr(34))))}"


def _quote_time(_found: re.Match[str], sql: str) -> tuple[int, int, str] | None:
    dates = [*re.finditer(r"(?<!['\w-])\d{4}-\d\d?-\d\d?(?!['\w-])", sql)]
    return (dates[0].start(), len(dates[0][0]), f"'{dates[0][0]}'") if len(dates) == 1 else None


def _add_interval(_found: re.Match[str], sql: str) -> tuple[int, int, str] | None:
    durations = [*re.finditer(r"[-+]\s*('\d+ [a-z]+')", sql)]
    return (durations[0].start(1), 0, "INTERVAL ") if len(durations) == 1 else None


def _level(found: re.Match[str], sql: str) -> tuple[int, int, str] | None:
    number = next(level.value for level in Level if level.name.startswith(found[1].upper()))
    tokens = [token for token in scan(sql).tokens if token.text == f"'{found[1]}'"]
    return (tokens[0].start, len(tokens[0].text), str(number)) if tokens else None


def _find_only(written: list[str], sql: str) -> tuple[int | None, int | None]:
    tokens = scan(sql).tokens
    for text in written:
        places = [place for place, token in enumerate(tokens) if token.text.upper() == text.strip().upper()]
        place = places[0] + text.endswith(" ") if len(places) == 1 else len(tokens)
        if place < len(tokens):
            return line_and_column(sql, tokens[place].start)
    return None, None


_OPERATION: Final = re.compile(r"\S ([-+*/%<>=!~&|^]{1,3}) \S")
_QUOTED: Final = re.compile(r"'([\w.]+)'")


def _find_mentioned(text: str, sql: str) -> tuple[int | None, int | None]:
    """Return the position of the quoted name in a message, or of the operator if the statement contains it once."""
    if quoted := _QUOTED.search(text):
        return find_name(_last_part(quoted[1]), sql)
    operation = _OPERATION.search(text)
    return _find_only([operation[1]], sql) if operation else (None, None)


def _shorten(text: str) -> str:
    half = _MAX_NAME_LENGTH // 2
    return text if len(text) <= _MAX_NAME_LENGTH else f"{text[:half]}…{text[1 - half :]}"


#: Statements written for maps fail in this way, regardless of the values.
_JSONB_FIELD: Final = Rule(
    r"Cannot access field at argument \d+: type (?:\w+\(\w+, )?Binary\b",
    "Binary JSON, such as properties, has no fields that [ ] or a dot could take.",
    "Write property_get(properties, 'key'), or jsonb_get(value, 'key') for a value that is not text.",
)
_TIMES: Final = "Write times in quotes as '2026-11-25T12:00:00Z', or as now() - INTERVAL '1 hour'."
_LEVELS: Final = f"Levels are numbers: {', '.join(f'{one.value} {one.name.lower()}' for one in Level)}."
_CASTS: Final = ("CAST", "::", "arrow_cast")
# fmt: off
_RULES: Final = (
    _JSONB_FIELD,
    Rule(r"^(map_keys|map_values|map_entries|map_extract|element_at):.*\bBinary\b",
         "The function {1} takes a map, and properties are binary JSON.",
         "Write property_get(properties, 'key'), or jsonb_object_keys(properties) for the keys.", name=1),
    Rule(r"Operator (->>?) is not yet supported", "The engine does not implement the operator {1}.",
         "Write property_get(properties, 'key'), or jsonb_get(value, 'key') for a value that is not text.",
         kind=UnsupportedStatement),
    Rule(r"Ambiguous reference to unqualified field (\S+)", "More than one of the tables has a column {1}.",
         "Write the table's name or alias in front of it: t.{1}.", name=1, correct=_qualify),
    Rule(r'column "([^"]+(?:"\."[^"]+)?)" must appear in the GROUP BY clause',
         "The column {1} is neither in GROUP BY nor inside an aggregate function.",
         "Add it to GROUP BY, or aggregate it, for example max({last}).", name=1, correct=_group),
    Rule(r"(?:argument types|Function) '(\w+)\b.*(?:You might|failed|coercion)",
         "The function {1} does not take these arguments.", "Use other arguments, or convert them with CAST.",
         name=1),
    Rule(r"Unsupported Value '\w*?Literal\(|Invalid HexStringLiteral", "This kind of literal is not supported.",
         "Write text as 'text', or with escapes as E'a\\n', and bytes as X'0A'."),
    Rule(r"Expected: end of statement, found: (end)\b", "The statement cannot be parsed: {1} is a keyword.",
         'A column of that name needs double quotes: "{1}".'),
    Rule("Unterminated string literal", "This quotation mark is never closed.",
         "Close it. Double a quotation mark inside text: 'it''s'."),
    Rule(r"Unsupported SQL type (.+?)\.?$", "The engine has no type named {1}.", name=1, kind=UnsupportedStatement),
    # DataFusion reports these as internal errors.
    Rule("ScalarSubqueryExpr evaluated before", "The engine does not implement a subquery in VALUES.",
         "Write SELECT … UNION ALL SELECT … in place of VALUES.", kind=UnsupportedStatement),
    Rule("Unexpected empty work table",
         "The engine does not implement a subquery over a table of WITH RECURSIVE inside its own definition.",
         "Refer to that table once, in FROM.", kind=UnsupportedStatement),
    Rule(r"Cannot run range queries on datatype: (.+?)\.?$", "A window cannot be ordered by values of the type {1}.",
         kind=UnsupportedStatement),
    Rule(r"to Timestamp\(ns\S* converted value|nanoseconds have to be between|to timestamp\[ns.*out of bounds"
         r"|^(?:\w+ error: )?Timestamp -?\d+ out of range",
         "This works only with times of the years 1677 to 2262, and the statement has another one.",
         "Leave out other times, or compare the column itself: WHERE t = TIMESTAMP '9999-12-31'. CAST(t AS DATE), "
         "extract, and intervals take all times."),
    Rule(r"Cannot cast string '((?i:fatal|error|warn|warning|info|debug|trace))' to value of Int32 type",
         "A level is a number, not '{1}'.", _LEVELS, at=("'{1}'",), correct=_level),
    Rule(r"^(?:\w+ error: )?(Cannot cast string '(.*)' to value of ((?:U?Int|Float|Decimal)\S*)) type\.?$",
         "The statement failed on a value: {1}.", "TRY_CAST returns NULL for text that is not a number.",
         at=("'{2}'", *_CASTS)),
    Rule(r"^(?:\w+ error: )?((?:Cannot cast string|Error parsing timestamp from) '(.*)'[^']*?)\.?$",
         "The statement failed on a value: {1}.",
         f"{_TIMES} TRY_CAST returns NULL for values that cannot be converted.", at=("'{2}'", *_CASTS)),
    Rule(r"^(?:\w+ error: )?((?:Can(?:no|')t cast|Failed to parse string).*?)\.?$",
         "The statement failed on a value: {1}.",
         f"TRY_CAST returns NULL for values that cannot be converted. {_TIMES}", at=_CASTS),
    Rule(r'Invalid input syntax for type interval: "(.*)"', "This is not an interval: {1}.",
         "Write, for example, INTERVAL '1 hour', INTERVAL '30 minutes', or INTERVAL '2 days'.", at=("'{1}'",)),
    Rule(r"Unsupported date_trunc granularity: '(.*?)'\. Supported values are: (.*?)\.?$",
         "The function date_trunc has no unit {1}.", "The units are {2}.", at=("'{1}'", "date_trunc")),
    Rule(r"non-boolean predicate '(.*)' returning (.+?)\.?$", "A condition is needed here, but {1} is {2}.",
         "Compare it with a value, or add IS NOT NULL.", at=("WHERE ", "HAVING ", "ON ")),
    Rule(r"logical boolean operation (.{1,200}) (AND|OR) (.{1,200}?)\.?$",
         "{2} needs conditions on both sides, but they are {1} and {3}.",
         "Compare each with a value, or add IS NOT NULL.", at=("{2}",)),
    Rule(r"comparison operation (Timestamp.{0,99}? (\S{1,3}) .{1,200}|.{1,200} (\S{1,3}) Timestamp.{0,99})$",
         "These types cannot be compared: {1}.", _TIMES, at=("{2}", "{3}"), correct=_quote_time),
    Rule(r"comparison operation (.{1,200}? (\S{1,3}) .{1,200})$", "These types cannot be compared: {1}.",
         "Convert one side with CAST.", at=("{2}",)),
    Rule(r"expression ((?:Timestamp|Date).{0,99} ([-+]) .{1,99}|.{1,99} ([-+]) (?:Timestamp|Date).{0,99}) to valid",
         "These types do not go together: {1}.",
         "Write a duration as an interval: now() - INTERVAL '1 hour'.", at=("{2}", "{3}"), correct=_add_interval),
    Rule(r"expression (.{1,200} (\S) .{1,200}) to valid types", "These types do not go together: {1}.",
         "Convert text with CAST(… AS DOUBLE), or join texts with ||.", at=("{2}",)),
    Rule(r"common type to coerce (.{1,200}) and (.{1,200}) in (\w+) expression",
         "{3} needs text on both sides, but they are {1} and {2}.",
         "Convert numbers with CAST(… AS VARCHAR), or compare them with = or BETWEEN.", at=("{3}", "ILIKE")),
    Rule("Aggregate functions are not allowed in the WHERE", "WHERE filters single rows and cannot aggregate.",
         "Move this condition to HAVING, after GROUP BY.", at=("WHERE ",)),
    Rule(r"^HAVING clause references: (.+) must appear in the GROUP BY",
         "HAVING filters groups and cannot use single rows: {1}.",
         "Move conditions on rows to WHERE, before GROUP BY.", at=("HAVING ",)),
    Rule("Aggregate function calls cannot be nested", "Aggregate functions cannot be nested.",
         "Aggregate in a subquery first: SELECT max(n) FROM (SELECT count(*) AS n FROM … GROUP BY …)."),
    Rule("queries have different number of columns",
         "The two sides of UNION, INTERSECT, or EXCEPT have different numbers of columns.",
         "Select the same number of columns on both sides.", at=("UNION", "INTERSECT", "EXCEPT")),
    Rule("require unique expression names", "Two columns of SELECT have the same name.", "Rename one of them with AS."),
    Rule("Scalar subquery returned more than one row", "A subquery used as a value returned more than one row.",
         "Aggregate it, for example with max, add LIMIT 1, or compare with IN."),
    Rule("The subquery should only return one column", "The subquery to compare with returns several columns.",
         "Select only one column in it.", at=("IN ", "SELECT")),
    Rule(r"Order by (column) out of bounds, specified: (\d+)|Cannot find column with (position) (\d+) in SELECT clause",
         "SELECT has fewer columns.",
         "Use a column's name, or its number in SELECT, starting at 1.", at=("{2}", "{4}")),
    Rule(r"ORDER BY expressions (\S+) must appear in select list",
         "With DISTINCT, ORDER BY can use only the columns of SELECT, not {1}.",
         "Add it to SELECT, or remove DISTINCT.", at=("ORDER",)),
    Rule(r"Unary operator 'NOT' requires a boolean expression, got (.+?)\.?$", "NOT needs a condition, not {1}.",
         "Compare it with a value, or write IS NULL instead.", at=("NOT",)),
    Rule("^TOP$", "The engine does not implement TOP.", "Write LIMIT at the end of the statement.", at=("TOP",),
         kind=UnsupportedStatement),
    Rule("binary operator: PGOverlap", "The engine does not implement the operator &&.", "Write AND.",
         kind=UnsupportedStatement),
    Rule("expression Wildcard", "Only count takes *.", "Write the name of a column."),
    Rule("expression WindowFunction", "A window function is allowed only in SELECT and ORDER BY.",
         "Compute it in a subquery and filter outside: SELECT * FROM (SELECT …, lag(…) OVER (…) AS n …) WHERE n > 1."),
    Rule("^Divide ?[bB]y ?[zZ]ero", "The statement divides by zero.",
         "Divide by NULLIF(divisor, 0) to get NULL instead."),
)
# fmt: on

_ONLY_UPSTREAM: Final = "Only Micromegas's own server has it."
_AUDIENCES: Final = "Roles take the place of Micromegas's audiences. " + UPSTREAM_ONLY_PAGE
#: Remedies for names that exist only in Micromegas's own server. Remove names that this server implements.
_UPSTREAM_FUNCTIONS: Final = {
    r"view_instance": "Query the table itself, for example FROM log_entries WHERE process_id = '…'.",
    r"parse_block|get_payload": "Only rows are kept here, not the bytes they came in: WHERE block_id = '…' finds them. "
    + UPSTREAM_ONLY_PAGE,
    r"rgba|lerp_color|color_scale": "Only Micromegas's web app uses it. Charts here choose colors: --plot, --color.",
    r"list_audience_grants": _AUDIENCES,
    r"deny_queries|list_query_denials|remove_query_denial": "It is for administrators, on a server with a lake.",
}
_UPSTREAM_TABLES: Final = {
    r"images|net_spans|async_events|thread_spans": "Name a process or a stream: view_instance('…', 'its id').",
    r"__(?:blocks|log_stats)__partitions": _ONLY_UPSTREAM,
}
_UPSTREAM_COLUMNS: Final = {r"audience": _AUDIENCES}
_OTHER_FUNCTIONS: Final = {
    **_UPSTREAM_FUNCTIONS,
    r"ii?f": "Write CASE WHEN condition THEN this ELSE that END.",
    r"date_?(?:add|sub|diff)": "Add or subtract intervals and times: now() - INTERVAL '1 day'.",
    r"getdate|sysdate|curdate": "Write now().",
    r"percentile|quantile": "Write approx_percentile_cont(0.95) WITHIN GROUP (ORDER BY column).",
}
#: Maps other systems' names to this system's names.
_OTHER_NAMES: Final = {
    "message": "msg", "timestamp": "time", "severity": "level", "logs": "log_entries", "metrics": "measures",
    "spans": "otel_spans", "traces": "otel_spans", "average": "avg", "mean": "avg", "len": "length",
}  # fmt: skip
_COMPARISONS: Final = frozenset({"=", "==", "<>", "!=", "<", ">", "<=", ">=", "LIKE", "ILIKE"})
_NAMES: Final = frozenset({Kind.WORD, Kind.QUOTED})
_WINDOW_FUNCTIONS: Final = frozenset(
    {"row_number", "rank", "dense_rank", "percent_rank", "cume_dist", "ntile", "lag", "lead"}
)


def unknown_name(
    kind: Literal["column", "table", "function"], name: str, candidates: Iterable[str], sql: str
) -> InvalidStatement:
    """Return the error for an unknown name; names are spelled as in DataFusion, with dots and quotes."""
    last = _last_part(name)
    shown = " ".join(name.removeprefix("datafusion.").removeprefix("public.").split())[:_MAX_NAME_LENGTH]
    candidates = list(candidates)
    known = sorted({_last_part(one) for one in candidates})
    owners = sorted({_first_part(one) for one in candidates if "." in one})
    what: str = kind
    if kind == "column" and last in known and "." in name and _first_part(name) not in owners:
        what, known = "table or alias", owners
        shown = last = _first_part(name)
    tokens = _uses(last, sql)
    line, column = line_and_column(sql, tokens[-1].start) if tokens else (None, None)
    remedy, better = _remedy_by_kind(what, last, sql), None
    if remedy is None:
        remedy, better = _suggest(tokens, last, known, kind=what)
    error = InvalidStatement(f"There is no {what} named {shown}.", remedy=remedy, line=line, column=column)
    if line and column and better is not None:
        error.correction = Correction(line, column, len(tokens[-1].text), better)
    return error


def _uses(name: str, sql: str) -> list[Token]:
    """Return the token where a name is first used (not as an alias), preceded by two tokens; empty if unused."""
    tokens = scan(sql).tokens
    for written in (name, name.lower()):
        places = [place for place, one in enumerate(tokens) if one.kind in _NAMES and one.name == written]
        if places:
            place = next((one for one in places if not one or tokens[one - 1].name != "as"), places[0])
            return [*tokens[max(place - 2, 0) : place + 1]]
    return []


def _remedy_by_kind(what: str, name: str, sql: str) -> str | None:
    if what == "function" and name in _WINDOW_FUNCTIONS and not re.search(r"\bover\b", sql, re.IGNORECASE):
        return f"{name} needs a window: {name}(…) OVER (ORDER BY …)."
    if what == "column" and re.search(rf"\bAS\s+{re.escape(name)}\b", sql, re.IGNORECASE):
        return "An alias of SELECT cannot be used here. Repeat its expression, or use a subquery."
    known = {"table": _UPSTREAM_TABLES, "function": _OTHER_FUNCTIONS, "column": _UPSTREAM_COLUMNS}.get(what, {})
    return next((remedy for names, remedy in known.items() if re.fullmatch(names, name.lower())), None)


def _suggest(tokens: list[Token], name: str, known: list[str], *, kind: str) -> tuple[str | None, str | None]:
    """Return the remedy for an unknown name, and the replacement for the last of the tokens."""
    is_compared = len(tokens) > 2 and tokens[-2].text.upper() in _COMPARISONS  # noqa: PLR2004
    others = {old: new for old, new in _OTHER_NAMES.items() if new in known or kind == "function"}
    others |= {one.lower(): one for one in known if one != name and not (is_compared and one == tokens[-3].name)}
    if close := difflib.get_close_matches(name.lower(), sorted(others), n=1, cutoff=0.6):
        better = _quote(others[close[0]])
        return f"Did you mean {better}?", better
    if name in known and kind == "table":
        return f"Write {_quote(name)} without a schema.", None
    if (tokens and tokens[-1].kind is Kind.QUOTED) or (is_compared and kind == "column"):
        return "Write text in single quotes (') and names in double quotes.", "'" + name.replace("'", "''") + "'"
    listed = ", ".join(_quote(one) for one in known[: _MAX_LISTED + 1])
    # DataFusion suggests one function out of hundreds, which is worth showing only as a guess.
    is_short = 0 < len(listed) <= _MAX_LIST_LENGTH and len(known) <= _MAX_LISTED
    if kind == "column" and known and not is_short:
        return "DESCRIBE table lists a table's columns.", None
    return (f"Known here: {listed}." if is_short and kind != "function" else None), None


def _quote(name: str) -> str:
    """Return a name as spelled in a statement, quoted if necessary, and truncated."""
    shown = name[:_MAX_NAME_LENGTH]
    return shown if _PLAIN_NAME.fullmatch(shown) else '"' + shown.replace('"', '""') + '"'


def _last_part(name: str) -> str:
    """Return the last part of a dotted name, without quotes: `t."a.b"` is `a.b`."""
    return name[:-1].rpartition('"')[2] if name.endswith('"') else name.rpartition(".")[2]


def _first_part(name: str) -> str:
    return name.partition(".")[0].strip('"')


def find_name(name: str, sql: str) -> tuple[int | None, int | None]:
    """Return the line and column where a name first occurs, or None for both."""
    tokens = _uses(name, sql)
    return line_and_column(sql, tokens[-1].start) if tokens else (None, None)
