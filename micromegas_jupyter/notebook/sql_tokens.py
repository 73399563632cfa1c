"""Cuts SQL that is still being written into tokens; takes any text and never fails.

What the tokens mean is `sql_relations`' and `completion`'s job, whether the SQL is right the server's.
"""

from __future__ import annotations

import enum
import re
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection


class Kind(enum.StrEnum):
    """What a token is; an `OPEN_` one has no end, so that a cursor behind it is inside."""

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


class Token(NamedTuple):
    """One token: its kind, and its text as written."""

    kind: Kind
    text: str

    @property
    def name(self) -> str:
        """The name that it stands for as DataFusion reads it; empty for what is no name."""
        if self.kind is Kind.WORD:
            return self.text.lower()
        return self.text[1:-1].replace('""', '"') if self.kind is Kind.QUOTED else ""

    def is_word(self, words: Collection[str]) -> bool:
        """Whether it is one of these words (in lower case), without quotes."""
        return self.kind is Kind.WORD and self.text.lower() in words


# What does not end runs to the end of the text. Quotes are possessive (`*+`): one that is open is never a shorter one.
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
_KINDS: Final = {kind.value: kind for kind in Kind}


def scan(sql: str) -> list[Token]:
    """Return the tokens of `sql`, without blanks and comments that have an end."""
    tokens = []
    for match in _TOKEN.finditer(sql):
        group = "string" if match.lastgroup == "tag" else match.lastgroup or "blank"
        if group != "blank":
            tokens.append(Token(_KINDS[group], match[0]))
    return tokens
