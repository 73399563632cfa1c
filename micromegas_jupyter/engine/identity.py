"""Who calls, in SQL: `current_user`, `is_admin()`, `my_rights()` and their like, each with the caller's own values.

They are made anew for every statement that names one, so a prepared statement answers for whoever runs it. Who the
caller is, `access` has found; who a delegating service speaks for is for the audit and changes nothing here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pyarrow as pa
from datafusion import SessionContext, udf, udtf

from micromegas_jupyter.engine.caller_facts import (
    BARE_NAMES,
    IDENTITY_FUNCTIONS,
    Fact,
    caller_facts,
    is_empty_call,
    triples,
)
from micromegas_jupyter.engine.scanner import Kind, Scan, scan

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from micromegas_jupyter.contracts import AuthContext
    from micromegas_jupyter.engine.tables import Mention
    from micromegas_jupyter.engine.visibility import VisibleTable

RIGHTS: Final = "my_rights"
_QUERIES: Final = {
    ("show", "rights"): "SELECT * FROM my_rights()",
    # What it is in DataFusion, but for a table that nobody may read.
    ("show", "tables"): "SELECT * FROM information_schema.tables "
    "WHERE table_name <> 'df_settings' OR table_schema <> 'information_schema'",
}
_RIGHTS_SCHEMA: Final = pa.schema(
    [
        pa.field("kind", pa.string(), nullable=False),
        pa.field("name", pa.string(), nullable=False),
        pa.field("value", pa.string()),
    ]
)


def with_identity_syntax(scanned: Scan) -> Scan:
    """Return a statement as DataFusion's parser takes it.

    `SHOW RIGHTS` and `SHOW TABLES` are queries, and `current_user()` has no brackets: blanks take their
    place, so that places in messages stay what they are.
    """
    words = tuple(token.name for token in scanned.tokens if token.kind is not Kind.SEMICOLON)
    if words in _QUERIES:
        return scan(_QUERIES[words])
    sql = scanned.sql
    for name, opening, closing in triples(scanned):
        if name.name in BARE_NAMES and is_empty_call(name, opening, closing):
            sql = f"{sql[: opening.start]} {sql[opening.start + 1 : closing.start]} {sql[closing.start + 1 :]}"
    return scanned if sql is scanned.sql else scan(sql)


def register_identity_functions(
    session: SessionContext, caller: AuthContext, *, tables: Sequence[VisibleTable], mentions: Mention
) -> None:
    """Give a session the functions that the statement mentions.

    Args:
        session: The session.
        caller: Whose session it is.
        tables: What the caller sees.
        mentions: The names in the statement.
    """
    if mentions.text is None and mentions.names.isdisjoint(IDENTITY_NAMES):
        return
    for name, fact in caller_facts(caller).items():
        if mentions.has(name):
            _register(session, name, fact)
    if mentions.has(RIGHTS):
        rows = [dict(zip(_RIGHTS_SCHEMA.names, row, strict=True)) for row in _rights(caller, tables)]
        shown = session.read_batch(pa.RecordBatch.from_pylist(rows, schema=_RIGHTS_SCHEMA)).into_view()
        session.register_udtf(udtf(lambda *_: shown, RIGHTS))


IDENTITY_NAMES: Final = IDENTITY_FUNCTIONS | {RIGHTS}


def _register(session: SessionContext, name: str, fact: Fact) -> None:
    value = list(fact.value) if isinstance(fact.value, tuple) else fact.value
    column = pa.array([value], fact.kind)
    # Immutable: the optimiser puts the value in its place, so that files' statistics can answer a comparison.
    session.register_udf(udf(lambda *_: column, [], fact.kind, "immutable", name))


def _rights(caller: AuthContext, tables: Sequence[VisibleTable]) -> Iterator[tuple[str, str, str | None]]:
    expires_at = None if caller.expires_at is None else caller.expires_at.isoformat()
    yield "identity", "user", caller.subject
    yield "identity", "issuer", caller.issuer
    yield "identity", "email", caller.email
    yield "identity", "email_verified", "true" if caller.email_verified else "false"
    yield "identity", "name", caller.name
    yield "identity", "credential", caller.auth_type.value
    yield "identity", "expires_at", expires_at
    yield "identity", "administrator", "true" if caller.is_admin else "false"
    yield from (("scope", scope, None) for scope in sorted(caller.scopes))
    yield from (("role", role, None) for role in caller.roles)
    yield from (("group", group, None) for group in caller.groups)
    for table in tables:
        yield "table", table.snapshot.name, "some rows" if table.conditions else "all rows"
