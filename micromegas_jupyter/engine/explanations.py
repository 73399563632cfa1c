"""Says in plain words, with a remedy and a place, what DataFusion's commonest complaints about a statement mean.

Which class an error gets, and what of other texts may pass, `errors` decides.
"""

from __future__ import annotations

import difflib
import re
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from micromegas_jupyter.engine.planning.scanner import Kind, place_of, scan
from micromegas_jupyter.errors import InvalidStatement, QueryError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_LONGEST_NAME: Final = 120
_LONGEST_LIST: Final = 200
_MOST_LISTED: Final = 12
_PLAIN_NAME: Final = re.compile(r"[a-z_][a-z0-9_]*")


class Rule(NamedTuple):
    """What one complaint means.

    In the texts `{1}` is the pattern's first group, and `{last}` the name without its table.

    Attributes:
        pattern: Matches the complaint.
        what: What is wrong, one sentence.
        remedy: What to do; None for the general one.
        name: The group that holds a name of the statement; 0 when there is none.
    """

    pattern: str
    what: str
    remedy: str | None = None
    name: int = 0


def explain(
    rules: tuple[Rule, ...], text: str, sql: str, kind: type[QueryError] = InvalidStatement
) -> QueryError | None:
    """Return the error for a complaint according to the first rule that knows it; None when none does."""
    for rule in rules:
        if found := re.search(rule.pattern, text):
            name = _last_part(found[rule.name].strip('"')) if rule.name else ""
            parts = [_short(part or "none") for part in (found[0], *found.groups())]
            line, column = find_name(name, sql) if name else (None, None)
            remedy = rule.remedy and rule.remedy.format(*parts, last=_short(name))
            return kind(rule.what.format(*parts), remedy=remedy, line=line, column=column)
    return None


def _short(text: str) -> str:
    """Return a text with its middle left out where it is long: what an engine says of a value stands on both sides."""
    if len(text) <= _LONGEST_NAME:
        return text
    return f"{text[: _LONGEST_NAME // 2]}…{text[len(text) + 1 - _LONGEST_NAME // 2 :]}"


_CONVERT: Final = "Give it other arguments, or convert them with CAST."
_TRY_CAST: Final = "TRY_CAST gives NULL for what cannot be converted."
_ON_A_VALUE: Final = "The statement failed on a value: {1}."

PLANNING: Final = (
    Rule(
        r"Ambiguous reference to unqualified field (\S+)",
        "The column {1} is in more than one of the tables.",
        "Write the table's name or alias in front of it: t.{1}.",
        name=1,
    ),
    Rule(
        r'column "([^"]+(?:"\."[^"]+)?)" must appear in the GROUP BY clause',
        "The column {1} is neither in GROUP BY nor inside an aggregate function.",
        "Add it to GROUP BY, or take one of its values, for example max({last}).",
        name=1,
    ),
    Rule(
        r"Cannot coerce arithmetic expression (.+?) to valid types",
        "{1} cannot be calculated.",
        "Convert one side, for example with CAST(x AS BIGINT).",
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
        r"(Substr)ing without for/from is not valid",
        "substr needs to know where to begin.",
        "Write substr(text, 1, 10).",
        name=1,
    ),
    Rule(
        r"Cannot get result type for temporal operation (.+?): ",
        "{1} cannot be calculated.",
        "Add an interval to a time, or subtract it; a placeholder for one is written CAST(? AS INTERVAL).",
    ),
    Rule(
        r"Function '(\w+)' (?:failed to match any signature|user-defined coercion failed)",
        "The function {1} does not take these arguments.",
        _CONVERT,
        name=1,
    ),
    Rule(
        r"Unsupported Value '\w*?Literal\(",
        "This kind of literal is not supported.",
        "Write text as 'text', and with escapes as E'a\\n'.",
    ),
    Rule(
        "Invalid HexStringLiteral '([^']*)'",
        "X'{1}' is not hexadecimal.",
        "Write two hexadecimal digits for each byte.",
    ),
    Rule(
        r"Cannot infer common argument type for (?:comparison|logical boolean) operation (.+?)\.?$",
        "Values of different types are compared or joined by AND or OR: {1}.",
        "Convert one side with CAST, or compare it first.",
    ),
    Rule(
        r"Failed to coerce types (.+?) in (\w+) expression",
        "Values of different types stand in {2}: {1}.",
        "Convert them with CAST.",
    ),
    Rule(
        r"There isn't a common type to coerce (.+?) in (\w+) expression",
        "{2} does not take these types: {1}.",
        "Convert one side with CAST(x AS VARCHAR).",
    ),
    Rule(
        "Too many columns! The subquery should only return one column",
        "A sub-query that stands for one value has several columns.",
        "Select one column in it.",
    ),
    Rule(
        "(UNION|INTERSECT|EXCEPT) queries have different number of columns",
        "The two sides of {1} have different numbers of columns.",
        "Select as many columns on both sides; NULL fills a place.",
    ),
    Rule(
        "Incompatible inputs for Union",
        "The two sides of UNION have columns of different types.",
        "Convert one side with CAST.",
    ),
    Rule(
        "Aggregate functions are not allowed in the WHERE clause",
        "WHERE is about single rows, so no aggregate function can stand in it.",
        "Put the condition into HAVING.",
    ),
    Rule(
        "HAVING clause references: (.+?) must appear in the GROUP BY",
        "HAVING is about groups, and {1} is about single rows.",
        "Use WHERE, or add the column to GROUP BY.",
    ),
    Rule(
        r'variable \["([^"]*)"\] has no type information',
        "There is no variable {1}.",
        "Parameters are written $1, $name or ?.",
    ),
)

UNSUPPORTED: Final = (
    Rule(
        r"Cannot run range queries on datatype: (.+?)\.?$",
        "A window cannot be ordered by values of the type {1}.",
        "Order by encode(bytes, 'hex') or by the fields of a struct, or write OVER (ORDER BY … ROWS BETWEEN "
        "UNBOUNDED PRECEDING AND CURRENT ROW).",
    ),
    Rule(
        "Dot access not supported",
        "A part of a value is named with a dot where the engine takes none.",
        "Write value['part'], or give the table another alias if its name is a word of SQL.",
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
    Rule(
        "^Divide by zero", "The statement divides by zero.", "Divide by NULLIF(divisor, 0), which gives NULL instead."
    ),
    Rule(
        r"^(?:\w+ error: )?((?:Can(?:no|')t cast (?:string|value|to)|Failed to parse string).*?)\.?$",
        _ON_A_VALUE,
        _TRY_CAST,
    ),
    Rule(
        r"(Error parsing timestamp from .*?)\.?$",
        _ON_A_VALUE,
        f"A time is written '2026-11-25T12:00:00Z'. {_TRY_CAST}",
    ),
    Rule(
        "Timestamp out of range|represented as nanoseconds|Date arithmetic overflow",
        "A time is outside the years 1677 to 2262, which nanoseconds can hold, or a date is out of range.",
        "Use a shorter interval, or keep the value as text.",
    ),
    Rule(
        r"^(.*(?:[Oo]verflow|too large to store).*?)\.?$",
        "A calculation left the range of its type: {1}.",
        "Convert to a larger type first, for example with CAST(x AS DOUBLE) or CAST(x AS DECIMAL(38, 0)).",
    ),
    Rule(
        "Scalar subquery returned more than one row",
        "A sub-query that stands for one value gives several rows.",
        "Compare with IN (…), or take one row with LIMIT 1 or an aggregate function.",
    ),
    Rule("Regular expression did not compile", "A regular expression in the statement is not valid."),
)

SYNTAX: Final = (
    Rule(r"Unexpected EOF while in a multi-line comment", "A comment is not closed.", "Close it with */."),
    Rule(
        r"Expected: end of statement, found: (.*?)\s*$",
        "Did not expect {1} here.",
        "Is a comma, an operator or a keyword missing or misspelt before it?",
    ),
    Rule(r"Expected: (.+?), found: EOF", "The statement ends too early: {1} is missing.", "Complete it."),
    Rule(r"Expected: (.+?), found: (.*?)\s*$", "Expected {1} here, not {2}."),
    Rule(
        r"Unterminated string literal",
        "The text that begins here is not closed.",
        "Close it with a single quote (').",
    ),
    Rule(
        r"Expected close delimiter '(.)' before EOF",
        "The name that begins here is not closed.",
        "Close it with {1}.",
    ),
)

_ONLY_THERE: Final = "Micromegas's own server has it; this one does not."
_NO_PARTITIONS: Final = "The server merges and drops the files of its tables by itself; there are no partitions."
_PROPERTY: Final = "Properties are a map here: write properties['key'] or map_keys(properties)."
_FUNCTIONS: Final = {
    "view_instance": "Query the table itself, for example FROM log_entries WHERE process_id = '…'.",
    "list_partitions list_view_sets retire_partitions retire_partition_by_metadata retire_partition_by_file "
    "materialize_partitions regenerate_partitions": _NO_PARTITIONS,
    "property_get properties_length properties_to_jsonb properties_to_dict properties_to_array": _PROPERTY,
    "process_spans perfetto_trace_chunks parse_block get_payload "
    "jsonb_parse jsonb_format_json jsonb_get jsonb_as_string jsonb_as_f64 jsonb_as_i64 "
    "jsonb_object_keys jsonb_array_length jsonb_array_elements jsonb_each jsonb_path_query jsonb_path_query_first "
    "make_histogram sum_histograms quantile_from_histogram variance_from_histogram "
    "sum_from_histogram count_from_histogram expand_histogram": _ONLY_THERE,
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
UPSTREAM_TABLES: Final[Mapping[str, str]] = MappingProxyType(dict.fromkeys(_TABLES.split(), _ONLY_THERE))
_WINDOW_FUNCTIONS: Final = frozenset(
    {"row_number", "rank", "dense_rank", "percent_rank", "cume_dist", "ntile", "lag", "lead"}
)


def unknown_name(
    kind: Literal["column", "table", "function"], name: str, candidates: Iterable[str], sql: str
) -> InvalidStatement:
    """Return the error for a name that means nothing.

    Args:
        kind: What there is none of.
        name: The name as DataFusion writes it, with dots and quotes.
        candidates: What it may have been meant for, written likewise.
        sql: The statement.
    """
    last = _last_part(name)
    shown = " ".join(name.removeprefix("datafusion.").removeprefix("public.").split())[:_LONGEST_NAME]
    kept = list(candidates)
    known = sorted({_last_part(one) for one in kept})
    owners = sorted({_first_part(one) for one in kept if "." in one})
    what: str = kind
    if kind == "column" and last in known and "." in name and _first_part(name) not in owners:
        what, shown, last, known = "table or alias", _first_part(name), _first_part(name), owners
    line, column = find_name(last, sql)
    return InvalidStatement(
        f"There is no {what} named {shown}.",
        remedy=_remedy_by_kind(what, last, sql) or _remedy_for(last, known, sql, kind=what),
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


def _remedy_for(name: str, known: list[str], sql: str, *, kind: str) -> str | None:
    others = {one.lower(): one for one in known if one != name}
    if close := difflib.get_close_matches(name.lower(), sorted(others), n=1, cutoff=0.6):
        return f"Did you mean {_suggested(others[close[0]])}?"
    if any(token.kind is Kind.QUOTED and token.name == name for token in scan(sql).tokens):
        return "Text stands in single quotes ('), names in double ones."
    listed = ", ".join(_suggested(one) for one in known[: _MOST_LISTED + 1])
    # DataFusion suggests one function out of hundreds: worth a guess, not a list.
    is_short = 0 < len(listed) <= _LONGEST_LIST and len(known) <= _MOST_LISTED
    return f"Known here: {listed}." if is_short and kind != "function" else None


def _suggested(name: str) -> str:
    """Return a name as it is written in a statement, in quotes where it needs them, shortened."""
    shown = name[:_LONGEST_NAME]
    return shown if _PLAIN_NAME.fullmatch(shown) else '"' + shown.replace('"', '""') + '"'


def _last_part(name: str) -> str:
    """Return the last part of a dotted name, without quotes: `t."a.b"` is `a.b`."""
    if name.endswith('"'):
        return name[:-1].rpartition('"')[2]
    return name.rpartition(".")[2]


def _first_part(name: str) -> str:
    return name.partition(".")[0].strip('"')


def find_name(name: str, sql: str) -> tuple[int | None, int | None]:
    """Return line and column of the first place where a name stands; None when it is nowhere."""
    tokens = [token for token in scan(sql).tokens if token.kind in {Kind.WORD, Kind.QUOTED}]
    found = next((token for written in (name, name.lower()) for token in tokens if token.name == written), None)
    return (None, None) if found is None else place_of(sql, found.start)
