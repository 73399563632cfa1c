"""Parses a statement's text before DataFusion does (limits, placeholders and their values), and examines its plan.

Planning options ensure that statements only read (`sessions.READ_ONLY`). The process that runs a statement limits its
time and memory.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

import pyarrow as pa
from datafusion.plan import LogicalPlan

from micromegas_jupyter.engine.calls import refused
from micromegas_jupyter.engine.contract import PlannedQuery, QueryStatistics, StatementRequest
from micromegas_jupyter.engine.errors import missing_parameter
from micromegas_jupyter.engine.plans.reads import merged
from micromegas_jupyter.engine.scanner import Kind, Scan, Token, scan
from micromegas_jupyter.errors import InvalidStatement, QueryError, StatementRefused, UnsupportedStatement

#: DataFusion 55's parser stops at 48; for nested CASTs it then backtracks endlessly.
MAX_BRACKET_DEPTH: Final = 47
#: Not allowed in conditions and rules.
SUBQUERY_KEYWORDS: Final = frozenset({"select", "values", "table", "with"})
#: For conditions and rules, which any process may evaluate: DataFusion 55 crashes at 2,000 (`IS TRUE …`).
_MAX_OPERATORS: Final = 256
_OPERATOR_KEYWORDS: Final = frozenset({"and", "or", "not", "is", "in", "like", "ilike", "between", "at", "case"})

#: First words of statements. After a semicolon, any other word is a typo.
_STATEMENT_START: Final = re.compile(
    r"alter|analyze|begin|call|commit|copy|create|delete|desc(?:ribe)?|drop|execute|explain|from|insert|merge|prepare|"
    r"reset|rollback|select|set|show|start|table|truncate|update|use|values|with"
)

# The end of a table's name, its alias, or a subquery; after any of these words, the next word is a name.
_NAME: Final = (
    r"(?:[\"\])}]|(?!(?:all|and|as|by|case|distinct|else|from|having|in|join|not|on|or|recursive|select|then|when|where|"
    r"with|between|like|ilike|is|limit|offset|using|for|lateral|qualify) )[^\W\d]\S*)"
)
# The beginning of an expression, as opposed to words that follow a name.
_CONDITION: Final = (
    r"(?:(?:left|right) [(\[{]|[-+:~@(\[{\"'0?]|(?!(?:and|as|asc|between|cross|desc|else|end|except|from|full|group|"
    r"having|ilike|in|inner|intersect|is|join|left|like|limit|natural|nulls|offset|on|or|order|right|then|union|using|"
    r"when|where|window|tablesample|qualify|over) )[^\W\d])"
)
_FEWER_ROWS: Final = "Write WHERE random() < 0.1 for a tenth of the rows."
_GROUPING_SETS: Final = "Write GROUP BY ROLLUP (…) or GROUP BY CUBE (…)."
# Clauses that DataFusion's parser accepts and its planner ignores: the first word, a pattern for the token before it
# and the four tokens after it (see `_describe`), its name, and a remedy.
_IGNORED_CLAUSES: Final = (
    ("tablesample", _NAME + r" tablesample (?:[(\[{]|(?:bernoulli|system|row|block) )", "TABLESAMPLE", _FEWER_ROWS),
    ("sample", _NAME + r" sample (?:[(\[{]|0|\?|\. 0)", "SAMPLE", _FEWER_ROWS),
    ("partition", _NAME + r" partition [(\[{]", "PARTITION after a table", "Write WHERE."),
    ("for", r"\S+ for (xml|json) (?:raw|auto|explicit|path) ", "FOR {0}", "Leave it out: rows are sent as Arrow."),
    ("prewhere", _NAME + " prewhere " + _CONDITION, "PREWHERE", "Write WHERE."),
    ("with", r"\S+ with (rollup|cube|totals) (?!as |[(\[{])", "WITH {0}", _GROUPING_SETS),
    ("with", _NAME + r" with ordinality (?!(?:as )?[(\[{])", "WITH ORDINALITY", "Write row_number() OVER ()."),
    ("connect", r"\S+ connect by ", "CONNECT BY", "Write WITH RECURSIVE."),
    ("*", r"(?:select|distinct|all|,|\.) \* ilike ", "choosing columns with ILIKE", "List the columns."),
)


_STARTS: Final = frozenset(first for first, *_ in _IGNORED_CLAUSES)


def check_statement(sql: str, *, max_bytes: int) -> Scan:
    """Return the tokens of `sql` if it is one statement within the limits."""
    _check_size(sql, max_bytes)
    scanned = scan(sql)
    if all(token.kind is Kind.SEMICOLON for token in scanned.tokens):
        raise InvalidStatement("The statement is empty.", remedy="Send one SELECT statement.")
    depth = 0
    has_ended = False
    for token in scanned.tokens:
        if token.start >= scanned.certain_until:
            break  # the rest may be part of a quote; DataFusion itself rejects a second statement
        if token.kind is Kind.SEMICOLON:
            has_ended = True
        elif has_ended:
            raise _after_semicolon(scanned, token)
        elif token.kind is Kind.OPEN:
            depth += 1
            if depth > MAX_BRACKET_DEPTH:
                raise StatementRefused(
                    f"The statement's bracket nesting exceeds the {MAX_BRACKET_DEPTH} levels that this server allows."
                )
        elif token.kind is Kind.CLOSE:
            depth -= 1
    return scanned


def _after_semicolon(scanned: Scan, token: Token) -> QueryError:
    if token.kind is Kind.OPEN or _STATEMENT_START.fullmatch(token.name):
        what, remedy = "The request contains several statements.", "Send one statement at a time."
        return refused(scanned.sql, token.start, what, remedy, kind=StatementRefused)
    what = "Only a comment can follow the semicolon that ends the statement."
    return refused(scanned.sql, token.start, what, "Remove this text, or turn it into a comment with --.")


def check_expression(sql: str, *, max_bytes: int) -> Scan:
    """Return the tokens of `sql`, an administrator's expression, if it is within the limits."""
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
        raise InvalidStatement("The statement contains an incomplete character (a lone surrogate).") from error
    if is_too_long:
        raise StatementRefused(f"The statement is longer than the {max_bytes} bytes that this server allows.")


def check_no_ignored_clause(scanned: Scan) -> None:
    """Reject the clauses above, which would change the rows, unless their words are probably names."""
    tokens = scanned.tokens
    for index, token in enumerate(tokens):
        if token.start >= scanned.certain_until:
            return
        word = token.text.lower()
        if word not in _STARTS or not index or token.kind not in {Kind.WORD, Kind.OPERATOR}:
            continue
        for first, pattern, clause, remedy in _IGNORED_CLAUSES:
            if first != word:
                continue
            window = "".join(map(_describe, tokens[index - 1 : index + 4]))
            if not (found := re.match(pattern, window)):
                continue
            what = f"The engine does not implement {clause.format(*(group.upper() for group in found.groups()))}."
            raise refused(scanned.sql, token.start, what, remedy, kind=UnsupportedStatement)


def _describe(token: Token) -> str:
    """Return a word or operator unchanged, and one character for any quoted name, string, number, or placeholder."""
    short = {Kind.QUOTED: '"', Kind.STRING: "'", Kind.NUMBER: "0", Kind.PLACEHOLDER: "?"}
    return short.get(token.kind, token.text.lower()) + " "


# A literal with a line break could look like a separate line, so a harmless statement may be rejected, but a harmful
# one is never accepted. Lookups in information_schema ignore case.
_SETTINGS = re.compile(r"^ *TableScan: .*df_settings", re.MULTILINE | re.IGNORECASE)
_EXPLAIN = re.compile(r"\s*(?:Explain|Analyze)\b")
_DESCRIBE = re.compile(r"\s*DescribeTable\b")
_CHILDREN: Final = ("predicate", "projections", "left", "right", "expr", "low", "high", "pattern", "list")
_STEPS_WITHOUT_TABLES: Final = ("Projection:", "EmptyRelation", "Values:", "Filter:", "Limit:", "Sort:")
_MAX_VISITED: Final = 2000
# The label of a counter; a name may contain spaces and commas.
_FILE_LABEL = re.compile(r"filename=[^}]*")
_PATH = re.compile(r"\w+://\S+|[^\s\[,{}\"'(]*\.parquet\b[^\s,\]{}\"')]*", re.IGNORECASE)
_FILE_GROUPS = re.compile(r"file_groups=\{(\d+ groups?): \[.*?\]\}", re.DOTALL)


def check_plan(plan_text: str) -> None:
    """Check properties that only the plan shows; it has one step per line, and is not optimized."""
    if _SETTINGS.search(plan_text):
        raise StatementRefused(
            "The engine's settings aren't available.", remedy="Only SHOW TABLES and SHOW COLUMNS are supported."
        )


def reads_tables(plan_text: str) -> bool:
    """Return whether a plan (one step per line) may depend on tables; True for unknown steps."""
    return not all(line.strip().startswith(_STEPS_WITHOUT_TABLES) for line in plan_text.splitlines())


def is_explain(plan_text: str) -> bool:
    """Return whether a plan (one step per line) results in a plan description, which may contain paths."""
    return _EXPLAIN.match(plan_text) is not None


def is_run(plan_text: str) -> bool:
    """Return whether a plan (one step per line) belongs to a statement that runs, not one that describes it."""
    return not is_explain(plan_text) and _DESCRIBE.match(plan_text) is None


def placeholder_types(plan: LogicalPlan) -> dict[str, pa.DataType]:
    """Return the inferred types of placeholders (by name, without `$`) in a plan's filters and projections."""
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
        if type(variant).__name__ == "Limit":
            found |= dict.fromkeys(_row_counts(variant), pa.int64())
        for name in _CHILDREN:
            child = getattr(variant, name, None)
            value = child() if callable(child) else None
            waiting.extend(value if isinstance(value, list) else [] if value is None else [value])
    return found


def _row_counts(limit: Any) -> Iterator[str]:
    """Yield the names of placeholders in LIMIT and OFFSET, where DataFusion infers no types."""
    for bound in filter(None, (limit.fetch(), limit.skip())):
        variant = bound.to_variant()
        if type(variant).__name__ == "Placeholder":
            yield str(variant.id().removeprefix("$"))


def parameter_schema(
    placeholders: "Placeholders", parameters: pa.RecordBatch | None, plan: LogicalPlan | None
) -> pa.Schema:
    """Return the types of the values, the types that the plan inferred, or null, in this order of preference."""
    if not placeholders.columns:
        return pa.schema([])
    if parameters is not None:
        return pa.schema([pa.field(name, parameters.schema.field(name).type) for name in placeholders.columns])
    types = {} if plan is None else placeholder_types(plan)
    return pa.schema([pa.field(name, types.get(bound_name(name), pa.null())) for name in placeholders.columns])


def without_paths(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return the batch of a described plan with file group counts instead of file lists, and `…` for other paths."""

    def clean(text: str | None) -> str | None:
        return text and _PATH.sub("…", _FILE_LABEL.sub("filename=…", _FILE_GROUPS.sub(r"file_groups={\1}", text)))

    columns = [
        pa.array(map(clean, column.to_pylist()), column.type)
        if pa.types.is_string(column.type) or pa.types.is_string_view(column.type)
        else column
        for column in batch.columns
    ]
    return pa.RecordBatch.from_arrays(columns, schema=batch.schema)


_MAX_PLACEHOLDERS: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Placeholders:
    """A statement's placeholders; `sql` has `$1`, `$2`, … in place of `?`.

    `columns` of a parameter batch are in the order of placeholders: "0" for `?` or `$1`, or the name; `written` is
    their spelling in the statement. They are `optional` if quoting is uncertain.
    """

    sql: str
    columns: tuple[str, ...] = ()
    written: tuple[str, ...] = ()
    optional: frozenset[str] = frozenset()
    has_question_marks: bool = False

    def bind(self, parameters: pa.RecordBatch) -> dict[str, pa.Scalar]:
        """Return DataFusion's `param_values` for the first row of values, keeping types."""
        if not parameters.num_rows:
            raise InvalidStatement("The parameters don't contain any row of values.")
        names = parameters.schema.names
        known = set(self.columns) | self.optional
        for name in names:
            if name not in known or names.count(name) > 1:
                raise InvalidStatement(f"The statement doesn't have a placeholder for the value {name[:40]!r}.")
        missing = [text for column, text in zip(self.columns, self.written, strict=True) if column not in names]
        if missing:
            raise missing_parameter(missing)
        values = (parameters.column(index)[0] for index in range(len(names)))
        # pyarrow 23 fails on a null where it expects a list.
        plain = (pa.scalar(None) if pa.types.is_nested(one.type) and not one.is_valid else one for one in values)
        return dict(zip(map(bound_name, names), plain, strict=True))


def find_placeholders(scanned: Scan) -> Placeholders:
    """Return the placeholders of a statement."""
    found = [token for token in scanned.tokens if token.kind is Kind.PLACEHOLDER]
    if not found:
        return Placeholders(sql=scanned.sql)
    certain = [token for token in found if token.start < scanned.certain_until]
    question_marks = [token for token in found if token.text.startswith("?")]
    if any(token.text != "?" for token in question_marks):
        raise InvalidStatement("Write numbered placeholders as $1, not ?1.")
    if question_marks and question_marks[-1].start >= scanned.certain_until:
        raise InvalidStatement(
            "The statement combines a ? with dollar quotes, prefixed strings, or nested comments.",
            remedy="Write the placeholders as $1, $2, … instead.",
        )
    numbers = [_number(token) for token in certain if token.text[1:].isdigit()]
    if question_marks and any(numbers):
        raise InvalidStatement("The statement mixes ? and $1 placeholders.", remedy="Use one style.")
    if not all(numbers):
        raise InvalidStatement(f"A placeholder number is not between $1 and ${_MAX_PLACEHOLDERS}.")
    if len(found) > _MAX_PLACEHOLDERS:
        raise InvalidStatement(f"The statement has more than {_MAX_PLACEHOLDERS} placeholders.")
    names = tuple(dict.fromkeys(_column(token) for token in certain if token.text != "?" and not _number(token)))
    count = len(question_marks) or max(numbers, default=0)
    written = (f"? number {index + 1}" if question_marks else f"${index + 1}" for index in range(count))
    return Placeholders(
        sql=scanned.with_replaced([(mark, f"${number}") for number, mark in enumerate(question_marks, start=1)]),
        columns=(*map(str, range(count)), *names),
        written=(*written, *(f"${name}" for name in names)),
        optional=frozenset({_column(token) for token in found} - {_column(token) for token in certain}),
        has_question_marks=bool(question_marks),
    )


def _number(token: Token) -> int:
    """Return the number of `$1`, or 0 for `$name` and for invalid numbers."""
    digits = token.text[1:]
    is_number = digits.isascii() and digits.isdigit() and len(digits) <= len(str(_MAX_PLACEHOLDERS))
    return int(digits) if is_number and int(digits) <= _MAX_PLACEHOLDERS else 0


def _column(token: Token) -> str:
    return str(_number(token) - 1) if _number(token) else token.text[1:]


def bound_name(column: str) -> str:
    """Return a placeholder's name in DataFusion's `param_values`."""
    return str(int(column) + 1) if column.isascii() and column.isdigit() else column


class RowByRow:
    """A `PlannedQuery` over several rows of parameters; plans each row when the previous one has been read."""

    reached: tuple[int, int] | None = None

    def __init__(
        self, plan: Callable[[StatementRequest], PlannedQuery], request: StatementRequest, parameters: pa.RecordBatch
    ) -> None:
        self._plan = plan
        self._request = request
        self._parameters = parameters
        self._current = plan(replace(request, parameters=parameters.slice(0, 1)))
        self.schema = _nullable(self._current.schema)
        self.parameter_schema = self._current.parameter_schema
        self.reads = self._current.reads
        self.reads_tables = self._current.reads_tables
        self.hides_rows = self._current.hides_rows
        self.explained = self._current.explained
        self.change = self._current.change
        self._ended = QueryStatistics()  # total for the rows before the current one

    @property
    def statistics(self) -> QueryStatistics:
        """The query's resource usage so far."""
        return self._ended.plus(self._current.statistics)

    def progress(self) -> None:
        """Return None, because the files for later rows of parameters are unknown."""

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Run the statement for each row of parameters; can be called once."""
        return self._rows(self._current.batches())

    def _rows(self, current: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        remaining = self._request.row_limit
        for following in range(1, self._parameters.num_rows + 1):
            for batch in current:
                if remaining is not None:
                    remaining -= batch.num_rows
                yield pa.RecordBatch.from_arrays(batch.columns, schema=self.schema)
            if remaining == 0 or following == self._parameters.num_rows:
                return
            row = self._parameters.slice(following, 1)
            planned = self._plan(replace(self._request, parameters=row, row_limit=remaining))
            if not _nullable(planned.schema).equals(self.schema, check_metadata=True):
                raise InvalidStatement(
                    f"Row {following + 1} of the parameters results in different columns than the first row.",
                    remedy="Run the statement separately for each row.",
                )
            # Keep only the statistics, because plans for many rows would add up.
            self._ended = self._ended.plus(self._current.statistics)
            self._current = planned
            self.hides_rows |= planned.hides_rows
            if planned.reads != self.reads:
                self.reads = merged(self.reads, planned.reads)
            current = planned.batches()


def _nullable(schema: pa.Schema) -> pa.Schema:
    """Return the schema with all columns nullable, because values may be null in later rows."""
    return pa.schema([field.with_nullable(True) for field in schema], metadata=schema.metadata)


def with_plain_parameters(request: StatementRequest, placeholders: Placeholders) -> StatementRequest:
    """Return the request with values named and typed as `Placeholders` expects.

    flightsql-dbapi names its columns `param_0`, `param_1`, … and wraps each value in a union; arrow-go names them `$1`,
    `$2`, …; some clients omit names. Flight SQL binds by position, so such columns bind `?` and `$1` in their order,
    and a single value binds a statement's only placeholder, regardless of the value's name.
    """
    batch = request.parameters
    if batch is None:
        return request
    names = batch.schema.names
    is_generated = all(name in {"", f"param_{index}", f"${index + 1}"} for index, name in enumerate(names))
    if placeholders.optional.union(placeholders.columns).isdisjoint(names):
        if len(names) == len(placeholders.columns) == 1:
            names = list(placeholders.columns)
        elif is_generated:
            names = [str(index) for index in range(len(names))]
    if names == batch.schema.names and not any(map(pa.types.is_union, batch.schema.types)):
        return request
    arrays = [_without_union(array) for array in batch.columns]
    fields = [
        pa.field(name, array.type, field.nullable)
        for name, array, field in zip(names, arrays, batch.schema, strict=True)
    ]
    return replace(request, parameters=pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields)))


def _without_union(array: pa.Array) -> pa.Array:
    """Return the values of a union if all rows have the same type."""
    if not pa.types.is_union(array.type):
        return array
    codes = set(array.type_codes.to_pylist())
    if len(codes) > 1:
        raise InvalidStatement("The values of a parameter have different types.")
    if not codes:
        return pa.nulls(0)
    position = array.type.type_codes.index(codes.pop())
    values = array.field(position)
    return values.take(array.offsets) if array.type.mode == "dense" else values
