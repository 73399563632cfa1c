"""Definitions of materialized views: upstream's statements to create and drop them, and their storage in a table.

The statement itself is stored unchanged.
"""

import functools
import hashlib
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from micromegas_jupyter.errors import InvalidStatement

VIEW_PROPERTY: Final = "micromegas.viewDefinition"
"""The property of a materialized view's table that contains its statement."""
SOURCE_PLACEHOLDER: Final = "{source}"
_TOKEN: Final = re.compile(
    r"""(?P<blank> \s++ | --[^\n]*+ ) | (?P<comment> /\* ) | (?P<word> [A-Za-z_]\w*+ ) | (?P<number> \d++ )
      | (?P<text> '(?:[^']|'')*+' ) | \$(?P<tag> \w*+ )\$ | (?P<other> [(),=;] )""",
    re.VERBOSE,
)
_COMMENT: Final = re.compile(r"/\*|\*/")
_DELTA: Final = re.compile(r"\d+ (?:second|minute|hour|day)s?")
_QUERIES: Final = ("extract_query", "count_src_query", "merge_partitions_query")
_COLUMNS: Final = ("time_column", "min_time_column", "max_time_column")
_DELTAS: Final = ("source_partition_delta", "merge_partition_delta")
_OPTIONS: Final = (*_QUERIES, "update_group", *_COLUMNS, *_DELTAS, "merge_sort_order")
_MAX_GROUP: Final = 2**31 - 1
_MAX_SHOWN: Final = 60
_SYNTAX: Final = "Write CREATE [OR REPLACE] MATERIALIZED VIEW name WITH (option = value, …)."
_DROP_SYNTAX: Final = "Write DROP MATERIALIZED VIEW [IF EXISTS] name."


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewDefinition:
    """The parts of a materialized view's statement; `options` has those that only upstream needs.

    `range_columns` contain the first and last time of a row. `sql` is the statement.
    """

    name: str
    extract_query: str = field(repr=False)
    count_src_query: str = field(repr=False)
    merge_partitions_query: str = field(repr=False)
    update_group: int
    range_columns: tuple[str, str]
    options: Mapping[str, str] = field(hash=False)
    sql: str = field(repr=False)

    @property
    def digest(self) -> str:
        """A digest that identifies the definition."""
        return hashlib.sha256(self.sql.encode()).hexdigest()[:32]

    def to_properties(self) -> dict[str, str]:
        """Return table properties from which `from_properties` restores the definition."""
        return {VIEW_PROPERTY: self.sql}

    @staticmethod
    def from_properties(properties: Mapping[str, str]) -> "ViewDefinition | None":
        """Return the definition of a materialized view's table; None for other tables.

        Raises `ValueError` if the definition is invalid, for example if another version of this program wrote it.
        """
        if (sql := properties.get(VIEW_PROPERTY)) is None:
            return None
        try:
            found = _parse(sql)
        except InvalidStatement as error:
            raise ValueError(error.what) from error
        if not isinstance(found, CreateView):
            raise ValueError("the definition of a materialized view is corrupted")  # noqa: TRY004 - of a value
        return found.definition


@dataclass(frozen=True, slots=True)
class CreateView:
    """`CREATE MATERIALIZED VIEW`, or, if it `replaces`, `CREATE OR REPLACE`."""

    definition: ViewDefinition
    replaces: bool

    @property
    def name(self) -> str:
        """The name of the view."""
        return self.definition.name


@dataclass(frozen=True, slots=True)
class DropView:
    """`DROP MATERIALIZED VIEW`, optionally `IF EXISTS`."""

    name: str
    if_exists: bool


def parse_view_statement(sql: str) -> CreateView | DropView | None:
    """Parse a statement about a materialized view; None for other statements.

    Raises `InvalidStatement` if it is invalid.
    """
    return _parse.__wrapped__(sql) if "materialized" in sql.lower() else None


@functools.lru_cache(maxsize=256)
def _parse(sql: str) -> CreateView | DropView | None:
    tokens = list(_scan(sql))
    words = [text.upper() if kind == "word" else text for kind, text in tokens]
    if words[-1:] == [";"]:
        del words[-1], tokens[-1]
    for replaces, begin in ((False, "CREATE MATERIALIZED VIEW"), (True, "CREATE OR REPLACE MATERIALIZED VIEW")):
        first = len(begin.split())
        if words[:first] == begin.split():
            return CreateView(_definition(sql, tokens[first:]), replaces)
    if words[:3] == ["DROP", "MATERIALIZED", "VIEW"]:
        if_exists = words[3:5] == ["IF", "EXISTS"]
        rest = tokens[5 if if_exists else 3 :]
        if [kind for kind, _ in rest] != ["word"]:
            raise InvalidStatement("The statement must specify exactly one view to drop.", remedy=_DROP_SYNTAX)
        return DropView(rest[0][1], if_exists)
    return None


def _scan(sql: str) -> Iterator[tuple[str, str]]:
    """Yield the kind and text of each token, with string values unquoted, up to the first invalid token."""
    at = 0
    while at < len(sql):
        found = _TOKEN.match(sql, at)
        if found is None:
            yield "unknown", sql[at : at + 1]
            return
        kind, text, at = str(found.lastgroup), found[0], found.end()
        if kind == "tag":
            end = sql.find(text, at)
            if end < 0:
                yield "unknown", text
                return
            yield "text", sql[at:end]
            at = end + len(text)
        elif kind == "comment":
            depth = 1
            while depth:
                mark = _COMMENT.search(sql, at)
                if mark is None:
                    yield "unknown", text
                    return
                depth, at = depth + (1 if mark[0] == "/*" else -1), mark.end()
        elif kind != "blank":
            yield kind, text[1:-1].replace("''", "'") if kind == "text" else text


def _definition(sql: str, tokens: Sequence[tuple[str, str]]) -> ViewDefinition:
    kinds, texts = [kind for kind, _ in tokens], [text for _, text in tokens]
    if kinds[:1] != ["word"] or [text.upper() for text in texts[1:3]] != ["WITH", "("] or texts[-1] != ")":
        raise InvalidStatement("The statement does not define a materialized view.", remedy=_SYNTAX)
    options: dict[str, str] = {}
    numbers: set[str] = set()
    for place in range(3, len(tokens), 4):
        kind, sign, value, end = [*kinds[place : place + 4], "", "", "", ""][:4]
        has_form = kind == "word" and texts[place + 1] == "=" and value in {"text", "number"} and sign and end
        if not has_form or texts[place + 3] != (")" if place + 4 == len(tokens) else ","):
            raise InvalidStatement("The options of the view must be written as name = value.", remedy=_SYNTAX)
        name = texts[place].lower()
        if name not in _OPTIONS or name in options:
            what = (
                f"There is no option named {name[:_MAX_SHOWN]}."
                if name not in options
                else f"{name} is specified twice."
            )
            raise InvalidStatement(what, remedy=f"Use only the options {', '.join(_OPTIONS)}.")
        options[name] = texts[place + 2]
        numbers |= {name} if value == "number" else set()
    columns = _check_options(options, numbers)
    return ViewDefinition(
        name=texts[0],
        **{name: options[name] for name in _QUERIES},
        update_group=int(options["update_group"]),
        range_columns=columns,
        options={name: options[name] for name in (*_DELTAS, "merge_sort_order") if name in options},
        sql=sql,
    )


def _check_options(options: Mapping[str, str], numbers: Collection[str]) -> tuple[str, str]:
    """Check that the required options exist and have valid values; return the time columns."""
    missing = [name for name in (*_QUERIES, "update_group") if not options.get(name, "").strip()]
    first = options.get("min_time_column", options.get("time_column", ""))
    last = options.get("max_time_column", options.get("time_column", ""))
    missing += [] if first and last else ["time_column"]
    if missing:
        raise InvalidStatement(f"The view doesn't have {', '.join(missing)}.", remedy="Specify it in the options.")
    if numbers != {"update_group"} or int(options["update_group"]) > _MAX_GROUP:
        raise InvalidStatement(
            "update_group must be a 32-bit number, and all other options must be strings.",
            remedy="Write queries and other values as strings.",
        )
    if "{begin}" not in options["count_src_query"] or "{end}" not in options["count_src_query"]:
        raise InvalidStatement(
            "The count_src_query doesn't contain {begin} and {end}.", remedy="Count the rows between them."
        )
    if SOURCE_PLACEHOLDER not in options["merge_partitions_query"]:
        raise InvalidStatement("The merge_partitions_query doesn't contain {source}.", remedy="Write FROM {source}.")
    for name in _DELTAS:
        if name in options and _DELTA.fullmatch(options[name]) is None:
            raise InvalidStatement(
                f"{name} is not a duration such as '1 day'.", remedy="Use a unit from seconds to days."
            )
    return first, last
