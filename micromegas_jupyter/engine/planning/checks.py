"""Checks a statement's text before DataFusion parses it: one statement, within the limits, no clause ignored.

Whether it only reads is checked when it is planned (`sessions.READ_ONLY`). The process that runs it limits its time and
memory.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

from micromegas_jupyter.engine.planning.parameters import bound_name
from micromegas_jupyter.engine.scanner import Kind, Scan, Token, line_and_column, scan
from micromegas_jupyter.errors import InvalidStatement, StatementRefused, UnsupportedStatement

if TYPE_CHECKING:
    from datafusion.plan import LogicalPlan

    from micromegas_jupyter.engine.planning.parameters import Placeholders

#: DataFusion 55's parser stops at 48; for a CAST in a CAST it then tries again and again, without end.
MAX_BRACKET_DEPTH: Final = 47
#: Of a condition or a rule, which any process may evaluate: DataFusion 55 crashes at 2,000 (`IS TRUE …`).
_MAX_OPERATORS: Final = 256
_OPERATOR_KEYWORDS: Final = frozenset({"and", "or", "not", "is", "in", "like", "ilike", "between", "at", "case"})


# The end of a table's name, its alias or a subquery; after these words a name stands for itself.
_NAME: Final = (
    r"(?:[\"\])}]|(?!(?:all|and|as|by|case|distinct|else|from|having|in|join|not|on|or|recursive|select|then|when|where|"
    r"with|between|like|ilike|is|limit|offset|using|for|lateral|qualify) )[^\W\d]\S*)"
)
# None of the words that follow a name, unless it is a function.
_CONDITION: Final = (
    r"(?:(?:left|right) [(\[{]|[-+:~@(\[{\"'0?]|(?!(?:and|as|asc|between|cross|desc|else|end|except|from|full|group|"
    r"having|ilike|in|inner|intersect|is|join|left|like|limit|natural|nulls|offset|on|or|order|right|then|union|using|"
    r"when|where|window|tablesample|qualify|over) )[^\W\d])"
)
_FEWER_ROWS: Final = "Write WHERE random() < 0.1 for a tenth of the rows."
# Clauses that DataFusion's parser accepts and its planner ignores, by their first word: a pattern of the token before
# it and the four after it (see `_describe`), what they are, and what to do.
_IGNORED_CLAUSES: Final = {
    "tablesample": (_NAME + r" tablesample (?:[(\[{]|(?:bernoulli|system|row|block) )", "TABLESAMPLE", _FEWER_ROWS),
    "sample": (_NAME + r" sample (?:[(\[{]|0|\?|\. 0)", "SAMPLE", _FEWER_ROWS),
    "prewhere": (_NAME + " prewhere " + _CONDITION, "PREWHERE", "Write WHERE."),
    "with": (
        r"\S+ with (rollup|cube|totals) (?!as |[(\[{])",
        "WITH {0}",
        "Write GROUP BY ROLLUP (…) or GROUP BY CUBE (…).",
    ),
    "connect": (r"\S+ connect by ", "CONNECT BY", "Write WITH RECURSIVE."),
    "*": (r"(?:select|distinct|all|,|\.) \* ilike ", "choosing columns with ILIKE", "Name the columns."),
}


def check_statement(sql: str, *, max_bytes: int) -> Scan:
    """Return the tokens of `sql` when it is one statement within the limits."""
    _check_size(sql, max_bytes)
    scanned = scan(sql)
    if all(token.kind is Kind.SEMICOLON for token in scanned.tokens):
        raise InvalidStatement("The statement is empty.", remedy="Send one SELECT statement.")
    depth = 0
    has_ended = False
    for token in scanned.tokens:
        if token.start >= scanned.certain_until:
            break  # what follows may be part of a quote; DataFusion itself refuses a second statement
        if token.kind is Kind.SEMICOLON:
            has_ended = True
        elif has_ended:
            raise StatementRefused("The text contains several statements.", remedy="Send one statement at a time.")
        elif token.kind is Kind.OPEN:
            depth += 1
            if depth > MAX_BRACKET_DEPTH:
                raise StatementRefused(
                    f"The statement nests brackets deeper than the {MAX_BRACKET_DEPTH} levels that this server allows."
                )
        elif token.kind is Kind.CLOSE:
            depth -= 1
    return scanned


def check_expression(sql: str, *, max_bytes: int) -> Scan:
    """Return the tokens of `sql`, an expression that an administrator wrote, when it is within the limits."""
    scanned = check_statement(sql, max_bytes=max_bytes)
    operators = sum(
        token.kind is Kind.OPERATOR or (token.kind is Kind.WORD and token.name in _OPERATOR_KEYWORDS)
        for token in scanned.tokens
    )
    if operators > _MAX_OPERATORS:
        raise StatementRefused(f"The expression has more operators than the {_MAX_OPERATORS} that this server allows.")
    return scanned


def _check_size(sql: str, max_bytes: int) -> None:
    try:
        is_too_long = len(sql) > max_bytes or len(sql.encode()) > max_bytes
    except UnicodeEncodeError as error:
        raise InvalidStatement("The statement contains half a character (a lone surrogate).") from error
    if is_too_long:
        raise StatementRefused(f"The statement is longer than the {max_bytes} bytes that this server allows.")


def check_no_ignored_clause(scanned: Scan) -> None:
    """Check for clauses that DataFusion's parser accepts and its planner ignores: they would give other rows.

    Only those above are known, where they are not likely to be anything else: a column or an alias may have such a
    name. Others that the planner ignores, such as `FOR UPDATE`, `WITH (NOLOCK)` or `SETTINGS`, pass.
    """
    tokens = scanned.tokens
    for index, token in enumerate(tokens):
        if token.start >= scanned.certain_until:
            return
        known = _IGNORED_CLAUSES.get(token.text.lower()) if token.kind in {Kind.WORD, Kind.OPERATOR} else None
        if known is None or not index:
            continue
        pattern, clause, remedy = known
        if found := re.match(pattern, "".join(map(_describe, tokens[index - 1 : index + 4]))):
            line, column = line_and_column(scanned.sql, token.start)
            what = clause.format(*(group.upper() for group in found.groups()))
            raise UnsupportedStatement(
                f"The engine does not implement {what}.", remedy=remedy, line=line, column=column
            )


def _describe(token: Token) -> str:
    """Return a word or an operator as it is, and one character for any name in quotes, text, number or placeholder."""
    short = {Kind.QUOTED: '"', Kind.STRING: "'", Kind.NUMBER: "0", Kind.PLACEHOLDER: "?"}
    return short.get(token.kind, token.text.lower()) + " "


# A literal with a line break could look like a line of its own: then a statement is refused that need not be, never the
# other way round. Lookups in information_schema ignore case.
_SETTINGS = re.compile(r"^ *TableScan: .*df_settings", re.MULTILINE | re.IGNORECASE)
_EXPLAIN = re.compile(r"(?:Explain|Analyze)\b")
_CHILDREN: Final = ("predicate", "projections", "left", "right", "expr", "low", "high", "pattern", "list")
_MAX_VISITED: Final = 2000
# The label of a counter; a name may hold blanks and commas.
_FILE_LABEL = re.compile(r"filename=[^}]*")
_PATH = re.compile(r"\w+://\S+|[^\s\[,{}\"'(]*\.parquet\b[^\s,\]{}\"')]*", re.IGNORECASE)
_FILE_GROUPS = re.compile(r"file_groups=\{(\d+ groups?): \[.*?\]\}", re.DOTALL)


def check_plan(plan: LogicalPlan) -> str:
    """Check what only the plan shows; return it as text, one step a line."""
    text = plan.display_indent()
    if _SETTINGS.search(text):
        raise StatementRefused("The engine's settings are not available.", remedy="SHOW TABLES and SHOW COLUMNS work.")
    return text


def is_explain(plan: LogicalPlan) -> bool:
    """Return whether the plan's result is a description of a plan, which may show paths."""
    return _EXPLAIN.match(plan.display()) is not None


def placeholder_types(plan: LogicalPlan) -> dict[str, pa.DataType]:
    """Return the types of placeholders (by name, without `$`) that the plan inferred and shows.

    DataFusion-Python shows the expressions of filters and projections.
    """
    found: dict[str, pa.DataType] = {}
    waiting: list[Any] = [plan]
    for _ in range(_MAX_VISITED):
        if not waiting:
            break
        item = waiting.pop()
        waiting.extend(item.inputs() if hasattr(item, "inputs") else ())
        try:
            variant = item.to_variant()
        except Exception:  # noqa: BLE001, S112 - there is no class for this kind: an untyped error says so
            continue
        if type(variant).__name__ == "Placeholder":
            field = variant.field()
            if isinstance(field, pa.Field):
                found[variant.id().removeprefix("$")] = field.type
            continue
        for name in _CHILDREN:
            child = getattr(variant, name, None)
            value = child() if callable(child) else None
            waiting.extend(value if isinstance(value, list) else [] if value is None else [value])
    return found


def parameter_schema(placeholders: Placeholders, parameters: pa.RecordBatch | None, plan: LogicalPlan) -> pa.Schema:
    """Return the types of the values sent, else those that the plan inferred, else null."""
    if not placeholders.columns:
        return pa.schema([])
    if parameters is not None:
        return pa.schema([pa.field(name, parameters.schema.field(name).type) for name in placeholders.columns])
    types = placeholder_types(plan)
    return pa.schema([pa.field(name, types.get(bound_name(name), pa.null())) for name in placeholders.columns])


def without_paths(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return the batch of a described plan with numbers of file groups in place of lists, and `…` for other paths."""

    def clean(text: str | None) -> str | None:
        return text and _PATH.sub("…", _FILE_LABEL.sub("filename=…", _FILE_GROUPS.sub(r"file_groups={\1}", text)))

    columns = [
        pa.array(map(clean, column.to_pylist()), column.type)
        if pa.types.is_string(column.type) or pa.types.is_string_view(column.type)
        else column
        for column in batch.columns
    ]
    return pa.RecordBatch.from_arrays(columns, schema=batch.schema)
