"""A statement's fingerprint: the same for texts that differ only in blanks, comments, letter case and literal values.

The definition is upstream's (`sql_hash` of its query audit), so that both servers' audits name a statement alike.
Unlike `scanner`, which marks what is uncertain, this follows DataFusion's tokenizer (sqlparser's generic dialect)
through every kind of quote and comment, so that none of them can disguise a statement.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final

from micromegas_jupyter.engine.contract import MAX_STATEMENT_BYTES

_HEX_DIGITS: Final = 16
_VALUE: Final = "?"

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
    """Return the fingerprint of a statement: the first 16 hex digits of SHA-256 over its normalised tokens.

    Numbers and string literals of every kind become `?`, blanks and comments are left out, unquoted words are in lower
    case, quoted names stay, and one space stands between two tokens. A text that is not made of tokens (an open quote)
    is taken as it is, with each run of blanks as one space. Of a text that is longer than any statement may be, only
    the beginning counts.
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
    while match := _TOKEN.match(sql, at):
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
