"""Completion of SQL, of options and of table names, and the servers' schemas, which are cached for it."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field
from itertools import chain, pairwise
from threading import Event, Lock
from types import ModuleType
from typing import TYPE_CHECKING, Final, NamedTuple
from weakref import WeakKeyDictionary

from IPython.core.completer import CompletionContext, SimpleCompletion, SimpleMatcherResult

from micromegas_jupyter.core.system import start_thread
from micromegas_jupyter.core.text import printable
from micromegas_jupyter.errors import MicromegasError, UnsupportedRequest
from micromegas_jupyter.notebook.shell import (
    Position,
    completion_matcher,
    find_position,
    flags,
    option_values,
    optional_values,
    options_with_value,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from IPython.core.interactiveshell import InteractiveShell

    from micromegas_jupyter.config.client import ClientSettings
    from micromegas_jupyter.notebook.login.cells import CellConnections
    from micromegas_jupyter.notebook.login.connections import Client, Connection, Connections, Dependencies

FETCH_SECONDS: Final = 10.0
"""The deadline of each call."""

_MAX_COLUMNS: Final = 50_000
_MAX_FUNCTIONS: Final = 5_000
_COLUMNS_SQL: Final = (
    "SELECT table_name, column_name, data_type, is_nullable FROM information_schema.columns "
    "WHERE table_schema <> 'information_schema' ORDER BY table_name, ordinal_position"
)
_FUNCTIONS_SQL: Final = "SELECT DISTINCT routine_name FROM information_schema.routines ORDER BY routine_name"
# What servers with Micromegas's tables have beside them.
_TABLE_FUNCTIONS: Final = (
    "expand_histogram", "jsonb_array_elements", "jsonb_each", "list_partitions", "list_view_sets",
    "perfetto_trace_chunks", "process_spans", "running_queries", "view_instance",
)  # fmt: skip
FRESH_SECONDS: Final = 300.0
"""How long an answer is used before it is fetched again in the background."""

RETRY_SECONDS: Final = 15.0
"""The pause after a failed call."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its name without quotes, its type as text, and the server's remarks, mostly empty."""

    name: str
    type_text: str
    is_nullable: bool = True
    remarks: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """One table with its columns in order."""

    name: str
    columns: tuple[Column, ...] = ()
    remarks: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSchema:
    """A server's tables that this caller may see, by name without quotes, and its functions; empty if not known."""

    tables: Mapping[str, Table] = field(default_factory=dict)
    functions: tuple[str, ...] = ()

    def columns_of(self, table: str) -> tuple[str, ...]:
        """Return the names of a table's columns; empty for an unknown table."""
        found = self.tables.get(table)
        return () if found is None else tuple(column.name for column in found.columns)


def fetch_schema(client: Client) -> ServerSchema:
    """Fetch a server's tables and functions; raises `MicromegasError` when it does not list its tables."""
    return ServerSchema(tables=_fetch_tables(client), functions=_fetch_functions(client))


def _fetch_tables(client: Client) -> dict[str, Table]:
    try:
        schemas = client.list_tables(timeout_seconds=FETCH_SECONDS)
    except UnsupportedRequest:
        return _tables_of_rows(_rows(client, _COLUMNS_SQL, limit=_MAX_COLUMNS))
    from micromegas_jupyter.notebook.results.formats import sql_type_of

    tables = {}
    # A leading underscore marks internal tables.
    for name, schema in sorted(schemas.items(), key=lambda table: (table[0].startswith("_"), table[0])):
        columns = tuple(Column(each.name, sql_type_of(each), each.nullable, _remarks(each.metadata)) for each in schema)
        tables[name] = Table(name=name, columns=columns, remarks=_remarks(schema.metadata))
    return tables


def _tables_of_rows(rows: Iterable[Mapping[str, object]]) -> dict[str, Table]:
    columns: dict[str, list[Column]] = {}
    for row in rows:
        column = Column(str(row["column_name"]), printable(str(row["data_type"])), row["is_nullable"] == "YES")
        columns.setdefault(str(row["table_name"]), []).append(column)
    return {name: Table(name=name, columns=tuple(found)) for name, found in columns.items()}


def _fetch_functions(client: Client) -> tuple[str, ...]:
    try:
        rows = _rows(client, _FUNCTIONS_SQL, limit=_MAX_FUNCTIONS)
    except MicromegasError:
        return ()
    return tuple(str(row["routine_name"]) for row in rows if "routine_name" in row)


def _rows(client: Client, sql: str, *, limit: int) -> list[dict[str, object]]:
    with client.open_query(sql, limit=limit, timeout_seconds=FETCH_SECONDS) as reader:
        rows: list[dict[str, object]] = reader.read_all().to_pylist()
    return rows


def _remarks(metadata: Mapping[bytes, bytes] | None) -> str:
    from micromegas_jupyter.telemetry.tables import REMARKS_KEY

    return printable((metadata or {}).get(REMARKS_KEY, b"").decode("utf-8", errors="replace"))


class SchemaCache:
    """The schema of each connection: after another sign-in the tables may differ. Any thread; errors are silent."""

    def __init__(self, connections: Connections, dependencies: Dependencies) -> None:
        self._connections = connections
        self._dependencies = dependencies
        self._lock = Lock()
        # What each said, None when there was no answer, and when to fetch it again, by the monotonic clock.
        self._known: WeakKeyDictionary[Connection, tuple[ServerSchema | None, float]] = WeakKeyDictionary()
        self._fetching: dict[ClientSettings, Event] = {}

    def look_up(self, settings: ClientSettings, *, wait_seconds: float = 0.0) -> ServerSchema:
        """Return what is known; fetches nothing or what is old, and waits only when it starts the first fetch."""
        connection = self._connections.current(settings)
        schema, due_at = self._entry(connection)
        is_due = self._dependencies.clock.monotonic() >= due_at
        if connection is None:
            is_due = not self._dependencies.is_wrapped()  # whose client is not made on another thread
        with self._lock:
            if settings in self._fetching or not is_due:
                return schema or ServerSchema()
            answered = self._fetching[settings] = Event()
        start_thread(self._fetch, settings, name="micromegas-schema")
        if schema is None:
            answered.wait(wait_seconds)
        return self._entry(self._connections.current(settings))[0] or ServerSchema()

    def note(self, connection: Connection, schema: ServerSchema | None) -> None:
        """Keep a server's answer; None when there was none, which leaves the one before it."""
        due_at = self._dependencies.clock.monotonic() + (RETRY_SECONDS if schema is None else FRESH_SECONDS)
        schema = schema or self._entry(connection)[0]
        with self._lock:
            self._known[connection] = (schema, due_at)

    def _entry(self, connection: Connection | None) -> tuple[ServerSchema | None, float]:
        with self._lock:
            return (None, 0.0) if connection is None else self._known.get(connection, (None, 0.0))

    def _fetch(self, settings: ClientSettings) -> None:
        connection = None
        try:
            connection = self._connections.get(settings)
            self.note(connection, fetch_schema(connection.client))
        except Exception:  # noqa: BLE001 - nobody wants a traceback while typing
            if connection is not None:
                self.note(connection, None)
        finally:
            with self._lock:
                self._fetching.pop(settings).set()


# What has no end runs to the end of the text. Quotes are possessive (`*+`): an open one is never a shorter one.
_TOKEN: Final = re.compile(
    r"""
      (?P<blank> \s+ | --[^\n]*\n | /\*.*?\*/ )
    | (?P<open_comment> --[^\n]*\Z | /\*.*\Z )
    | (?P<string> [eE]'(?:[^'\\]|\\.|'')*+' | '(?:[^']|'')*+'
        | (?<![\w$]) \$(?P<tag>(?:[^\W\d]\w*)?)\$ .*? \$(?P=tag)\$ )
    | (?P<open_string> [eE]?'.*\Z | (?<![\w$]) \$(?:[^\W\d]\w*)?\$ .*\Z )
    | (?P<quoted> "(?:[^"]|"")*+" )
    | (?P<open_quoted> ".*\Z )
    | (?P<number> \d[\w.]* )
    | (?P<word> [^\W\d][\w$]* )
    | (?P<cast> :: )
    | (?P<placeholder> (?<! [\w:)\]}'"] ) : (?:[^\W\d]\w*)? )
    | (?P<sign> . )
    """,
    re.VERBOSE | re.DOTALL,
)
_PLAIN_NAME: Final = re.compile(r"[a-z_][a-z0-9_]*")
_AFTER_TABLE_TEXT: Final = (
    "WHERE GROUP ORDER HAVING LIMIT OFFSET JOIN INNER LEFT RIGHT FULL OUTER CROSS NATURAL ON USING UNION EXCEPT "
    "INTERSECT AS QUALIFY WINDOW SEMI ANTI"
)
# With these and those after a table, which are never a name or an alias without quotes.
_RESERVED_TEXT: Final = (
    "SELECT FROM BY DISTINCT AND OR NOT IN IS NULL LIKE BETWEEN CASE WHEN THEN ELSE END CAST INTERVAL ALL WITH VALUES "
    "EXISTS ANY SOME ASC DESC OVER PARTITION UNNEST LATERAL ARRAY TRUE FALSE DESCRIBE SIMILAR TO"
)
_OTHERS_TEXT: Final = (
    "ILIKE TRY_CAST TIMESTAMP EXTRACT NULLS FIRST LAST ROWS RANGE UNBOUNDED PRECEDING FOLLOWING CURRENT ROW FILTER "
    "WITHIN RECURSIVE EXPLAIN ANALYZE VERBOSE SHOW TABLES COLUMNS FUNCTIONS ESCAPE GROUPING SETS CUBE ROLLUP"
)
_TYPES_TEXT: Final = (
    "BIGINT BOOLEAN BYTEA CHAR DATE DECIMAL DOUBLE FLOAT INT INTEGER INTERVAL REAL SMALLINT STRING TIME TIMESTAMP "
    "TINYINT VARCHAR"
)
_AFTER_TABLE: Final = tuple(_AFTER_TABLE_TEXT.split())
_KEYWORDS: Final = (*_RESERVED_TEXT.split(), *_AFTER_TABLE, *_OTHERS_TEXT.split())
_TYPES: Final = tuple(_TYPES_TEXT.split())
_RESERVED: Final = frozenset(word.lower() for word in (*_RESERVED_TEXT.split(), *_AFTER_TABLE))
_BEFORE_RELATION: Final = ("from", "join")
_BEFORE_TABLE: Final = (*_BEFORE_RELATION, "describe", "table")
_CLAUSES: Final = (_RESERVED - {"as"}) | {"table"}
_CALLS_WITH_FROM: Final = ("extract", "substring", "trim", "overlay", "position")
MAX_COMPLETIONS: Final = 1000
MAX_CHARACTERS: Final = 50_000
"""The longest statement that is completed."""

_INSIDE: Final = frozenset({"open_string", "open_comment", "number"})


class Token(NamedTuple):
    """One token: its kind (a group of `_TOKEN`; an `open_` one has no end), and its text as written."""

    kind: str
    text: str

    @property
    def name(self) -> str:
        """The name as DataFusion reads it; empty for what is not a name."""
        if self.kind == "word":
            return self.text.lower()
        return self.text[1:-1].replace('""', '"') if self.kind == "quoted" else ""

    @property
    def can_be_name(self) -> bool:
        """Whether it is the name of a table or an alias."""
        return bool(self.name) and not self.is_word(_RESERVED)

    def is_word(self, keywords: Collection[str]) -> bool:
        """Whether it is one of these keywords (in lower case), without quotes."""
        return self.kind == "word" and self.text.lower() in keywords


def scan(sql: str) -> list[Token]:
    """Return the tokens of `sql`, without blanks and comments that have an end."""
    groups = (("string" if match.lastgroup == "tag" else match.lastgroup, match[0]) for match in _TOKEN.finditer(sql))
    return [Token(group, text) for group, text in groups if group is not None and group != "blank"]


def name_in_sql(name: str) -> str:
    """Return a name as it must be written, in quotes when DataFusion would read another one without them."""
    if _PLAIN_NAME.fullmatch(name) and name not in _RESERVED:
        return name
    return '"' + name.replace('"', '""') + '"'


class _Brackets:
    """The tokens of each pair of brackets, in which an opening bracket stands for all that is in it."""

    def __init__(self) -> None:
        self.innermost: list[Token] = []
        self.all = [self.innermost]
        self._outer: list[list[Token]] = []

    def read(self, tokens: Iterable[Token]) -> None:
        for token in tokens:
            if token.text != ")":
                self.innermost.append(token)
            elif self._outer:
                self.innermost = self._outer.pop()
            if token.text == "(":
                self._outer.append(self.innermost)
                self.innermost = []
                self.all.append(self.innermost)

    @property
    def call(self) -> Token | None:
        """The word before the innermost opening bracket."""
        return self._outer[-1][-2] if self._outer and len(self._outer[-1]) > 1 else None


def find_tables(brackets: Iterable[Sequence[Token]]) -> dict[str, list[str]]:
    """Return the tables of a statement by what qualifies their columns (alias, else name); a sub-query's name is ""."""
    tables: dict[str, list[str]] = {}
    for inside in brackets:
        tokens = [*inside, *[Token("sign", "")] * 3]  # so that one can look ahead
        for start, token in enumerate(inside):
            index = start + 1
            is_table = token.is_word(_BEFORE_RELATION)
            while is_table and (tokens[index].text == "(" or tokens[index].can_be_name):
                while tokens[index + 1].text == "." and tokens[index + 2].name:
                    index += 2
                name = tokens[index].name
                index += 1 + (bool(name) and tokens[index + 1].text == "(")  # the arguments of a table function
                index += tokens[index].is_word(("as",))
                alias = tokens[index].name if tokens[index].can_be_name else ""
                index += bool(alias)
                tables.setdefault(alias or name, []).append(name)
                is_table = tokens[index].text == ","
                index += 1
    return tables


def complete_sql(
    before: str, after: str, schema: ServerSchema, *, variables: Callable[[], Iterable[str]]
) -> tuple[str, list[SimpleCompletion]]:
    """Return the beginning that is there and what may take its place; `variables` gives the names for `:name`."""
    if len(before) + len(after) > MAX_CHARACTERS:
        return "", []
    tokens = scan(before)
    last = tokens[-1] if tokens and before.endswith(tokens[-1].text) else None
    if last is not None and last.kind in _INSIDE:
        return "", []
    if last is not None and last.kind == "placeholder":
        return _fitting(last.text[1:], _offered(variables(), "variable"))
    typed = ""
    if last is not None and last.kind in {"word", "open_quoted"}:
        typed = last.text
        tokens.pop()
    # An editor may have written the closing quote already.
    is_closed = typed.startswith('"') and after.startswith('"')
    offered = _Statement(tokens, scan(after[1:] if is_closed else after), schema).completions(typed)
    if is_closed:
        offered = (SimpleCompletion(each.text[:-1], type=each.type) for each in offered if each.text.startswith('"'))
    return _fitting(typed, offered)


def _fitting(typed: str, offered: Iterable[SimpleCompletion]) -> tuple[str, list[SimpleCompletion]]:
    beginning = typed.lower()
    fitting = (each for each in offered if each.text.lower().startswith((beginning, '"' + beginning)))
    found: dict[str, SimpleCompletion] = {}
    for each in fitting:
        found.setdefault(each.text, each)
        if len(found) == MAX_COMPLETIONS:
            break
    return typed, list(found.values())


def _offered(texts: Iterable[str], kind: str) -> Iterator[SimpleCompletion]:
    return (SimpleCompletion(text, type=kind) for text in texts)


class _Statement:
    """A statement with a cursor in it."""

    def __init__(self, before: list[Token], after: list[Token], schema: ServerSchema) -> None:
        self._before = before
        self._schema = schema
        brackets = _Brackets()
        brackets.read(before)
        nearest = brackets.innermost
        self._call, self._beside_cursor = brackets.call, list(nearest)
        brackets.read(after)
        self._tables_by_name = find_tables(sorted(brackets.all, key=lambda tokens: tokens is not nearest))
        # What the statement names itself: common table expressions, and columns.
        tokens = [*before, *after]
        self._expressions = [
            token.name
            for token, word, bracket in zip(tokens, tokens[1:], tokens[2:], strict=False)
            if token.name and word.is_word(("as",)) and bracket.text == "("
        ]
        named = (token.name for word, token in pairwise(tokens) if word.is_word(("as",)))
        self._own_names = [name for name in named if name not in self._tables_by_name]

    def completions(self, typed: str) -> Iterator[SimpleCompletion]:
        keywords = _offered(_as_typed(_KEYWORDS, typed), "keyword")
        if not self._before:
            return keywords
        last = self._before[-1]
        if last.text == ".":
            return self._columns_of(self._before[-2].name if len(self._before) > 1 else "")
        if last.kind == "cast" or last.is_word(("as",)):
            is_type = last.kind == "cast" or self._is_in_call("cast", "try_cast")
            return _offered(_as_typed(_TYPES, typed) if is_type else (), "type")  # or a new name follows
        clause = next((token.name for token in reversed(self._beside_cursor) if token.is_word(_CLAUSES)), "")
        if clause in _BEFORE_TABLE and not self._is_in_call(*_CALLS_WITH_FROM):
            if last.is_word(_BEFORE_TABLE) or last.text == ",":
                return self._tables()
            if last.name or last.text == ")":  # a table's name, or its alias
                return _offered(_as_typed(_AFTER_TABLE, typed), "keyword")
        return chain(self._values(typed), keywords, self._tables())

    def _values(self, typed: str) -> Iterator[SimpleCompletion]:
        for qualifier in self._tables_by_name:
            yield from self._columns_of(qualifier)
        yield from _names(self._own_names, "column")
        yield from _names(self._tables_by_name, "alias")
        if not self._tables_by_name and typed:
            for name in self._schema.tables:
                yield from _names(self._schema.columns_of(name), "column")
        yield from _offered(filter(str.isidentifier, self._schema.functions), "function")

    def _tables(self) -> Iterator[SimpleCompletion]:
        yield from _names([*self._expressions, *self._schema.tables], "table")
        if "processes" in self._schema.tables:
            yield from _offered(_TABLE_FUNCTIONS, "function")

    def _columns_of(self, qualifier: str) -> Iterator[SimpleCompletion]:
        """Return the columns of a table; for a query in the statement the names that occur in it."""
        for table in self._tables_by_name.get(qualifier, ()):
            known = table in self._schema.tables
            yield from _names(self._schema.columns_of(table) if known else self._own_names, "column")

    def _is_in_call(self, *functions: str) -> bool:
        return self._call is not None and self._call.is_word(functions)


def _names(names: Iterable[str], kind: str) -> Iterator[SimpleCompletion]:
    # A name that would steer a terminal or a line's direction is not offered.
    return _offered((name_in_sql(name) for name in names if name and printable(name) == name), kind)


def _as_typed(keywords: Sequence[str], typed: str) -> Iterator[str]:
    return (word.lower() if typed.islower() else word for word in keywords)


FIRST_ANSWER_SECONDS: Final = 0.25
"""How long the first completion of a notebook waits for a nearby server; the others do not wait."""


class SqlCompleter:
    """Completes SQL, options and table names in the cells and lines of two magics; offers nothing in others."""

    def __init__(
        self,
        shell: InteractiveShell,
        connections: CellConnections,
        schemas: SchemaCache,
        sql_magic: Callable[..., object],
        tables_magic: Callable[..., object],
    ) -> None:
        self._shell = shell
        self._connections = connections
        self._schemas = schemas
        self._magics = ((sql_magic, self._complete_sql), (tables_magic, self._complete_pattern))

        # The decorator sets attributes, which a bound method does not take.
        @completion_matcher(identifier="micromegas.sql", priority=200, api_version=2)
        def matcher(context: CompletionContext) -> SimpleMatcherResult:
            return self._match(context)

        self._matcher = matcher
        shell.Completer.custom_matchers.append(matcher)

    def close(self) -> None:
        """Complete nothing any more."""
        self._shell.Completer.custom_matchers.remove(self._matcher)

    def _match(self, context: CompletionContext) -> SimpleMatcherResult:
        lines = context.full_text.split("\n")
        cursor = sum(len(line) + 1 for line in lines[: context.cursor_line]) + context.cursor_position
        known = self._shell.magics_manager.magics
        for magic, complete in self._magics:
            position = find_position(
                context.full_text,
                cursor,
                cell_magics=[name for name, function in known["cell"].items() if function == magic],
                line_magics=[name for name, function in known["line"].items() if function == magic],
                options_with_value=options_with_value(magic),
                optional_values=optional_values(magic),
            )
            if position is None:
                continue
            if position.option is None:
                typed, found = complete(position)
            elif position.option == "":
                names = (*options_with_value(magic), *flags(magic))
                typed, found = _fitting(position.before, _offered(names, "option"))
            else:
                is_name = position.option == "--connection"
                values = self._connections.all() if is_name else option_values(magic, position.option)
                typed, found = _fitting(position.before, _offered(values, "value"))
            return {"completions": found, "matched_fragment": typed, "suppress": True, "ordered": True}
        return {"completions": []}

    def _complete_sql(self, statement: Position) -> tuple[str, list[SimpleCompletion]]:
        schema = self._schema(statement.options)
        return complete_sql(statement.before, statement.after, schema, variables=self._variables)

    def _complete_pattern(self, statement: Position) -> tuple[str, list[SimpleCompletion]]:
        # Names that need quotes on the magic's line are left out.
        tables = (name for name in self._schema(statement.options).tables if shlex.quote(name) == name)
        return _fitting(statement.before, _offered(tables, "table"))

    def _schema(self, options: Mapping[str, str]) -> ServerSchema:
        connection, profile = options.get("--connection"), options.get("--profile")
        try:
            settings = self._connections.settings(connection=connection, profile=profile)
        except MicromegasError:
            return ServerSchema()
        return self._schemas.look_up(settings, wait_seconds=FIRST_ANSWER_SECONDS)

    def _variables(self) -> Iterator[str]:
        for name, value in self._shell.user_ns.items():
            is_own = not name.startswith("_") and name not in self._shell.user_ns_hidden and name.isascii()
            if is_own and not callable(value) and not isinstance(value, ModuleType):
                yield name
