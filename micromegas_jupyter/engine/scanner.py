"""Splits a statement into tokens as in DataFusion's generic SQL dialect, and reports where the result is uncertain.

It does not understand SQL; DataFusion does.
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
    """The kind of a token."""

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
    """One token, with its original text and its offset in the statement."""

    kind: Kind
    text: str
    start: int

    @property
    def name(self) -> str:
        """The name that a word or a quoted identifier represents."""
        if self.kind is Kind.QUOTED:
            return self.text[1:-1].replace('""', '"')
        return self.text.lower()


@dataclass(frozen=True, kw_only=True)
class Scan:
    """A statement's tokens, without whitespace and comments.

    `certain_until` is the offset of the first construct that other rules could parse differently (a dollar quote, a
    nested comment, an unusual prefix, an unterminated quote), or the statement's length. After that offset, nothing is
    skipped: text inside quotes and comments appears as tokens, too, so that nothing can be hidden.
    """

    sql: str
    tokens: tuple[Token, ...]
    certain_until: int

    @property
    def is_certain(self) -> bool:
        """Whether DataFusion will see exactly these tokens."""
        return self.certain_until == len(self.sql)

    @functools.cached_property
    def names(self) -> frozenset[str]:
        """The names that its words and quoted identifiers represent."""
        return frozenset(token.name for token in self.tokens if token.kind is Kind.WORD or token.kind is Kind.QUOTED)

    def with_replaced(self, changes: Iterable[tuple[Token, str]]) -> str:
        """Return the statement with some tokens, given in order, replaced."""
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

# The order matters: an ambiguous prefix or dollar quote precedes the word or the placeholder that it begins. Quote
# patterns are possessive (`*+`), so that an unterminated quote is uncertain instead of matching a shorter quote.
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
    """Return the tokens of `sql`; accepts any text and never fails."""
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
    """The names that a statement can refer to: its identifiers, or any part of `text` if quoting is uncertain."""

    names: frozenset[str]
    text: str | None = field(default=None, repr=False)

    def has(self, name: str) -> bool:
        """Return whether the statement may refer to `name`, or True if uncertain."""
        return name in self.names or '"' in name or (self.text is not None and name.lower() in self.text)

    def among(self, names: frozenset[str]) -> frozenset[str]:
        """Return which of these lowercase names the statement may refer to."""
        return names & self.names if self.text is None else frozenset(filter(self.has, names))


def find_mentions(scanned: Scan) -> Mention:
    """Return the names that a statement mentions."""
    return Mention(names=scanned.names, text=None if scanned.is_certain else scanned.sql.lower())


def line_and_column(sql: str, offset: int) -> tuple[int, int]:
    """Return the 1-based line and column of an offset in `sql`."""
    line_start = sql.rfind("\n", 0, offset) + 1
    return sql.count("\n", 0, offset) + 1, offset - line_start + 1


def find_brackets(scanned: Scan) -> dict[int, int]:
    """Map the position of each opening bracket's token to that of its closing token."""
    opened: list[int] = []
    closed: dict[int, int] = {}
    for place, token in enumerate(scanned.tokens):
        if token.kind is Kind.OPEN:
            opened.append(place)
        elif token.kind is Kind.CLOSE and opened:
            closed[opened.pop()] = place
    return closed


def find_calls(scanned: Scan, functions: Container[str], *, is_certain: bool = True) -> list[tuple[int, int]]:
    """Return the first and last token of each call to these functions, including nested ones.

    With `is_certain`, only calls that end before quoting becomes uncertain.
    """
    tokens, closed = scanned.tokens, find_brackets(scanned)
    calls = [
        (place, closed[place + 1])
        for place, token in enumerate(tokens)
        if token.kind is Kind.WORD and token.name in functions and place + 1 in closed and tokens[place + 1].text == "("
    ]
    return [call for call in calls if not is_certain or tokens[call[1]].start < scanned.certain_until]


def find_calls_in_from(scanned: Scan, functions: Container[str], *, is_certain: bool = True) -> list[tuple[int, int]]:
    """Return the calls that are items in a FROM clause."""
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
    """Return `name` as a quoted identifier, so that it is used verbatim."""
    return '"' + name.replace('"', '""') + '"'


_HEX_DIGITS: Final = 16
_VALUE: Final = "?"
# The front computes the fingerprint of every statement, during which other calls wait.
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
    """Return a statement's fingerprint, as in upstream's query audit: 16 digits of a hash of its tokens.

    Numbers and all string literals become `?`; blanks and comments are removed; unquoted words are converted to lower
    case, and tokens are separated by one space. Text that can't be tokenized (an open quote) is used unchanged, with
    runs of blanks as one space. If the text is longer than any statement may be, or has more than 20,000 tokens,
    blanks, and comments, only its beginning counts.
    """
    return fingerprints(sql)[0]


def fingerprints(sql: str) -> tuple[str, str]:
    """Return a statement's fingerprints with and without trailing semicolons, because a rule may use either."""
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
    """Return a statement's normalized tokens, or None if a quote or a comment is not closed."""
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
    """Return the end of the comment opened before `at`, including nested comments, or 0 if it is not closed."""
    depth = 1
    for found in _COMMENT.finditer(sql, at):
        depth += 1 if found[0] == "/*" else -1
        if depth == 0:
            return found.end()
    return 0
