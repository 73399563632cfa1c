"""SQL functions that describe the caller: `current_user`, `is_admin()`, `my_rights()`, and related functions.

In row conditions, literals replace them. For a delegating service, they describe the service itself; only the audit
records the user that it acts for.
"""

from collections.abc import Collection, Container, Iterator, Sequence
from typing import Final

import pyarrow as pa
from datafusion import SessionContext, udf

from micromegas_jupyter.core.protocols import AuthContext
from micromegas_jupyter.engine.contract import VisibleTable
from micromegas_jupyter.engine.scanner import Kind, Mention, Scan, Token, find_calls, scan
from micromegas_jupyter.engine.schemas import register_rows

_Value = str | bool | tuple[str, ...] | None

#: SQL allows these names without parentheses; the parser rejects parentheses after the first two.
_BARE_NAMES: Final = frozenset({"current_user", "session_user", "user"})
#: The functions without arguments that describe the caller.
IDENTITY_FUNCTIONS: Final = _BARE_NAMES | {
    "current_issuer",
    "current_email",
    "current_groups",
    "current_roles",
    "is_admin",
}
RIGHTS: Final = "my_rights"
IDENTITY_NAMES: Final = IDENTITY_FUNCTIONS | {RIGHTS}
#: An empty list whose value the optimizer doesn't know: DataFusion 55 replaces `array_has(make_array(), x)` with
#: `false`, even if x is null. A surrounding NOT would then reveal rows without a group to callers without groups.
NO_TEXTS: Final = "array_slice(make_array(''), 2, 1 + CAST(random() AS BIGINT))"
_QUERIES: Final = {
    ("show", "rights"): "SELECT * FROM my_rights()",
    # DataFusion's definition, excluding a table that is never readable.
    ("show", "tables"): "SELECT * FROM information_schema.tables "
    "WHERE table_name <> 'df_settings' OR table_schema <> 'information_schema'",
}
_REWRITTEN: Final = _BARE_NAMES | {"show"}
_RIGHTS_SCHEMA: Final = pa.schema(
    [pa.field(name, pa.string(), nullable=name == "value") for name in ("kind", "name", "value")]
)


def _values(caller: AuthContext) -> dict[str, _Value]:
    """Return the result of each of `IDENTITY_FUNCTIONS`."""
    return {
        **dict.fromkeys(_BARE_NAMES, caller.subject),
        "current_issuer": caller.issuer,
        # Anyone can claim an unverified address.
        "current_email": caller.email if caller.email_verified else None,
        "current_groups": caller.groups,
        "current_roles": caller.roles,
        "is_admin": caller.is_admin,
    }


def with_caller_in_condition(condition: str, caller: AuthContext, *, columns: Collection[str]) -> str:
    """Return a row condition with literals in place of the functions that describe the caller.

    A name without brackets that is also one of the table's columns means the column. Otherwise, `user = current_user()`
    would be true for every row.
    """
    lowered = condition.lower()
    if not any(name in lowered for name in IDENTITY_FUNCTIONS):
        return condition
    scanned = scan(condition)
    if not scanned.is_certain:
        return condition
    values = _values(caller)
    folded = {column.lower() for column in columns}
    tokens, calls = scanned.tokens, _empty_calls(scanned, values)
    changes: list[tuple[Token, str]] = []
    for place, name in enumerate(tokens):
        before, after = (tokens[at].text if 0 <= at < len(tokens) else "" for at in (place - 1, place + 1))
        is_bare = name.kind is Kind.WORD and name.name in _BARE_NAMES - folded
        if place in calls or (is_bare and before != "." and after not in {"(", "."}):
            changes.append((name, _literal(values[name.name])))
        if place in calls:
            changes += [(tokens[place + 1], ""), (tokens[place + 2], "")]
    return scanned.with_replaced(changes)


def _literal(value: _Value) -> str:
    match value:
        case None:
            return "CAST(NULL AS VARCHAR)"
        case bool():
            return "TRUE" if value else "FALSE"
        case str():
            return "'" + value.replace("'", "''") + "'"
        case _:
            return f"make_array({', '.join(map(_literal, value))})" if value else NO_TEXTS


def _empty_calls(scanned: Scan, functions: Container[str]) -> list[int]:
    """Return the positions of the first tokens of calls without arguments, excluding parts of a dotted name."""
    tokens, calls = scanned.tokens, find_calls(scanned, functions)
    return [
        first
        for first, last in calls
        if last == first + 2 and tokens[last].text == ")" and not (first and tokens[first - 1].text == ".")
    ]


def with_identity_syntax(scanned: Scan) -> Scan:
    """Return a statement rewritten to syntax that DataFusion's parser accepts.

    `SHOW RIGHTS` and `SHOW TABLES` become queries, and `current_user()` loses its brackets. Blanks replace removed
    text, so that positions in messages stay correct.
    """
    if scanned.names.isdisjoint(_REWRITTEN):
        return scanned
    words = tuple(token.name for token in scanned.tokens if token.kind is not Kind.SEMICOLON)
    if words in _QUERIES:
        return scan(_QUERIES[words])
    calls = _empty_calls(scanned, _BARE_NAMES)
    brackets = [token for first in calls for token in scanned.tokens[first + 1 : first + 3]]
    return scan(scanned.with_replaced((one, " ") for one in brackets)) if brackets else scanned


def register_identity_functions(
    session: SessionContext, caller: AuthContext, *, tables: Sequence[VisibleTable], mentions: Mention
) -> None:
    """Register the functions that the statement mentions."""
    mentioned = mentions.among(IDENTITY_NAMES)
    if not mentioned:
        return
    values = _values(caller)
    for name in mentioned & IDENTITY_FUNCTIONS:
        value = values[name]
        is_list = isinstance(value, tuple)
        kind = pa.list_(pa.string()) if is_list else pa.bool_() if isinstance(value, bool) else pa.string()
        column = pa.array([value], kind)
        # Immutable: the optimizer inserts the value, so that file statistics can be used for comparisons.
        session.register_udf(udf(lambda *_, column=column: column, [], kind, "immutable", name))
    if RIGHTS in mentioned:
        rows = (dict(zip(_RIGHTS_SCHEMA.names, row, strict=True)) for row in _rights(caller, tables))
        register_rows(session, RIGHTS, rows, _RIGHTS_SCHEMA)


def _rights(caller: AuthContext, tables: Sequence[VisibleTable]) -> Iterator[tuple[str, str, str | None]]:
    yield "identity", "user", caller.subject
    yield "identity", "issuer", caller.issuer
    yield "identity", "email", caller.email
    yield "identity", "email_verified", "true" if caller.email_verified else "false"
    yield "identity", "name", caller.name
    yield "identity", "credential", caller.auth_type.value
    yield "identity", "expires_at", None if caller.expires_at is None else caller.expires_at.isoformat()
    yield "identity", "administrator", "true" if caller.is_admin else "false"
    yield from (("scope", scope, None) for scope in sorted(caller.scopes))
    yield from (("role", role, None) for role in caller.roles)
    yield from (("group", group, None) for group in caller.groups)
    for table in tables:
        yield "table", table.snapshot.name, "some rows" if table.hides_rows else "all rows"
