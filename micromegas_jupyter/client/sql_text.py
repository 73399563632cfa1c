"""Where `:name` stands in SQL, whether a statement only reads, and how text is quoted as a literal or as a name.

Strings, quoted identifiers, comments, dollar quotes and casts are passed over.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from micromegas_jupyter.errors import UsageError

# One alternative for each thing that a colon could stand in, then the placeholder itself. What does not end runs to
# the end of the text: the server says what is wrong with it. Nested comments need counting and are handled apart.
_TOKEN: Final = re.compile(
    r"""
      (?P<escape_string> (?<!\w) [eE] ' (?: [^'\\] | \\. | '' )*+ (?: ' | \Z ) )
    | (?P<string> ' (?: [^'] | '' )*+ (?: ' | \Z ) )
    | (?P<identifier> " (?: [^"] | "" )*+ (?: " | \Z ) | ` (?: [^`] | `` )*+ (?: ` | \Z ) )
    | (?P<line_comment> -- [^\n]* )
    | (?P<block_comment> /\* )
    | (?P<dollar_quote> (?<! [\w$] ) \$ (?P<tag> (?: [^\W\d] \w* )? ) \$ .*? (?: \$ (?P=tag) \$ | \Z ) )
    | (?P<dollar_name> (?<! [\w$] ) \$ (?P<own_name> [^\W\d] \w* ) )
    | (?P<cast> :: )
    | (?P<placeholder> (?<! [\w:)\]}'"`] ) : (?P<name> [^\W\d] \w* ) )
    """,
    re.VERBOSE | re.DOTALL,
)
_COMMENT_EDGE: Final = re.compile(r"/\*|\*/")
_WORD_BEFORE: Final = re.compile(r"(\w+|\S)\Z")
_MAX_WORD_CHARACTERS: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Placeholder:
    """One `:name` in a statement: its place, and the word or sign before it (comments do not count)."""

    name: str
    start: int
    end: int
    preceded_by: str


def find_placeholders(sql: str) -> Iterator[Placeholder]:
    """Yield every `:name` in order of appearance."""
    position, code = 0, ""
    while (found := _TOKEN.search(sql, position)) is not None:
        code += sql[position : found.start()]
        position = found.end()
        match found.lastgroup:
            case "placeholder":
                before = _WORD_BEFORE.search(code.rstrip()[-_MAX_WORD_CHARACTERS:])
                yield Placeholder(
                    name=found["name"],
                    start=found.start("placeholder"),
                    end=found.end(),
                    preceded_by=before[1].upper() if before else "",
                )
                code = "x"
            case "block_comment":
                position = _end_of_comment(sql, position)
                code += " "
            case "line_comment":
                code += " "
            case _:
                code = "x"


def find_dollar_names(sql: str) -> Iterator[str]:
    """Yield the name of every `$name` in order of appearance; `$1` has none."""
    position = 0
    while (found := _TOKEN.search(sql, position)) is not None:
        position = found.end()
        if found.lastgroup == "block_comment":
            position = _end_of_comment(sql, position)
        elif found.lastgroup == "dollar_name":
            yield found["own_name"]


def quote_literal(text: object) -> str:
    """Return `text` as an SQL string literal.

    Raises:
        UsageError: It is not text, or holds a NUL character, which no literal can.
    """
    if not isinstance(text, str) or "\0" in text:
        raise UsageError("A value cannot be written into the statement.", remedy="Give text without NUL characters.")
    return "'" + text.replace("'", "''") + "'"


def quote_identifier(name: object) -> str:
    """Return a table's or column's name as SQL that means this name and nothing else: `user id` becomes `"user id"`.

    For building statements from names that are not known beforehand. The name keeps its upper and lower case; of a
    name with a schema, each part is quoted by itself. Values need no quoting: write `:name` and bind them.

    Raises:
        UsageError: It is not text, is empty, or holds a NUL character or half a character.
    """
    if not isinstance(name, str) or not name or "\0" in name or any("\ud800" <= part <= "\udfff" for part in name):
        raise UsageError("This is not the name of a table or column.", remedy="Give text without NUL characters.")
    return '"' + name.replace('"', '""') + '"'


def _end_of_comment(sql: str, position: int) -> int:
    depth = 1
    while depth and (edge := _COMMENT_EDGE.search(sql, position)) is not None:
        depth += 1 if edge[0] == "/*" else -1
        position = edge.end()
    return position if depth == 0 else len(sql)


_WRITES: Final = re.compile(
    r"""
      \b (?: insert \s+ (?:into|overwrite) | delete \s+ from | merge \s+ into | replace \s+ into ) \b
    | \b update \s+ \S+ \s+ set \b
    | (?: \A | [;)] ) \s* (?: create | drop | alter | truncate | copy | grant | revoke | call | set | update | insert
                            | delete | replace | vacuum | refresh | execute | do | begin | start ) \b
    | \b (?: retire_partition\w* | materialize_partitions | regenerate_partitions | deny_queries
           | remove_query_denial\w* | delete_\w+ ) "? \s* \(
    """,
    re.VERBOSE | re.IGNORECASE,
)
# A string that holds the signs of a comment loses its repetition at most.
_COMMENTS: Final = re.compile(r"--[^\n]*+ | /\*.*?(?:\*/ | \Z)", re.VERBOSE | re.DOTALL)


def is_read(sql: str) -> bool:
    """Whether a statement only reads, as far as its text tells; a doubt counts as no.

    Upstream changes partitions through functions that stand in a SELECT, so those count as writes too.
    """
    return _WRITES.search(sql) is None and _WRITES.search(_COMMENTS.sub(" ", sql)) is None
