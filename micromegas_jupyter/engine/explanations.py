"""Explains DataFusion's most common complaints about a statement, with a remedy and a position.

`errors` decides which class an error gets and what of other texts may be shown.
"""

from __future__ import annotations

import difflib
import re
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from micromegas_jupyter.engine.scanner import Kind, line_and_column, scan
from micromegas_jupyter.errors import InvalidStatement, QueryError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_MAX_NAME_LENGTH: Final = 120
_MAX_LIST_LENGTH: Final = 200
_MAX_LISTED: Final = 12
_PLAIN_NAME: Final = re.compile(r"[a-z_][a-z0-9_]*")


class Rule(NamedTuple):
    """One complaint: in the texts, `{1}` is the pattern's first group and `{last}` the name without its table.

    `name` is the group that holds a name of the statement, to find its position; 0 for none.
    """

    pattern: str
    what: str
    remedy: str | None = None
    name: int = 0


def explain(
    rules: tuple[Rule, ...], text: str, sql: str, kind: type[QueryError] = InvalidStatement
) -> QueryError | None:
    """Return the error for a complaint by the first rule that matches, or None."""
    for rule in rules:
        if found := re.search(rule.pattern, text):
            name = _last_part(found[rule.name].strip('"')) if rule.name else ""
            groups = [_shorten(group or "none") for group in (found[0], *found.groups())]
            line, column = find_name(name, sql) if name else (None, None)
            remedy = rule.remedy and rule.remedy.format(*groups, last=_shorten(name))
            return kind(rule.what.format(*groups), remedy=remedy, line=line, column=column)
    return None


def _shorten(text: str) -> str:
    half = _MAX_NAME_LENGTH // 2
    return text if len(text) <= _MAX_NAME_LENGTH else f"{text[:half]}…{text[1 - half :]}"


_CONVERT: Final = "Use other arguments, or convert them with CAST."
_CONVERT_ONE: Final = "Convert one side with CAST."
_TRY_CAST: Final = "TRY_CAST returns NULL for values that cannot be converted."

PLANNING: Final = (
    Rule(
        r"Ambiguous reference to unqualified field (\S+)",
        "More than one of the tables has a column {1}.",
        "Write the table's name or alias in front of it: t.{1}.",
        name=1,
    ),
    Rule(
        r'column "([^"]+(?:"\."[^"]+)?)" must appear in the GROUP BY clause',
        "The column {1} is neither in GROUP BY nor inside an aggregate function.",
        "Add it to GROUP BY, or aggregate it, for example max({last}).",
        name=1,
    ),
    Rule(
        r"non-boolean predicate '?(.+?)'? returning (\w+)",
        "A condition must be true or false, and {1} is {2}.",
        "Compare it with something.",
        name=1,
    ),
    Rule(
        r"No function matches the given name and argument types '(\w+)\(([^']*)\)'",
        "The function {1} does not take these arguments: {2}.",
        _CONVERT,
        name=1,
    ),
    Rule(
        r"Function '(\w+)' (?:failed to match any signature|user-defined coercion failed)",
        "The function {1} does not take these arguments.",
        _CONVERT,
        name=1,
    ),
    Rule(
        r"(?:Cannot coerce arithmetic expression|Cannot infer common argument type for (?:comparison|logical boolean) "
        r"operation|Cannot get result type for temporal operation|Failed to coerce types|There isn't a common type "
        r"to coerce) (.+?)(?: to valid types| in \w+ expression|: |\.?$)",
        "The types do not fit together: {1}.",
        _CONVERT_ONE,
    ),
    Rule(
        r"Unsupported Value '\w*?Literal\(|Invalid HexStringLiteral",
        "This kind of literal is not supported.",
        "Write text as 'text', or with escapes as E'a\\n', and bytes as X'0A'.",
    ),
    Rule(
        "(UNION|INTERSECT|EXCEPT) queries have different number of columns",
        "The two sides of {1} have different numbers of columns.",
        "Select as many columns on both sides, with NULL for missing ones.",
    ),
    Rule(
        "Aggregate functions are not allowed in the WHERE clause",
        "WHERE filters single rows and cannot contain an aggregate function.",
        "Put the condition into HAVING.",
    ),
)

UNSUPPORTED: Final = (
    Rule(
        r"Cannot run range queries on datatype: (.+?)\.?$",
        "A window cannot be ordered by values of the type {1}.",
        "Order by encode(bytes, 'hex') or by the fields of a struct.",
    ),
    Rule(r"Unsupported ast node (?:in \w+: )?(\w+)", "The engine does not implement {1}."),
    Rule(
        r"Unsupported SQL type (.+?)\.?$",
        "The engine has no type named {1}.",
        "Use BIGINT, DOUBLE, DECIMAL(p, s), VARCHAR, BOOLEAN, DATE, TIMESTAMP or INTERVAL, for example.",
        name=1,
    ),
)

VALUES: Final = (
    Rule("^Divide by zero", "The statement divides by zero.", "Divide by NULLIF(divisor, 0) to get NULL instead."),
    Rule(
        r"^(?:\w+ error: )?((?:Can(?:no|')t cast (?:string|value|to)|Failed to parse string|Error parsing timestamp"
        r" from ).*?)\.?$",
        "The statement failed on a value: {1}.",
        f"{_TRY_CAST} Write times as '2026-11-25T12:00:00Z'.",
    ),
    Rule(
        "Timestamp out of range|represented as nanoseconds|Date arithmetic overflow|out of bounds timestamp",
        "A time is outside the years 1677 to 2262, the range of nanoseconds, or a date is out of range.",
        "Use a shorter interval, or keep the value as text: CAST(x AS VARCHAR).",
    ),
    Rule(
        r"^(.*(?:[Oo]verflow|too large to store).*?)\.?$",
        "A result is out of range for its type: {1}.",
        "Convert to a larger type first, for example with CAST(x AS DOUBLE) or CAST(x AS DECIMAL(38, 0)).",
    ),
    Rule(
        "Scalar subquery returned more than one row",
        "A subquery that stands for one value returned several rows.",
        "Compare with IN (…), or take one row with LIMIT 1 or an aggregate function.",
    ),
    Rule("Regular expression did not compile", "A regular expression in the statement is not valid."),
)

SYNTAX: Final = (
    Rule(
        r"Expected: end of statement, found: (.*?)\s*$",
        "Did not expect {1} here.",
        "Is a comma, an operator or a keyword missing or misspelled before it?",
    ),
    Rule(
        "Unterminated string literal", "The text that begins here is not closed.", "Close it with a single quote (')."
    ),
    Rule("Expected close delimiter '(.)'", "The name that begins here is not closed.", "Close it with {1}."),
    Rule("Unexpected EOF while in a multi-line comment", "A comment is not closed.", "Close it with */."),
    Rule(r"Expected: (.+?), found: EOF", "The statement ends too early: {1} is missing.", "Complete it."),
    Rule(r"Expected: (.+?), found: (.*?)\s*$", "Expected {1} here, not {2}."),
)

_ONLY_UPSTREAM: Final = "Only Micromegas's own server has it."
_FUNCTIONS: Final = {
    "view_instance": "Query the table itself, for example FROM log_entries WHERE process_id = '…'.",
    "list_partitions list_view_sets retire_partitions retire_partition_by_metadata retire_partition_by_file "
    "materialize_partitions regenerate_partitions": "This server merges and drops the files of its tables by itself; "
    "there are no partitions.",
    "property_get properties_length properties_to_jsonb properties_to_dict properties_to_array": "Properties are a map "
    "here: write properties['key'] or map_keys(properties).",
    "process_spans perfetto_trace_chunks parse_block get_payload "
    "jsonb_parse jsonb_format_json jsonb_get jsonb_as_string jsonb_as_f64 jsonb_as_i64 "
    "jsonb_object_keys jsonb_array_length jsonb_array_elements jsonb_each jsonb_path_query jsonb_path_query_first "
    "make_histogram sum_histograms quantile_from_histogram variance_from_histogram "
    "sum_from_histogram count_from_histogram expand_histogram": _ONLY_UPSTREAM,
    "deny_queries list_query_denials remove_query_denial": "It is for administrators, on a server with a lake.",
}
_TABLES: Final = (
    "blocks log_stats images net_spans async_events thread_spans otel_spans "
    "__blocks__partitions __log_stats__partitions"
)
#: What to do about names that only Micromegas's own server has. One that this server learns leaves this list.
UPSTREAM_FUNCTIONS: Final[Mapping[str, str]] = MappingProxyType(
    {name: remedy for names, remedy in _FUNCTIONS.items() for name in names.split()}
)
UPSTREAM_TABLES: Final[Mapping[str, str]] = MappingProxyType(dict.fromkeys(_TABLES.split(), _ONLY_UPSTREAM))
_WINDOW_FUNCTIONS: Final = frozenset(
    {"row_number", "rank", "dense_rank", "percent_rank", "cume_dist", "ntile", "lag", "lead"}
)


def unknown_name(
    kind: Literal["column", "table", "function"], name: str, candidates: Iterable[str], sql: str
) -> InvalidStatement:
    """Return the error for an unknown name; it and `candidates` are written as in DataFusion, with dots and quotes."""
    last = _last_part(name)
    shown = " ".join(name.removeprefix("datafusion.").removeprefix("public.").split())[:_MAX_NAME_LENGTH]
    candidates = list(candidates)
    known = sorted({_last_part(one) for one in candidates})
    owners = sorted({_first_part(one) for one in candidates if "." in one})
    what: str = kind
    if kind == "column" and last in known and "." in name and _first_part(name) not in owners:
        what, known = "table or alias", owners
        shown = last = _first_part(name)
    line, column = find_name(last, sql)
    return InvalidStatement(
        f"There is no {what} named {shown}.",
        remedy=_remedy_by_kind(what, last, sql) or _suggest(last, known, sql, kind=what),
        line=line,
        column=column,
    )


def _remedy_by_kind(what: str, name: str, sql: str) -> str | None:
    if what == "table":
        return UPSTREAM_TABLES.get(name.lower())
    if what != "function":
        return None
    if name in _WINDOW_FUNCTIONS and not re.search(r"\bover\b", sql, re.IGNORECASE):
        return f"{name} needs a window: {name}(…) OVER (ORDER BY …)."
    return UPSTREAM_FUNCTIONS.get(name.lower())


def _suggest(name: str, known: list[str], sql: str, *, kind: str) -> str | None:
    others = {one.lower(): one for one in known if one != name}
    if close := difflib.get_close_matches(name.lower(), sorted(others), n=1, cutoff=0.6):
        return f"Did you mean {_quote(others[close[0]])}?"
    if any(token.kind is Kind.QUOTED and token.name == name for token in scan(sql).tokens):
        return "Write text in single quotes (') and names in double quotes."
    listed = ", ".join(_quote(one) for one in known[: _MAX_LISTED + 1])
    # DataFusion suggests one function out of hundreds: worth a guess, not a list.
    is_short = 0 < len(listed) <= _MAX_LIST_LENGTH and len(known) <= _MAX_LISTED
    return f"Known here: {listed}." if is_short and kind != "function" else None


def _quote(name: str) -> str:
    """Return a name as it is written in a statement, in quotes where it needs them, shortened."""
    shown = name[:_MAX_NAME_LENGTH]
    return shown if _PLAIN_NAME.fullmatch(shown) else '"' + shown.replace('"', '""') + '"'


def _last_part(name: str) -> str:
    """Return the last part of a dotted name, without quotes: `t."a.b"` is `a.b`."""
    return name[:-1].rpartition('"')[2] if name.endswith('"') else name.rpartition(".")[2]


def _first_part(name: str) -> str:
    return name.partition(".")[0].strip('"')


def find_name(name: str, sql: str) -> tuple[int | None, int | None]:
    """Return line and column where a name first occurs, or None for both."""
    tokens = [token for token in scan(sql).tokens if token.kind in {Kind.WORD, Kind.QUOTED}]
    found = next((token for written in (name, name.lower()) for token in tokens if token.name == written), None)
    return (None, None) if found is None else line_and_column(sql, found.start)
