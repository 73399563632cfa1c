"""Write access to tables: sending rows, creating tables, and changing one's own tables.

Roles and scopes define what a caller may do (`AuthContext.write_access`). In addition, the creator of a table owns it
while they may send rows to it; a table property stores the creator. Administrators may do everything.
"""

from hashlib import sha256
from typing import Final

from micromegas_jupyter.config.access import INGEST_SCOPE, READ_SCOPE, WRITE_SCOPE
from micromegas_jupyter.core.protocols import AuthContext, AuthType, WriteMode
from micromegas_jupyter.core.text import shown
from micromegas_jupyter.errors import PermissionDenied
from micromegas_jupyter.telemetry.tables import TABLES

MODEL_TABLES: Final = frozenset(table.name for table in TABLES)
_OWNING_ROLE: Final = "a role whose `owns` names it"
_OWNING_KEY: Final = f"a key with the scope {WRITE_SCOPE} and a role whose `owns` names it"


def may_read(caller: AuthContext, table: str) -> bool:
    """Whether the caller may read the table or some of its rows."""
    access = caller.table_access
    return READ_SCOPE in caller.scopes and (access is None or access.may_read(table))


def reads_all(caller: AuthContext, table: str) -> bool:
    """Whether the caller may read all rows of the table."""
    access = caller.table_access
    return may_read(caller, table) and (access is None or not access.conditions(table))


def may_ingest(caller: AuthContext, table: str) -> bool:
    """Whether the caller may send rows to the table."""
    return caller.is_admin or caller.write_access.may_ingest(table)


def may_create(caller: AuthContext, table: str) -> bool:
    """Whether the caller may create a table with this name."""
    return caller.is_admin or caller.write_access.may_create(table)


def is_owner(caller: AuthContext, table: str) -> bool:
    """Whether the caller owns the table, regardless of its creator; administrators own the data model's tables."""
    return caller.is_admin or (table not in MODEL_TABLES and caller.write_access.owns_table(table))


def owner_of(caller: AuthContext) -> str:
    """Return the creator's ID in table properties: hexadecimal digits that reveal neither issuer nor subject."""
    parts = (part.encode() for part in (caller.issuer, caller.subject))
    return sha256(b"".join(len(part).to_bytes(8, "big") + part for part in parts)).hexdigest()


def owns(caller: AuthContext, table: str, *, created_by: str | None) -> bool:
    """Whether the caller owns the table, through a role or because they created it and may still send rows to it."""
    return is_owner(caller, table) or (created_by == owner_of(caller) and may_ingest(caller, table))


def check_may_time_travel(caller: AuthContext, table: str, *, created_by: str | None, allows_readers: bool) -> None:
    """Check that a caller who may read the table may also read its earlier versions."""
    if not (allows_readers or owns(caller, table, created_by=created_by)):
        raise PermissionDenied(
            f"You don't have permission to read earlier versions of the table {shown(table)}, which contain deleted "
            "rows.",
            reason="time_travel_not_allowed",
            remedy=f"Ask the table's owner to allow it with micromegas tables set {shown(table)} time-travel=readers",
        )


def check_may_ingest(caller: AuthContext, table: str, mode: WriteMode = WriteMode.APPEND) -> None:
    """Check that the caller may send rows to the table in this mode, whether or not the table exists."""
    if not may_ingest(caller, table):
        raise _denied(
            caller,
            f"You don't have permission to send rows to the table {shown(table)}.",
            reason="ingest_not_allowed",
            role=f"a role whose `ingest` includes it, or for an API key with the scope {INGEST_SCOPE}",
            key=f"a key with the scope {INGEST_SCOPE}, or {INGEST_SCOPE}: and the table's name",
        )
    if mode in {WriteMode.CREATE, WriteMode.REPLACE}:
        check_may_create(caller, table)


def check_may_create(caller: AuthContext, table: str) -> None:
    """Check that the caller may create a table with this name."""
    if not may_create(caller, table):
        raise _denied(
            caller, f"You don't have permission to create the table {shown(table)}.", reason="create_not_allowed"
        )


def not_owner(caller: AuthContext, table: str) -> PermissionDenied:
    """Return the error for a caller who can see the table but does not own it."""
    return _denied(caller, f"You do not own the table {shown(table)}.", reason="not_table_owner")


def _denied(
    caller: AuthContext, what: str, *, reason: str, role: str = _OWNING_ROLE, key: str = _OWNING_KEY
) -> PermissionDenied:
    wanted = key if caller.auth_type is AuthType.API_KEY else role
    return PermissionDenied(what, reason=reason, remedy=f"Ask one of the server's administrators for {wanted}.")
