"""What SQL may know of a caller: the functions' names and values, and conditions on rows with the values in place.

The functions themselves are `identity`'s.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import pyarrow as pa

from micromegas_jupyter.engine.scanner import Kind, Scan, Token, scan

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from micromegas_jupyter.contracts import AuthContext

_TEXT: Final = pa.string()
_TEXTS: Final = pa.list_(pa.string())
#: These are written without brackets in SQL; the parser takes no brackets behind the first two.
BARE_NAMES: Final = frozenset({"current_user", "session_user", "user"})


@dataclass(frozen=True, slots=True)
class Fact:
    """One function's type and value."""

    kind: pa.DataType
    value: str | bool | tuple[str, ...] | None


def caller_facts(caller: AuthContext) -> dict[str, Fact]:
    """Return the value of each function for a caller."""
    subject = Fact(_TEXT, caller.subject)
    return {
        "current_user": subject,
        "session_user": subject,
        "user": subject,
        "current_issuer": Fact(_TEXT, caller.issuer),
        # An address that nobody vouches for would be a name that anybody can give himself.
        "current_email": Fact(_TEXT, caller.email if caller.email_verified else None),
        "current_groups": Fact(_TEXTS, caller.groups),
        "current_roles": Fact(_TEXTS, caller.roles),
        "is_admin": Fact(pa.bool_(), caller.is_admin),
    }


#: No texts, of no value that the optimizer knows: DataFusion 55 makes `false` of `array_has(make_array(), x)` also
#: where x is null, so that a NOT around it would show the rows that belong to no group to those who are in none.
NO_TEXTS: Final = "array_slice(make_array(''), 2, 1 + CAST(random() AS BIGINT))"
#: The functions without arguments that tell who calls.
IDENTITY_FUNCTIONS: Final = frozenset(
    {
        "current_user", "session_user", "user", "current_issuer", "current_email", "current_groups", "current_roles",
        "is_admin",
    }
)  # fmt: skip


def with_caller_in_condition(condition: str, caller: AuthContext, *, columns: Collection[str]) -> str:
    """Return a condition on rows with literals in place of the functions that tell who calls.

    A name without brackets that is one of the table's columns, too, is the column: as the caller's name,
    `user = current_user()` would let everybody see every row.
    """
    lowered = condition.lower()
    if not any(name in lowered for name in IDENTITY_FUNCTIONS):
        return condition
    scanned = scan(condition)
    if not scanned.is_certain:
        return condition
    facts = caller_facts(caller)
    folded = {column.lower() for column in columns}
    parts: list[str] = []
    place = 0
    for name, opening, closing in triples(scanned):
        fact = facts.get(name.name) if name.kind is Kind.WORD and name.start >= place else None
        is_call = is_empty_call(name, opening, closing)
        is_bare = name.name in BARE_NAMES and opening.text not in {"(", "."} and name.name not in folded
        if fact is None or not (is_call or is_bare):
            continue
        parts += [condition[place : name.start], _literal(fact)]
        place = closing.start + 1 if is_call else name.start + len(name.text)
    return "".join([*parts, condition[place:]])


def _literal(fact: Fact) -> str:
    match fact.value:
        case None:
            return "CAST(NULL AS VARCHAR)"
        case bool():
            return "TRUE" if fact.value else "FALSE"
        case str():
            return _text_literal(fact.value)
        case _:
            return f"make_array({', '.join(map(_text_literal, fact.value))})" if fact.value else NO_TEXTS


def _text_literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


_NOTHING: Final = Token(Kind.OTHER, "", 0)


def triples(scanned: Scan) -> Iterator[tuple[Token, Token, Token]]:
    """Return each token that is no part of a dotted name with the two after it, as far as quoting is certain."""
    tokens = [token for token in scanned.tokens if token.start < scanned.certain_until]
    padded = [_NOTHING, *tokens, _NOTHING, _NOTHING]
    for before, token, second, third in zip(padded, tokens, padded[2:], padded[3:], strict=False):
        if before.text != ".":
            yield token, second, third


def is_empty_call(name: Token, opening: Token, closing: Token) -> bool:
    """Return whether three tokens are a call without arguments."""
    return name.kind is Kind.WORD and opening.text == "(" and closing.text == ")"
