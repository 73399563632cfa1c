"""Roles: which tables, and which of their rows, a caller may read.

What a condition means is the engine's to say; who has which role is decided where the caller is identified.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from micromegas_jupyter.errors import ConfigurationError
from micromegas_jupyter.settings.decoding import as_named, as_object, as_text, as_text_or_texts, as_texts, shown

EVERY_TABLE = "*"


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleSetting:
    """One role.

    Attributes:
        tables: The readable tables, each with a condition in SQL that its rows must meet, or None for all rows.
            The name `*` stands for every table that is not named.
    """

    tables: Mapping[str, str | None] = field(default_factory=lambda: MappingProxyType({}))


def parse_roles(value: object, key: str) -> dict[str, RoleSetting]:
    """Read roles by name.

    Raises:
        ConfigurationError: A role is malformed.
    """
    return {name: _parse_role(role, f"{key}.{name}") for name, role in as_named(value, key).items()}


def read_role_names(value: object, key: str, *, known_roles: Collection[str] | None) -> tuple[str, ...]:
    """Read one role's name, or a list of names.

    Args:
        value: The decoded text or list.
        key: Where it stands.
        known_roles: The configured roles; None when they are not known here, and any name will do.

    Raises:
        ConfigurationError: It is something else, or it names a role that is not configured.
    """
    names = as_text_or_texts(value, key)
    for name in names:
        if known_roles is not None and name not in known_roles:
            raise ConfigurationError(
                f"{key} names the role {shown(name)}, which is not configured.",
                key=key,
                remedy="Add the role to `roles` in the configuration file, or name another.",
            )
    return names


def _parse_role(value: object, key: str) -> RoleSetting:
    role = as_object(value, key, known=frozenset({"tables"}))
    if "tables" not in role:
        raise ConfigurationError(
            f"{key}.tables is missing.", key=f"{key}.tables", remedy="Add the tables that the role may read."
        )
    tables, place = role["tables"], f"{key}.tables"
    if isinstance(tables, list):
        return RoleSetting(tables=MappingProxyType(dict.fromkeys(as_texts(tables, place))))
    conditions = {
        name: None if condition is None else as_text(condition, f"{place}.{name}")
        for name, condition in as_named(tables, place).items()
    }
    return RoleSetting(tables=MappingProxyType(conditions))
