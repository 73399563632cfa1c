"""Completion of SQL, options, and table names, with cached server schemas."""

from __future__ import annotations

import re
import shlex
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from threading import Event, Lock
from types import ModuleType
from typing import TYPE_CHECKING, Final
from weakref import WeakKeyDictionary

from IPython.core.completer import CompletionContext, SimpleCompletion, SimpleMatcherResult

from micromegas_jupyter.core.system import start_thread
from micromegas_jupyter.core.text import printable
from micromegas_jupyter.errors import MicromegasError, UnsupportedRequest
from micromegas_jupyter.notebook.shell import (
    OPTIONS,
    completion_matcher,
    find_magic,
    option_names,
    option_values,
    options_with_value,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from IPython.core.interactiveshell import InteractiveShell

    from micromegas_jupyter.config.client import ClientSettings
    from micromegas_jupyter.notebook.login.connections import Client, Connection, Connections, NotebookServices
    from micromegas_jupyter.notebook.login.session import CellConnections

FETCH_SECONDS: Final = 10.0
"""The deadline of each call."""

_MAX_COLUMNS: Final = 50_000
_MAX_FUNCTIONS: Final = 5_000
_COLUMNS_SQL: Final = (
    "SELECT table_name, column_name, data_type, is_nullable FROM information_schema.columns "
    "WHERE table_schema <> 'information_schema' ORDER BY table_name, ordinal_position"
)
_FUNCTIONS_SQL: Final = "SELECT DISTINCT routine_name FROM information_schema.routines ORDER BY routine_name"
# Functions of servers that have Micromegas tables.
_TABLE_FUNCTIONS: Final = (
    "expand_histogram", "jsonb_array_elements", "jsonb_each", "list_partitions", "list_view_sets",
    "perfetto_trace_chunks", "process_spans", "running_queries", "table_at", "table_history",
    "view_instance",
)  # fmt: skip
FRESH_SECONDS: Final = 300.0
"""How long a response is used before it is fetched again in the background."""

RETRY_SECONDS: Final = 15.0
"""The pause after a failed call."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its unquoted name, its type as a string, and the server's description, which is usually empty."""

    name: str
    type_text: str
    is_nullable: bool = True
    remarks: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table with its columns in order."""

    name: str
    columns: tuple[Column, ...] = ()
    remarks: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSchema:
    """The tables that the caller may see, by unquoted name, and the server's functions; empty if unknown."""

    tables: Mapping[str, Table] = field(default_factory=dict)
    functions: tuple[str, ...] = ()


def fetch_schema(client: Client, *, on_tables: Callable[[ServerSchema], None] = lambda _: None) -> ServerSchema:
    """Fetch a server's tables, pass them to `on_tables`, and add its functions.

    Raises:
        MicromegasError: The server did not return its tables.
    """
    tables = _fetch_tables(client)
    on_tables(ServerSchema(tables=tables))
    functions: list[dict[str, object]] = []
    with suppress(MicromegasError):
        functions = _rows(client, _FUNCTIONS_SQL, limit=_MAX_FUNCTIONS)
    names = tuple(str(row["routine_name"]) for row in functions if "routine_name" in row)
    return ServerSchema(tables=tables, functions=names)


def _fetch_tables(client: Client) -> dict[str, Table]:
    try:
        schemas = client.list_tables(timeout_seconds=FETCH_SECONDS)
    except UnsupportedRequest:
        found: dict[str, list[Column]] = {}
        for row in _rows(client, _COLUMNS_SQL, limit=_MAX_COLUMNS):
            column = Column(str(row["column_name"]), printable(str(row["data_type"])), row["is_nullable"] == "YES")
            found.setdefault(str(row["table_name"]), []).append(column)
        return {name: Table(name=name, columns=tuple(columns)) for name, columns in found.items()}
    from micromegas_jupyter.notebook.formats import sql_type_of

    tables = {}
    # A leading underscore marks internal tables.
    for name, schema in sorted(schemas.items(), key=lambda table: (table[0].startswith("_"), table[0])):
        columns = tuple(Column(each.name, sql_type_of(each), each.nullable, _remarks(each.metadata)) for each in schema)
        tables[name] = Table(name=name, columns=columns, remarks=_remarks(schema.metadata))
    return tables


def _rows(client: Client, sql: str, *, limit: int) -> list[dict[str, object]]:
    with client.open_query(sql, limit=limit, timeout_seconds=FETCH_SECONDS) as reader:
        rows: list[dict[str, object]] = reader.read_all().to_pylist()
    return rows


def _remarks(metadata: Mapping[bytes, bytes] | None) -> str:
    from micromegas_jupyter.telemetry.tables import REMARKS_KEY

    return printable((metadata or {}).get(REMARKS_KEY, b"").decode("utf-8", errors="replace"))


class SchemaCache:
    """The schema of each connection, because users may see different tables. Thread-safe; errors are ignored."""

    def __init__(self, connections: Connections, dependencies: NotebookServices) -> None:
        self._connections = connections
        self._dependencies = dependencies
        self._lock = Lock()
        # Each connection's last response (or None) and when to refetch it, according to the monotonic clock.
        self._known: WeakKeyDictionary[Connection, tuple[ServerSchema | None, float]] = WeakKeyDictionary()
        self._fetching: dict[ClientSettings, Event] = {}
        self._listing: dict[ClientSettings, Event] = {}  # until the tables arrive, which is before the functions
        self._awaited: set[ClientSettings] = set()  # connections whose current fetch has already been awaited

    def look_up(self, settings: ClientSettings, *, wait_seconds: float = 0.0) -> ServerSchema:
        """Return the cached schema; fetch it if it is missing or stale, but wait only for the first fetch."""
        connection = self._connections.current(settings)
        schema, due_at = self._entry(connection)
        is_due = self._dependencies.clock.monotonic() >= due_at
        if connection is None:
            is_due = not self._dependencies.is_wrapped()  # a wrapped client cannot be created on another thread
        with self._lock:
            answered = self._listing.get(settings)
            if is_starting := settings not in self._fetching and is_due:
                answered = self._listing[settings] = Event()
                self._fetching[settings] = Event()
            if is_waiting := schema is None and answered is not None and wait_seconds > 0:
                is_waiting = settings not in self._awaited
                self._awaited.add(settings)
        if is_starting:
            start_thread(self._fetch, settings, name="micromegas-schema")
        if answered is not None and is_waiting:
            answered.wait(wait_seconds)
        return self._entry(self._connections.current(settings))[0] or ServerSchema()

    def note(self, connection: Connection, schema: ServerSchema | None) -> None:
        """Store a server's response; None means that there was no response, so the previous one is kept."""
        due_at = self._dependencies.clock.monotonic() + (RETRY_SECONDS if schema is None else FRESH_SECONDS)
        schema = schema or self._entry(connection)[0]
        with self._lock:
            self._known[connection] = (schema, due_at)

    def _note_tables(self, settings: ClientSettings, connection: Connection, schema: ServerSchema) -> None:
        """Let the first completion continue before the functions arrive, because these require a query."""
        known = self._entry(connection)[0] or ServerSchema()
        self.note(connection, ServerSchema(tables=schema.tables, functions=known.functions))
        with self._lock:
            self._listing.pop(settings).set()

    def _entry(self, connection: Connection | None) -> tuple[ServerSchema | None, float]:
        with self._lock:
            return (None, 0.0) if connection is None else self._known.get(connection, (None, 0.0))

    def _fetch(self, settings: ClientSettings) -> None:
        connection = None
        try:
            connection = self._connections.get(settings)
            on_tables = partial(self._note_tables, settings, connection)
            self.note(connection, fetch_schema(connection.client, on_tables=on_tables))
        except Exception:  # noqa: BLE001 - a traceback would disturb typing
            if connection is not None:
                self.note(connection, None)
        finally:
            with self._lock:
                self._awaited.discard(settings)
                if (listing := self._listing.pop(settings, None)) is not None:
                    listing.set()
                self._fetching.pop(settings).set()


# Possessive, bounded, and only at the start of a word, so that matching takes linear time for any statement.
_NAME: Final = r'(?:(?<![\w$])[^\W\d][\w$]*+|"(?:[^"]|""){0,200}+")'
_NAMES_AND_TEXTS: Final = re.compile(r"""("(?:[^"]|"")*+"?)|'(?:[^']|'')*+'?|--[^\n]*|/\*.*?(?:\*/|\Z)""", re.DOTALL)
_CURSOR: Final = "\0"
_AT_CURSOR: Final = re.compile(
    rf"""(?P<colon>(?<![\w:)\]}}'"]):)?(?:(?P<table>{_NAME})\.)?(?P<typed>"[^"]*+|(?<![\w$])[\w$]*+){_CURSOR}"""
)
_TABLE_AND_ALIAS: Final = re.compile(rf"({_NAME})(?:(?=\s+(?:as\s+)?({_NAME}))|)", re.IGNORECASE)
_TABLE_EXPRESSION: Final = re.compile(rf"({_NAME})\s+as\s*\(", re.IGNORECASE)
_BEFORE_TABLE: Final = re.compile(r"\b(?:from|join|describe|table)\s+\Z", re.IGNORECASE)
_PLAIN_NAME: Final = re.compile(r"[a-z_][a-z0-9_]*")
_RESERVED_TEXT: Final = (
    "SELECT FROM BY DISTINCT AND OR NOT IN IS NULL LIKE BETWEEN CASE WHEN THEN ELSE END CAST INTERVAL ALL WITH VALUES "
    "EXISTS ANY SOME ASC DESC OVER PARTITION UNNEST LATERAL ARRAY TRUE FALSE DESCRIBE SIMILAR TO WHERE GROUP ORDER "
    "HAVING LIMIT OFFSET JOIN INNER LEFT RIGHT FULL OUTER CROSS NATURAL ON USING UNION EXCEPT INTERSECT AS QUALIFY "
    "WINDOW SEMI ANTI"
)
_OTHER_KEYWORDS_TEXT: Final = (
    "ILIKE TRY_CAST TIMESTAMP EXTRACT NULLS FIRST LAST ROWS RANGE UNBOUNDED PRECEDING FOLLOWING CURRENT ROW FILTER "
    "WITHIN RECURSIVE EXPLAIN ANALYZE VERBOSE SHOW TABLES COLUMNS FUNCTIONS ESCAPE GROUPING SETS CUBE ROLLUP BIGINT "
    "BOOLEAN BYTEA CHAR DATE DECIMAL DOUBLE FLOAT INT INTEGER REAL SMALLINT STRING TIME TINYINT VARCHAR"
)
_KEYWORDS: Final = (*_RESERVED_TEXT.split(), *_OTHER_KEYWORDS_TEXT.split())
_RESERVED: Final = frozenset(_RESERVED_TEXT.lower().split())
MAX_COMPLETIONS: Final = 1000
MAX_CHARACTERS: Final = 50_000
"""The maximum length of a statement that is completed."""


def name_in_sql(name: str) -> str:
    """Return a name as an SQL identifier, quoted if DataFusion would otherwise change it."""
    if _PLAIN_NAME.fullmatch(name) and name not in _RESERVED:
        return name
    return '"' + name.replace('"', '""') + '"'


def _name_of(sql: str) -> str:
    """Return the name that a SQL identifier denotes; the inverse of `name_in_sql`."""
    return sql[1:-1].replace('""', '"') if sql.startswith('"') else sql.lower()


def complete_sql(
    before: str, after: str, schema: ServerSchema, *, variables: Callable[[], Iterable[str]]
) -> tuple[str, list[SimpleCompletion]]:
    """Return the typed prefix and its completions; `variables` returns the names available for `:name`."""
    if len(before) + len(after) > MAX_CHARACTERS:
        return "", []
    statement = _NAMES_AND_TEXTS.sub(lambda found: found[1] or " ", before + _CURSOR)
    found = _AT_CURSOR.search(statement)
    if found is None:  # in a string or comment
        return "", []
    typed = found["typed"]
    if found["colon"]:
        return _fitting(typed, _offered(variables(), "variable"))
    # An editor may already have inserted the closing quote.
    is_closed = typed.startswith('"') and after.startswith('"')
    rest = _NAMES_AND_TEXTS.sub(lambda found: found[1] or " ", after[is_closed:])
    offered = _completions(statement[: found.start()], found["table"], typed, rest, schema)
    if is_closed:
        offered = (SimpleCompletion(each.text[:-1], type=each.type) for each in offered if each.text.startswith('"'))
    return _fitting(typed, offered)


def _completions(
    before: str, qualifier: str | None, typed: str, rest: str, schema: ServerSchema
) -> Iterator[SimpleCompletion]:
    """Return all candidates at the cursor, which follows `before` and an optional qualifier with a dot."""
    tables: dict[str, str] = {}
    for name, alias in _TABLE_AND_ALIAS.findall(f"{before} {rest}"):
        if (table := _name_of(name)) in schema.tables:
            tables.setdefault(_name_of(alias) if alias and alias.lower() not in _RESERVED else table, table)
    if qualifier is not None:
        yield from _columns(schema, tables.get(_name_of(qualifier), ""))
        return
    expressions = map(_name_of, _TABLE_EXPRESSION.findall(before))
    if not _BEFORE_TABLE.search(before):
        for table in tables.values() or schema.tables:
            yield from _columns(schema, table)
        yield from _names((alias for alias, table in tables.items() if alias != table), "alias")
        yield from _offered(filter(str.isidentifier, schema.functions), "function")
        yield from _offered((word.lower() if typed.islower() else word for word in _KEYWORDS), "keyword")
    yield from _names([*expressions, *schema.tables], "table")
    if "processes" in schema.tables:
        yield from _offered(_TABLE_FUNCTIONS, "function")


def _fitting(typed: str, offered: Iterable[SimpleCompletion]) -> tuple[str, list[SimpleCompletion]]:
    beginning = typed.lower()
    fitting = (each for each in offered if each.text.lower().startswith((beginning, '"' + beginning)))
    return typed, list(islice({each.text: each for each in fitting}.values(), MAX_COMPLETIONS))


def _offered(texts: Iterable[str], kind: str) -> Iterator[SimpleCompletion]:
    return (SimpleCompletion(text, type=kind) for text in texts)


def _names(names: Iterable[str], kind: str) -> Iterator[SimpleCompletion]:
    # Names that could control a terminal or reverse the text direction are not offered.
    return _offered((name_in_sql(name) for name in names if name and printable(name) == name), kind)


def _columns(schema: ServerSchema, table: str) -> Iterator[SimpleCompletion]:
    for column in schema.tables[table].columns if table in schema.tables else ():
        yield from _names([column.name], f"column {column.type_text}")


_AT_OPTION: Final = re.compile(rf"{OPTIONS.pattern}(?P<typed>(?:--?[\w-]*)?)")
_AT_VALUE: Final = re.compile(r"(?:.*\s)?(--[\w-]+)(?:=|\s+)([\w-]*)")
FIRST_ANSWER_SECONDS: Final = 0.4
"""How long a notebook's first completion waits for a nearby server; the others do not wait."""


class SqlCompleter:
    """Completes SQL, options, and table names in the cells and lines of two magics, and nowhere else."""

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

        # The decorator sets attributes, which isn't possible on bound methods.
        @completion_matcher(identifier="micromegas.sql", priority=200, api_version=2)
        def matcher(context: CompletionContext) -> SimpleMatcherResult:
            return self._match(context)

        self._matcher = matcher
        shell.Completer.custom_matchers.append(matcher)

    def fetch_early(self) -> None:
        """Fetch the schema for the first Tab on a separate thread, if a sign-in is stored or not needed."""
        start_thread(self._schema, "", 0.0, name="micromegas-first-schema")

    def close(self) -> None:
        """Stop completing."""
        self._shell.Completer.custom_matchers.remove(self._matcher)

    def _match(self, context: CompletionContext) -> SimpleMatcherResult:
        lines = context.full_text.split("\n")
        cursor = sum(len(line) + 1 for line in lines[: context.cursor_line]) + context.cursor_position
        known = self._shell.magics_manager.magics
        for magic, complete in self._magics:
            line_names, cell_names = (
                [name for name, function in known[kind].items() if function == magic] for kind in ("line", "cell")
            )
            found = find_magic(context.full_text, cursor, line_magics=line_names, cell_magics=cell_names)
            if found is not None:
                before, after, is_cell = found
                typed, offered = self._complete_option(magic, before, is_cell=is_cell) or complete(before, after)
                return {"completions": offered, "matched_fragment": typed, "suppress": True, "ordered": True}
        return {"completions": []}

    def _complete_option(
        self, magic: Callable[..., object], before: str, *, is_cell: bool
    ) -> tuple[str, list[SimpleCompletion]] | None:
        """Complete an option or its value; return None if the cursor is not at one."""
        if (found := _AT_VALUE.fullmatch(before)) is not None:
            values = self._connections.all() if found[1] == "--connection" else option_values(magic, found[1])
            typed, fitting = _fitting(found[2], _offered(values, "value"))
            if fitting or found[1] in options_with_value(magic):
                return typed, fitting
        found = _AT_OPTION.fullmatch(before)
        if found is None or not (found["typed"] or (is_cell and "\n" not in before)):
            return None
        return _fitting(found["typed"], _offered(option_names(magic), "option"))

    def _complete_sql(self, before: str, after: str) -> tuple[str, list[SimpleCompletion]]:
        options = OPTIONS.match(before)
        statement = before if options is None else before[options.end() :]
        return complete_sql(statement, after, self._schema(before), variables=self._variables)

    def _complete_pattern(self, before: str, _after: str) -> tuple[str, list[SimpleCompletion]]:
        # Names that would need quotes on the magic's line are omitted.
        tables = (name for name in self._schema(before).tables if shlex.quote(name) == name)
        return _fitting(before.rpartition(" ")[2], _offered(tables, "table"))

    def _schema(self, before: str, wait_seconds: float = FIRST_ANSWER_SECONDS) -> ServerSchema:
        options = dict(re.findall(r"(--connection|--profile)[= ]\s*(\S+)", before.partition("\n")[0]))
        connection, profile = options.get("--connection"), options.get("--profile")
        try:
            settings = self._connections.settings(connection=connection, profile=profile)
        except MicromegasError:
            return ServerSchema()
        return self._schemas.look_up(settings, wait_seconds=wait_seconds)

    def _variables(self) -> Iterator[str]:
        for name, value in self._shell.user_ns.items():
            is_own = not name.startswith("_") and name not in self._shell.user_ns_hidden and name.isascii()
            if is_own and not callable(value) and not isinstance(value, ModuleType):
                yield name
