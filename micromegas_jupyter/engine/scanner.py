"""Cuts a statement into tokens as DataFusion's generic SQL dialect does, and says from where on that is uncertain.

It does not understand SQL: DataFusion does.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable


class Kind(enum.StrEnum):
    """What a token is."""

    WORD = "word"
    QUOTED = "quoted"
    STRING = "string"
    NUMBER = "number"
    PLACEHOLDER = "placeholder"
    OPEN = "open"
    CLOSE = "close"
    COMMA = "comma"
    SEMICOLON = "semicolon"
    OPERATOR = "operator"
    OTHER = "other"


class Token(NamedTuple):
    """One token, with its text as written and its offset in the statement."""

    kind: Kind
    text: str
    start: int

    @property
    def name(self) -> str:
        """The name that a word or a quoted identifier stands for."""
        if self.kind is Kind.QUOTED:
            return self.text[1:-1].replace('""', '"')
        return self.text.lower()


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """A statement's tokens, without blanks and comments.

    `certain_until` is the offset of the first construct that other rules could read differently (a dollar quote, a
    nested comment, an unusual prefix, something unterminated). From there on nothing was skipped: text inside quotes
    and comments appears as tokens too, so that nothing can hide. It is the statement's length when all is certain.
    """

    sql: str
    tokens: tuple[Token, ...]
    certain_until: int

    @property
    def is_certain(self) -> bool:
        """Whether every token is what DataFusion will see."""
        return self.certain_until == len(self.sql)

    def with_replaced(self, changes: Iterable[tuple[Token, str]]) -> str:
        """Return the statement with other texts in the place of some tokens, which are given in order."""
        pieces, end = [], 0
        for token, text in changes:
            pieces += [self.sql[end : token.start], text]
            end = token.start + len(token.text)
        return "".join([*pieces, self.sql[end:]])


_COMMON = r"""
  | (?P<number> \d+ (?:\.\d+)? (?:[eE][+-]?\d+)? )
  | (?P<word> [^\W\d][\w@$\#]* )
  | (?P<placeholder> \?\d* | \$\w+ )
  | (?P<open> [(\[{] ) | (?P<close> [)\]}] ) | (?P<comma> , ) | (?P<semicolon> ; )
  | (?P<operator> ->> | -> | => | :: | := | \|\| | \|> | <= | >= | <> | != | == | [-+*/%<>=!~^&|@\#:\\] )
  | (?P<other> \S )
)"""

# The order matters: a doubtful prefix or dollar quote comes before the word or the placeholder it begins with.
# Quotes are possessive (`*+`): an unterminated quote is doubt, never a shorter quote.
_CERTAIN = re.compile(
    r"""\s*+ (?:
    (?P<blank> \Z | --[^\r\n]*(?:\r?\n|\Z) | /\*(?:[^*/]|\*(?!/)|/(?!\*))*+\*/ )
  | (?P<string> [eE]'(?:[^'\\]|\\.|'')*+' | [nNxX]?'(?:[^']|'')*+' )
  | (?P<quoted> "(?:[^"]|"")*+" )
  | (?P<doubt> --|/\*|['"`] | \$\w*\$ | [^\W\d][\w@\#]*\$[\w@\#]*\$ | (?:[^\W\d]{1,2}|[uU]&)['"] )
"""
    + _COMMON,
    re.VERBOSE | re.DOTALL,
)
_NOTHING_SKIPPED = re.compile(r"\s*+ (?: (?P<blank> \Z )" + _COMMON, re.VERBOSE | re.DOTALL)
_KINDS = {kind.value: kind for kind in Kind}


def scan(sql: str) -> Scan:
    """Return the tokens of `sql`; takes any text and never fails."""
    tokens: list[Token] = []
    certain_until = len(sql)
    for pattern in (_CERTAIN, _NOTHING_SKIPPED):
        for match in pattern.finditer(sql, 0 if pattern is _CERTAIN else certain_until):
            group = match.lastgroup or "blank"
            if group == "doubt":
                certain_until = match.start(group)
                break
            if group != "blank":
                tokens.append(Token(_KINDS[group], match[group], match.start(group)))
    return Scan(sql=sql, tokens=tuple(tokens), certain_until=certain_until)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mention:
    """Which names a statement can refer to: its identifiers, and any part of `text` when its quoting is not certain."""

    names: frozenset[str]
    text: str | None = field(default=None, repr=False)

    def has(self, name: str) -> bool:
        """Return whether the statement may refer to `name`; True when in doubt."""
        return name in self.names or '"' in name or (self.text is not None and name.lower() in self.text)


def find_mentions(scanned: Scan) -> Mention:
    """Return the names that a statement mentions."""
    names = frozenset(token.name for token in scanned.tokens if token.kind in {Kind.WORD, Kind.QUOTED})
    return Mention(names=names, text=None if scanned.is_certain else scanned.sql.lower())


def line_and_column(sql: str, offset: int) -> tuple[int, int]:
    """Return line and column, both from 1, of an offset in `sql`."""
    line_start = sql.rfind("\n", 0, offset) + 1
    return sql.count("\n", 0, offset) + 1, offset - line_start + 1


def quoted(name: str) -> str:
    """Return `name` as a quoted identifier, so that it is taken as it is."""
    return '"' + name.replace('"', '""') + '"'
