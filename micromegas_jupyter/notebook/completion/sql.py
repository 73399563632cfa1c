"""Completion of SQL, of options and of table names, as an IPython matcher; names in several scopes all count."""

import re
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import date, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Final, NamedTuple

from IPython.core.completer import CompletionContext, SimpleCompletion, SimpleMatcherResult
from IPython.core.interactiveshell import InteractiveShell

from micromegas_jupyter.errors import MicromegasError
from micromegas_jupyter.notebook.completion.schema import SchemaCache, ServerSchema
from micromegas_jupyter.notebook.login.cells import CellConnections
from micromegas_jupyter.notebook.shell import (
    CursorPosition,
    OptionName,
    OptionValue,
    Statement,
    completion_matcher,
    find_position,
    flags,
    option_values,
    optional_values,
    options_with_value,
    printable,
)

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
_FIRST_KEYWORDS: Final = ("SELECT", "WITH", "EXPLAIN", "DESCRIBE", "SHOW", "VALUES")
_KEYWORDS_TEXT: Final = (
    "SELECT FROM WHERE GROUP ORDER BY HAVING LIMIT OFFSET AS DISTINCT AND OR NOT IN IS NULL LIKE ILIKE BETWEEN "
    "CASE WHEN THEN ELSE END CAST TRY_CAST INTERVAL TIMESTAMP JOIN INNER LEFT RIGHT FULL OUTER CROSS NATURAL ON "
    "USING UNION ALL EXCEPT INTERSECT WITH RECURSIVE VALUES EXISTS ANY SOME ASC DESC NULLS FIRST LAST OVER "
    "PARTITION ROWS RANGE UNBOUNDED PRECEDING FOLLOWING CURRENT ROW FILTER WITHIN QUALIFY WINDOW EXTRACT UNNEST "
    "LATERAL ARRAY TRUE FALSE EXPLAIN ANALYZE VERBOSE DESCRIBE SHOW TABLES COLUMNS FUNCTIONS SIMILAR TO ESCAPE "
    "GROUPING SETS CUBE ROLLUP SEMI ANTI"
)
_AFTER_TABLE_TEXT: Final = (
    "WHERE GROUP ORDER HAVING LIMIT OFFSET JOIN INNER LEFT RIGHT FULL OUTER CROSS NATURAL ON USING UNION EXCEPT "
    "INTERSECT AS QUALIFY WINDOW SEMI ANTI"
)
_TYPES_TEXT: Final = (
    "BIGINT BOOLEAN BYTEA CHAR DATE DECIMAL DOUBLE FLOAT INT INTEGER INTERVAL REAL SMALLINT STRING TIME TIMESTAMP "
    "TINYINT VARCHAR"
)
_RESERVED_TEXT: Final = (
    "all and any array as asc between by case cast cross desc describe distinct else end except exists false from "
    "full group having in inner intersect interval is join lateral left like limit natural not null offset on or "
    "order outer over partition qualify right select similar some then to true union unnest using values when "
    "where window with"
)
_KEYWORDS: Final = tuple(_KEYWORDS_TEXT.split())
_AFTER_TABLE: Final = tuple(_AFTER_TABLE_TEXT.split())
_TYPES: Final = tuple(_TYPES_TEXT.split())
_RESERVED: Final = frozenset(_RESERVED_TEXT.split())  # begin or end something everywhere: never a name without quotes
_NO_ALIAS: Final = _RESERVED | {word.lower() for word in _AFTER_TABLE}
_BEFORE_RELATION: Final = ("from", "join")
_BEFORE_TABLE: Final = ("from", "join", "describe", "table")
_CLAUSES: Final = (_RESERVED - {"as"}) | {"table"}
_CALLS_WITH_FROM: Final = ("extract", "substring", "trim", "overlay", "position")
MAX_CANDIDATES: Final = 1000
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


def find_tables(tokens: Sequence[Token]) -> dict[str, list[str]]:
    """Return the tables of a statement by what qualifies their columns (alias, else name); a sub-query's name is ""."""
    tokens = [*tokens, *[Token("sign", "")] * 3]  # so that one can look ahead
    closing: dict[int, int] = {}  # where each opening bracket closes, else the end
    opened: list[int] = []
    for index, token in enumerate(tokens):
        if token.text == "(":
            opened.append(index)
            closing[index] = len(tokens) - 3
        elif token.text == ")" and opened:
            closing[opened.pop()] = index
    tables: dict[str, list[str]] = {}
    for start, token in enumerate(tokens):
        index = start + 1
        is_table = token.is_word(_BEFORE_RELATION)
        while is_table and (tokens[index].text == "(" or _is_name(tokens[index], _RESERVED)):
            name = ""
            while tokens[index + 1].text == "." and tokens[index + 2].name:
                index += 2
            if tokens[index].text != "(":
                name, index = tokens[index].name, index + 1
            if index in closing:  # a sub-query, or the arguments of a table function
                index = closing[index] + 1
            index += tokens[index].is_word(("as",))
            alias = tokens[index].name if _is_name(tokens[index], _NO_ALIAS) else ""
            index += bool(alias)
            tables.setdefault(alias or name, []).append(name)
            is_table = tokens[index].text == ","
            index += 1
    return tables


def _is_name(token: Token, keywords: Collection[str]) -> bool:
    return bool(token.name) and not token.is_word(keywords)


class Candidate(NamedTuple):
    """One candidate: its text, and `column`, `alias`, `table`, `function`, `keyword`, `type`, `variable` or so."""

    text: str
    kind: str


class Candidates(NamedTuple):
    """The candidates in place of `typed`, the beginning that is there."""

    typed: str
    found: tuple[Candidate, ...] = ()


def complete_sql(
    before: str, after: str, schema: ServerSchema, *, variables: Callable[[], Iterable[str]]
) -> Candidates:
    """Return the candidates between `before` and `after`; `variables` gives the names for `:name`."""
    if len(before) + len(after) > MAX_CHARACTERS:
        return Candidates("")
    tokens = scan(before)
    last = tokens[-1] if tokens and before.endswith(tokens[-1].text) else None
    if last is not None and last.kind in _INSIDE:
        return Candidates("")
    if last is not None and last.kind == "placeholder":
        return _fitting(last.text[1:], (Candidate(name, "variable") for name in variables()))
    typed = ""
    if last is not None and last.kind in {"word", "open_quoted"}:
        typed = last.text
        tokens.pop()
    # An editor may have written the closing quote already.
    is_closed = typed.startswith('"') and after.startswith('"')
    offered = _Statement(tokens, scan(after[1:] if is_closed else after), schema).candidates(typed)
    if is_closed:
        offered = (Candidate(each.text[:-1], each.kind) for each in offered if each.text.startswith('"'))
    return _fitting(typed, offered)


def _fitting(typed: str, offered: Iterable[Candidate]) -> Candidates:
    beginning = typed.lower()
    found: dict[str, Candidate] = {}
    for candidate in offered:
        if candidate.text.lower().startswith((beginning, '"' + beginning)):
            found.setdefault(candidate.text, candidate)
            if len(found) == MAX_CANDIDATES:
                break
    return Candidates(typed, tuple(found.values()))


class _Statement:
    """A statement with a cursor in it."""

    def __init__(self, before: list[Token], after: list[Token], schema: ServerSchema) -> None:
        self._before = before
        self._schema = schema
        tokens = [*before, *after]
        self._tables_by_name = find_tables(tokens)
        # What the statement names itself: common table expressions, and columns.
        self._expressions = [
            token.name
            for token, word, bracket in zip(tokens, tokens[1:], tokens[2:], strict=False)
            if token.name and word.is_word(("as",)) and bracket.text == "("
        ]
        named = (token.name for word, token in pairwise(tokens) if word.is_word(("as",)))
        self._own_names = [name for name in named if name not in self._tables_by_name]
        # The tokens in the cursor's brackets, the nearest first, and the word before these brackets.
        self._level: list[Token] = []
        self._call: Token | None = None
        depth = 0
        for index in reversed(range(len(before))):
            text = before[index].text
            if text == ")":
                depth += 1
            elif text == "(" and depth == 0:
                self._call = before[index - 1] if index else None
                break
            elif text == "(":
                depth -= 1
            elif depth == 0:
                self._level.append(before[index])

    def candidates(self, typed: str) -> Iterator[Candidate]:
        if not self._before:
            return _keywords(_FIRST_KEYWORDS, typed)
        last = self._before[-1]
        if last.text == ".":
            return self._columns_of(self._before[-2].name if len(self._before) > 1 else "")
        if last.kind == "cast" or last.is_word(("as",)):
            is_type = last.kind == "cast" or self._is_in_call("cast", "try_cast")
            return _keywords(_TYPES, typed, kind="type") if is_type else iter(())  # a new name
        clause = next((token.name for token in self._level if token.is_word(_CLAUSES)), "")
        if clause in _BEFORE_TABLE and not self._is_in_call(*_CALLS_WITH_FROM):
            if last.is_word(_BEFORE_TABLE) or last.text == ",":
                return self._tables()
            if last.name or last.text == ")":  # a table's name, or its alias
                return _keywords(_AFTER_TABLE, typed)
        return self._expression(typed)

    def _expression(self, typed: str) -> Iterator[Candidate]:
        for qualifier in self._tables_by_name:
            yield from self._columns_of(qualifier)
        yield from _names(self._own_names, "column")
        yield from _names(self._tables_by_name, "alias")
        if not self._tables_by_name and typed:
            for name in self._schema.tables:
                yield from _names(self._schema.columns_of(name), "column")
        yield from (Candidate(name, "function") for name in self._schema.functions if name.isidentifier())
        yield from _keywords(_KEYWORDS, typed)
        yield from self._tables()

    def _tables(self) -> Iterator[Candidate]:
        yield from _names(self._expressions, "table")
        yield from _names(self._schema.tables, "table")

    def _columns_of(self, qualifier: str) -> Iterator[Candidate]:
        """Return the columns of a table; for a query in the statement the names that occur in it."""
        for table in self._tables_by_name.get(qualifier, ()):
            yield from _names(self._schema.columns_of(table), "column")
            if table not in self._schema.tables:
                yield from _names(self._own_names, "column")

    def _is_in_call(self, *functions: str) -> bool:
        return self._call is not None and self._call.is_word(functions)


def _names(names: Iterable[str], kind: str) -> Iterator[Candidate]:
    # A name that would steer a terminal or a line's direction is not offered.
    return (Candidate(name_in_sql(name), kind) for name in names if name and printable(name) == name)


def _keywords(keywords: Sequence[str], typed: str, *, kind: str = "keyword") -> Iterator[Candidate]:
    return (Candidate(word.lower() if typed.islower() else word, kind) for word in keywords)


FIRST_ANSWER_SECONDS: Final = 0.25
"""How long the first completion of a notebook waits for a nearby server; the others do not wait."""

_PLAIN_WORD: Final = re.compile(r"\w[\w.:-]*")
_BINDABLE: Final = (
    *(str, int, float, bytes, Decimal, date, timedelta, uuid.UUID),
    *(list, tuple, set, frozenset, type(None)),
)


class SqlCompleter:
    """Completes SQL, options and table names in the cells and lines of two magics; offers nothing in others."""

    def __init__(
        self,
        shell: InteractiveShell,
        connections: CellConnections,
        schemas: SchemaCache,
        *,
        sql_magic: Callable[..., object],
        tables_magic: Callable[..., object],
    ) -> None:
        self._shell = shell
        self._connections = connections
        self._schemas = schemas
        self._sql_magic = sql_magic
        self._tables_magic = tables_magic

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
        for magic, complete in ((self._sql_magic, self._complete_sql), (self._tables_magic, self._complete_pattern)):
            position = find_position(
                context.full_text,
                cursor,
                cell_magics=self._names("cell", magic),
                line_magics=self._names("line", magic),
                options_with_value=options_with_value(magic),
                optional_values=optional_values(magic),
            )
            if position is not None:
                candidates = self._candidates(position, magic, complete)
                return {
                    "completions": [SimpleCompletion(text=found.text, type=found.kind) for found in candidates.found],
                    "matched_fragment": candidates.typed,
                    "suppress": True,
                    "ordered": True,
                }
        return {"completions": []}

    def _candidates(
        self, position: CursorPosition, magic: Callable[..., object], complete: Callable[[Statement], Candidates]
    ) -> Candidates:
        match position:
            case Statement():
                return complete(position)
            case OptionName():
                return _beginning_with(position.typed, (*options_with_value(magic), *flags(magic)), kind="option")
            case OptionValue(option="--connection"):
                return _beginning_with(position.typed, self._connections.all(), kind="value")
            case OptionValue():
                return _beginning_with(position.typed, option_values(magic, position.option), kind="value")

    def _complete_sql(self, statement: Statement) -> Candidates:
        schema = self._schema(statement.options)
        return complete_sql(statement.before, statement.after, schema, variables=self._variables)

    def _complete_pattern(self, statement: Statement) -> Candidates:
        tables = (name for name in self._schema(statement.options).tables if _PLAIN_WORD.fullmatch(name))
        return _beginning_with(statement.before, tables, kind="table")

    def _names(self, kind: str, magic: Callable[..., object]) -> list[str]:
        return [name for name, known in self._shell.magics_manager.magics[kind].items() if known == magic]

    def _schema(self, options: Mapping[str, str]) -> ServerSchema:
        connection, profile = options.get("--connection"), options.get("--profile")
        try:
            settings = self._connections.settings(connection=connection, profile=profile)
        except MicromegasError:
            return ServerSchema()
        return self._schemas.look_up(settings, wait_seconds=FIRST_ANSWER_SECONDS) or ServerSchema()

    def _variables(self) -> Iterator[str]:
        for name, value in self._shell.user_ns.items():
            is_own = not name.startswith("_") and name not in self._shell.user_ns_hidden and name.isascii()
            if is_own and (isinstance(value, _BINDABLE) or type(value).__module__ == "numpy"):
                yield name


def _beginning_with(typed: str, texts: Iterable[str], *, kind: str) -> Candidates:
    found = tuple(Candidate(text, kind) for text in texts if text.startswith(typed))
    return Candidates(typed, found)
