"""Completion of SQL, of options and of table names, as an IPython matcher.

The tokenizer accepts any text and never fails; names in several scopes all count. Only the first look-up waits.
"""

from __future__ import annotations

import enum
import re
import uuid
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Final, NamedTuple

from IPython.core.completer import CompletionContext, SimpleCompletion, SimpleMatcherResult

from micromegas_jupyter.errors import MicromegasError
from micromegas_jupyter.notebook.completion.schema import ServerSchema
from micromegas_jupyter.notebook.formatting import printable
from micromegas_jupyter.notebook.shell import (
    OptionName,
    OptionValue,
    Statement,
    completion_matcher,
    find_position,
    flags,
    option_values,
    options_with_value,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from IPython.core.interactiveshell import InteractiveShell

    from micromegas_jupyter.notebook.completion.schema import SchemaCache
    from micromegas_jupyter.notebook.login.session import CellConnections
    from micromegas_jupyter.notebook.shell import CursorPosition

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
_BEFORE_EXPRESSION: Final = ("with", "recursive")
_BEFORE_TABLE: Final = ("from", "join", "describe", "table")
_CLAUSES: Final = (_RESERVED - {"as"}) | {"table"}
_CALLS_WITH_FROM: Final = ("extract", "substring", "trim", "overlay", "position")
_MAX_DEPTH: Final = 8
MAX_CANDIDATES: Final = 1000
MAX_CHARACTERS: Final = 50_000
"""The longest statement that is completed."""


class Kind(enum.StrEnum):
    """The kind of a token; an `OPEN_` one has no end, so that a cursor behind it is inside."""

    WORD = "word"
    QUOTED = "quoted"
    OPEN_QUOTED = "open_quoted"
    STRING = "string"
    OPEN_STRING = "open_string"
    OPEN_COMMENT = "open_comment"
    NUMBER = "number"
    PLACEHOLDER = "placeholder"
    CAST = "cast"
    SIGN = "sign"


_INSIDE: Final = frozenset({Kind.OPEN_STRING, Kind.OPEN_COMMENT, Kind.NUMBER})


class Token(NamedTuple):
    """One token: its kind, and its text as written."""

    kind: Kind
    text: str

    @property
    def name(self) -> str:
        """The name as DataFusion reads it; empty for what is not a name."""
        if self.kind is Kind.WORD:
            return self.text.lower()
        return self.text[1:-1].replace('""', '"') if self.kind is Kind.QUOTED else ""

    def is_word(self, keywords: Collection[str]) -> bool:
        """Whether it is one of these keywords (in lower case), without quotes."""
        return self.kind is Kind.WORD and self.text.lower() in keywords


def scan(sql: str) -> list[Token]:
    """Return the tokens of `sql`, without blanks and comments that have an end."""
    groups = (("string" if match.lastgroup == "tag" else match.lastgroup, match[0]) for match in _TOKEN.finditer(sql))
    return [Token(Kind(group), text) for group, text in groups if group is not None and group != "blank"]


def name_in_sql(name: str) -> str:
    """Return a name as it must be written, in quotes when DataFusion would read another one without them."""
    if _PLAIN_NAME.fullmatch(name) and name not in _RESERVED:
        return name
    return '"' + name.replace('"', '""') + '"'


@dataclass(frozen=True, slots=True, kw_only=True)
class Relation:
    """A table in a statement: its name, empty for a sub-query, its alias, and the known columns of a sub-query."""

    name: str
    alias: str = ""
    outputs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Relations:
    """All tables in a statement, and its common table expressions with their known columns."""

    tables: tuple[Relation, ...]
    expressions: Mapping[str, tuple[str, ...]]


def find_relations(tokens: Sequence[Token], columns_of: Callable[[str], Sequence[str]]) -> Relations:
    """Return the tables of a statement; `columns_of` gives the columns of a table of the server, for `*`."""
    return _RelationFinder(tokens, columns_of).find()


class _RelationFinder:
    """Finds the tables in one statement; arguments are indices of its tokens, `stop` the first that does not count."""

    def __init__(self, tokens: Sequence[Token], columns_of: Callable[[str], Sequence[str]]) -> None:
        self._tokens = tokens
        self._columns_of = columns_of
        self._expressions: dict[str, tuple[str, ...]] = {}
        # Where each opening bracket closes, else the number of tokens.
        self._closing: dict[int, int] = {}
        opened: list[int] = []
        for index, token in enumerate(tokens):
            if token.text == "(":
                opened.append(index)
                self._closing[index] = len(tokens)
            elif token.text == ")" and opened:
                self._closing[opened.pop()] = index

    def find(self) -> Relations:
        for index, token in enumerate(self._tokens[:-1]):
            if token.text == "," or token.is_word(_BEFORE_EXPRESSION):
                self._note_expression(index + 1)
        tables: list[Relation] = []
        for index, token in enumerate(self._tokens):
            if token.is_word(_BEFORE_RELATION):
                tables += self._list_at(index + 1, len(self._tokens), depth=0)
        return Relations(tables=tuple(tables), expressions=self._expressions)

    def _note_expression(self, index: int) -> None:
        """Note `NAME [(…)] AS (…)`."""
        name = self._tokens[index].name
        names: tuple[str, ...] = ()
        index += 1
        if name and self._text(index) == "(":
            names = tuple(found.name for found in self._tokens[index + 1 : self._closing[index]] if found.name)
            index = self._closing[index] + 1
        if name and self._is_word(index, ("as",)) and self._text(index + 1) == "(":
            stop = self._closing[index + 1]
            self._expressions[name] = names or self._outputs(index + 2, stop, depth=1)

    def _list_at(self, index: int, stop: int, *, depth: int) -> list[Relation]:
        """Return the tables between commas behind a FROM or JOIN."""
        found: list[Relation] = []
        while index < stop:
            outputs: tuple[str, ...] = ()
            name = ""
            if self._text(index) == "(":
                outputs = self._outputs(index + 1, self._closing[index], depth=depth + 1)
                index = self._closing[index] + 1
            elif self._tokens[index].name and not self._is_word(index, _RESERVED):
                name, index = self._name_at(index)
            else:
                break
            index += self._is_word(index, ("as",))
            alias = ""
            if index < stop and not self._is_word(index, _NO_ALIAS):
                alias = self._tokens[index].name
                index += bool(alias)
            found.append(Relation(name=name, alias=alias, outputs=outputs))
            if self._text(index) != ",":
                break
            index += 1
        return found

    def _name_at(self, index: int) -> tuple[str, int]:
        """Return the last part of a dotted name, and the index behind it and the arguments of a table function."""
        while self._text(index + 1) == "." and index + 2 < len(self._tokens) and self._tokens[index + 2].name:
            index += 2
        after = index + 1
        return self._tokens[index].name, self._closing[after] + 1 if self._text(after) == "(" else after

    def _outputs(self, start: int, stop: int, *, depth: int) -> tuple[str, ...]:
        """Return the columns of a SELECT that have names."""
        if depth > _MAX_DEPTH or start >= stop or not self._is_word(start, ("select",)):
            return ()
        items: list[list[Token]] = [[]]
        index = start + 1
        while index < stop and not self._is_word(index, _BEFORE_RELATION[:1]):
            token = self._tokens[index]
            if token.text == ",":
                items.append([])
            elif not token.is_word(("distinct",)):
                items[-1].append(token)
            # What stands in brackets does not count.
            index = self._closing[index] if token.text == "(" else index + 1
        names: list[str] = []
        for item in filter(None, items):
            if item[-1].text == "*" and (len(item) == 1 or item[-2].text == "."):
                for relation in self._list_at(index + 1, stop, depth=depth):
                    names += relation.outputs or self._columns(relation.name)
            elif item[-1].name:
                names.append(item[-1].name)
        return tuple(dict.fromkeys(names))

    def _columns(self, name: str) -> Sequence[str]:
        return self._expressions[name] if name in self._expressions else self._columns_of(name)

    def _text(self, index: int) -> str:
        return self._tokens[index].text if index < len(self._tokens) else ""

    def _is_word(self, index: int, keywords: Collection[str]) -> bool:
        return index < len(self._tokens) and self._tokens[index].is_word(keywords)


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
    """Return the candidates between `before` and `after`.

    Args:
        before: The statement up to the cursor.
        after: The rest of it.
        schema: The server's schema, as far as it is known.
        variables: The names for `:name`.
    """
    if len(before) + len(after) > MAX_CHARACTERS:
        return Candidates("")
    tokens = scan(before)
    last = tokens[-1] if tokens and before.endswith(tokens[-1].text) else None
    if last is not None and last.kind in _INSIDE:
        return Candidates("")
    if last is not None and last.kind is Kind.PLACEHOLDER:
        return _fitting(last.text[1:], (Candidate(name, "variable") for name in variables()))
    typed = ""
    if last is not None and last.kind in {Kind.WORD, Kind.OPEN_QUOTED}:
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
        self._relations = find_relations([*before, *after], schema.columns_of)
        self._tables_by_name: dict[str, list[Relation]] = {}
        for relation in dict.fromkeys(self._relations.tables):
            self._tables_by_name.setdefault(relation.alias or relation.name, []).append(relation)
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
        if last.kind is Kind.CAST or last.is_word(("as",)):
            is_type = last.kind is Kind.CAST or self._is_in_call("cast", "try_cast")
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
        yield from _names((relation.alias for relation in self._relations.tables), "alias")
        if not self._tables_by_name and typed:
            for name in self._schema.tables:
                yield from _names(self._schema.columns_of(name), "column")
        yield from (Candidate(name, "function") for name in self._schema.functions if name.isidentifier())
        yield from _keywords(_KEYWORDS, typed)
        yield from self._tables()

    def _tables(self) -> Iterator[Candidate]:
        yield from _names(self._relations.expressions, "table")
        yield from _names(self._schema.tables, "table")

    def _columns_of(self, qualifier: str) -> Iterator[Candidate]:
        for relation in self._tables_by_name.get(qualifier, ()):
            yield from _names(relation.outputs, "column")
            known = self._relations.expressions.get(relation.name)
            yield from _names(self._schema.columns_of(relation.name) if known is None else known, "column")

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
    """Completes SQL, options and table names; offers nothing in other cells.

    Args:
        shell: Its completer is extended; its variables are candidates for `:name`.
        connections: The servers that cells name.
        schemas: The servers' tables and functions.
        sql_magic: The magic whose cells and lines hold SQL, under each name that it is registered with.
        tables_magic: The magic whose lines hold the name of a table.
    """

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

    def register(self) -> None:
        """Extend the shell's completion."""
        self._shell.Completer.custom_matchers.append(self._matcher)

    def unregister(self) -> None:
        """Undo `register`."""
        matchers = self._shell.Completer.custom_matchers
        if self._matcher in matchers:
            matchers.remove(self._matcher)

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
                return _beginning_with(position.typed, self._connections.names(), kind="value")
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
