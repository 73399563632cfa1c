"""What roles allow: from role names to the tables and rows that a caller may read.

Who has which role is decided where the caller is identified; enforcing the result is the engine's job.
"""

from collections.abc import Iterable, Mapping
from functools import lru_cache

from micromegas_jupyter.config.access import EVERY_TABLE, RoleSetting
from micromegas_jupyter.core.protocols import TableAccess

# Callers have few different sets of roles, so what each set allows is worked out once.
_MAX_KEPT_SETS = 1024


class Rights:
    """The configured roles. Safe to share between threads.

    Args:
        roles: By name; None when there are none, and every caller may read everything.
        default_roles: What every caller has.
    """

    def __init__(self, roles: Mapping[str, RoleSetting] | None = None, default_roles: Iterable[str] = ()) -> None:
        self._roles = roles
        self._default_roles = tuple(default_roles)
        self._kept_access = lru_cache(maxsize=_MAX_KEPT_SETS)(self._work_out)

    def all_roles(self, roles: Iterable[str]) -> tuple[str, ...]:
        """Return `roles` and the default roles, each once, in order; none that is not configured."""
        if self._roles is None:
            return ()
        return tuple(dict.fromkeys(name for name in (*roles, *self._default_roles) if name in self._roles))

    def table_access(self, roles: Iterable[str], *, is_admin: bool) -> TableAccess | None:
        """Return what a bearer of `roles` may read; None for everything.

        A row is visible when any of the roles shows it. Administrators read everything; without a role, where
        roles are configured, nothing exists.
        """
        if self._roles is None or is_admin:
            return None
        return self._kept_access(self.all_roles(roles))

    def _work_out(self, roles: tuple[str, ...]) -> TableAccess:
        granted = [self._roles[name].tables for name in roles] if self._roles else []
        named = {table for tables in granted for table in tables}
        filters: dict[str, tuple[str, ...]] = {}
        for table in sorted(named):
            # A role that does not name the table shows it by its `*`, if it has one.
            shown_by = [tables for tables in granted if table in tables or EVERY_TABLE in tables]
            conditions = [tables[table] if table in tables else tables[EVERY_TABLE] for tables in shown_by]
            limited = tuple(dict.fromkeys(condition for condition in conditions if condition is not None))
            filters[table] = () if None in conditions else limited
        return TableAccess(filters=filters)
