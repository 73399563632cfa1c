"""Checks the conditions of a configuration's roles against the tables that there are.

Whether one condition fits a schema is `conditions`' answer; what happens to a configuration that does not pass is the
composition's.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from micromegas_jupyter.contracts import AuthContext, AuthType
from micromegas_jupyter.engine.caller_facts import with_caller_in_condition
from micromegas_jupyter.engine.errors import is_engine_failure
from micromegas_jupyter.engine.flat_schema import flat_schema
from micromegas_jupyter.engine.visible_schema import visible_schema
from micromegas_jupyter.errors import ConfigurationError, MicromegasError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from micromegas_jupyter.contracts import TableSnapshot, TableSource
    from micromegas_jupyter.engine.conditions import Conditions

_log = logging.getLogger(__name__)

_SOMEBODY: Final = AuthContext(
    subject="somebody",
    issuer="https://id.example",
    auth_type=AuthType.OIDC,
    email="somebody@example.com",
    email_verified=True,
    groups=("a", "b"),
    roles=("a", "b"),
)
# One of whom as little is known as can be: empty lists and an address that is null.
_NOBODY: Final = AuthContext(subject="nobody", issuer="https://id.example", auth_type=AuthType.OIDC)


def check_role_conditions(conditions: Conditions, tables: TableSource, filters: Mapping[str, Sequence[str]]) -> None:
    """Check the conditions in `filters`, by table name, of which a row must meet one.

    Raises:
        ConfigurationError: A condition cannot be used; the error names the table and says what is wrong.
        Unavailable: The tables cannot be listed.
    """
    for snapshot in _listed(tables):
        if snapshot.raw_name is not None and filters.get(snapshot.raw_name):
            raise _unusable(snapshot.raw_name, f"it belongs on {snapshot.name}, whose parts these rows are")
        own = filters.get(snapshot.name, ())
        problem = _problem(conditions, snapshot, own) if own else None
        if problem is not None:
            raise _unusable(snapshot.name, problem)


def _listed(tables: TableSource) -> Sequence[TableSnapshot]:
    try:
        return tables.snapshot()
    except MicromegasError:
        raise
    except Exception as error:
        _log.warning("the tables could not be listed to check conditions", extra={"kind": type(error).__name__})
        raise Unavailable("The tables cannot be listed now.") from error


def _problem(conditions: Conditions, snapshot: TableSnapshot, own: Sequence[str]) -> str | None:
    """Return why one of the table's `own` conditions cannot be used, or None."""
    try:
        # A table without files has its columns too.
        schema = flat_schema(visible_schema(snapshot))
        found = (
            conditions.problem(with_caller_in_condition(one, caller, columns=schema.names), schema)
            for one in own
            for caller in (_SOMEBODY, _NOBODY)
        )
        return next((problem for problem in found if problem is not None), None)
    except BaseException as error:
        if not is_engine_failure(error):
            raise
        _log.error("the engine failed on a condition", extra={"table": snapshot.name, "kind": type(error).__name__})
        return "the engine fails on it"


def _unusable(table: str, problem: str) -> ConfigurationError:
    return ConfigurationError(
        f"A condition on the rows of {table} cannot be used: {problem}.",
        key="roles",
        remedy="Correct the condition: one boolean SQL expression over the table's columns that fails on no value.",
    )
