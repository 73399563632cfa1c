"""Cuts a statement into tokens as DataFusion's generic SQL dialect does, and says from where on that is uncertain.

It does not understand SQL: DataFusion does.
"""

import enum
import functools
import hashlib
import re
from collections.abc import Container, Iterable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from micromegas_jupyter.engine.contract import MAX_STATEMENT_BYTES


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


@dataclass(frozen=True, kw_only=True)
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

    @functools.cached_property
    def names(self) -> frozenset[str]:
        """The names that its words and quoted identifiers stand for."""
        return frozenset(token.name for token in self.tokens if token.kind is Kind.WORD or token.kind is Kind.QUOTED)

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
_CLAUSES: Final = frozenset(
    {"select", "from", "where", "group", "having", "order", "limit", "window", "qualify", "union", "except",
     "intersect", "values", "with"}
)  # fmt: skip


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

    def among(self, names: frozenset[str]) -> frozenset[str]:
        """Return those of the names, in lower case, that the statement may refer to."""
        return names & self.names if self.text is None else frozenset(filter(self.has, names))


def find_mentions(scanned: Scan) -> Mention:
    """Return the names that a statement mentions."""
    return Mention(names=scanned.names, text=None if scanned.is_certain else scanned.sql.lower())


def line_and_column(sql: str, offset: int) -> tuple[int, int]:
    """Return line and column, both from 1, of an offset in `sql`."""
    line_start = sql.rfind("\n", 0, offset) + 1
    return sql.count("\n", 0, offset) + 1, offset - line_start + 1


def find_brackets(scanned: Scan) -> dict[int, int]:
    """Return which token closes the bracket that opens at a token."""
    opened: list[int] = []
    closed: dict[int, int] = {}
    for place, token in enumerate(scanned.tokens):
        if token.kind is Kind.OPEN:
            opened.append(place)
        elif token.kind is Kind.CLOSE and opened:
            closed[opened.pop()] = place
    return closed


def find_calls(scanned: Scan, functions: Container[str], *, is_certain: bool = True) -> list[tuple[int, int]]:
    """Return the first and last token of each call of functions with these names, also within others.

    Those that are `is_certain` end before quoting is doubtful.
    """
    tokens, closed = scanned.tokens, find_brackets(scanned)
    calls = [
        (place, closed[place + 1])
        for place, token in enumerate(tokens)
        if token.kind is Kind.WORD and token.name in functions and place + 1 in closed and tokens[place + 1].text == "("
    ]
    return [call for call in calls if not is_certain or tokens[call[1]].start < scanned.certain_until]


def find_calls_in_from(scanned: Scan, functions: Container[str], *, is_certain: bool = True) -> list[tuple[int, int]]:
    """Return those of the calls that are items of a FROM clause."""
    calls, found = dict(find_calls(scanned, functions, is_certain=is_certain)), []
    clauses, before = [""], ""
    for place, token in enumerate(scanned.tokens):
        if token.kind is Kind.OPEN:
            clauses.append("")
        elif token.kind is Kind.CLOSE and len(clauses) > 1:
            clauses.pop()
        elif token.kind is Kind.WORD and token.name in _CLAUSES:
            clauses[-1] = token.name
        elif place in calls and (before in {"from", "join"} or (before == "," and clauses[-1] == "from")):
            found.append((place, calls[place]))
        before = token.name
    return found


def quoted(name: str) -> str:
    """Return `name` as a quoted identifier, so that it is taken as it is."""
    return '"' + name.replace('"', '""') + '"'


_HEX_DIGITS: Final = 16
_VALUE: Final = "?"
# The front makes the fingerprint of every statement, while other calls wait.
_MAX_STEPS: Final = 20_000

_TOKEN = re.compile(
    r"""
    (?P<blank> \s++ | --[^\n]*+ )
  | (?P<comment> /\* )
  | (?P<value> [eE]'(?:[^'\\]|\\.|'')*+' | (?:[nNxXbB]|[uU]&)?'(?:[^']|'')*+' | [rR]'[^']*+' | [rRbB]"[^"]*+"
             | 0[xX][0-9a-fA-F]*+ | (?:\d++(?:\.\d*+)? | \.\d++)(?:[eE][+-]?\d++)?L? )
  | (?P<quoted> "(?:[^"]|"")*+" | `(?:[^`]|``)*+` )
  | (?P<dollar> \$\w*\$ )
  | (?P<broken> ['"`] | (?:[eEnNxXbBrR]|[uU]&)' | [rRbB]" )
  | (?P<word> [^\W\d][\w@$\#]*+ | [@\#][\w@$\#]*+ )
  | (?P<other> \$\w++ | \?\d*+
             | \|\|/ | !~~\* | <=> | ->> | ~~\* | !~\* | !~~ | \|\| | \|> | \|/ | \*\* | // | << | >> | <= | >= | <>
             | != | == | <@ | -> | => | :: | := | && | ~\* | ~~ | !~ | !! | \^@ | \S )
    """,
    re.VERBOSE | re.DOTALL,
)
_COMMENT = re.compile(r"/\*|\*/")


def sql_hash(sql: str) -> str:
    """Return the fingerprint of a statement, as upstream's query audit has it: 16 digits of a hash of its tokens.

    Numbers and string literals of every kind become `?`, blanks and comments are left out, unquoted words are in lower
    case, quoted names stay, and one space stands between two tokens. A text that is not made of tokens (an open quote)
    is taken as it is, with each run of blanks as one space. Of a text that is longer than any statement may be, or
    has more than 20,000 tokens, blanks and comments, only the beginning counts.
    """
    return fingerprints(sql)[0]


def fingerprints(sql: str) -> tuple[str, str]:
    """Return the fingerprints of a statement as it is and without semicolons at its end; a rule may name either."""
    sql = sql[:MAX_STATEMENT_BYTES]
    tokens = _tokens(sql)
    if tokens is None:
        tokens = sql.split()
        return _digest(tokens), _digest(tokens)
    whole = _digest(tokens)
    while tokens[-1:] == [";"]:
        tokens.pop()
    return whole, _digest(tokens)


def _digest(tokens: list[str]) -> str:
    return hashlib.sha256(" ".join(tokens).encode("utf-8", "replace")).hexdigest()[:_HEX_DIGITS]


def _tokens(sql: str) -> list[str] | None:
    """Return the normalised tokens of a text; None when a quote or a comment in it is not closed."""
    found: list[str] = []
    at = 0
    for _ in range(_MAX_STEPS):
        match = _TOKEN.match(sql, at)
        if match is None:
            break
        kind, text, at = match.lastgroup, match[0], match.end()
        if kind == "word":
            found.append(text.lower())
        elif kind == "value":
            found.append(_VALUE)
        elif kind in {"quoted", "other"}:
            found.append("<>" if text == "!=" else text)
        elif kind == "comment":
            at = _end_of_comment(sql, at)
        elif kind == "dollar":
            end = sql.find(text, at)
            at = 0 if end < 0 else end + len(text)
            found.append(_VALUE)
        if kind == "broken" or at == 0:
            return None
    return found


def _end_of_comment(sql: str, at: int) -> int:
    """Return where the comment that was opened before `at` ends, with the comments in it; 0 when it does not."""
    depth = 1
    for found in _COMMENT.finditer(sql, at):
        depth += 1 if found[0] == "/*" else -1
        if depth == 0:
            return found.end()
    return 0
