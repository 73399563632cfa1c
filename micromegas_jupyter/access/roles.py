"""What callers may do: who administers the server, and which tables and rows each role shows."""

import logging
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from micromegas_jupyter.access.audit import record_event
from micromegas_jupyter.config.access import EVERY_TABLE, RoleSetting
from micromegas_jupyter.config.issuers import IssuerSetting
from micromegas_jupyter.core.protocols import TableAccess
from micromegas_jupyter.errors import ConfigurationError

ADMINS_KEY = "MICROMEGAS_ADMINS"

# Subjects may hold any of the characters that are left out here, as Auth0's `google-apps|alice@example.com` does.
_ADDRESS = re.compile(r"[^\s@|:/]+@[^\s@|:/]+")
_SUBJECT_PREFIX = "subject:"
# Callers have few different sets of roles, so what each set allows is worked out once.
_MAX_ROLE_SETS = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminRules:
    """Administrators, each together with the issuer that says so.

    Attributes:
        subjects: By issuer and subject.
        emails: By issuer and an address that this issuer verified.
        groups: By issuer and a group.
    """

    subjects: frozenset[tuple[str, str]] = frozenset()
    emails: frozenset[tuple[str, str]] = frozenset()
    groups: frozenset[tuple[str, str]] = frozenset()

    def is_admin(
        self, *, issuer: str, subject: str, verified_email: str | None = None, groups: Collection[str] = ()
    ) -> bool:
        """Whether a rule names this caller.

        Args:
            issuer: The configured issuer whose signature was verified.
            subject: The caller's name there.
            verified_email: The token's `email` when its `email_verified` is JSON `true`, else None.
            groups: The caller's groups, when they are known in full.
        """
        if (issuer, subject) in self.subjects:
            return True
        if verified_email is not None and (issuer, verified_email) in self.emails:
            return True
        return bool(self.groups) and any((issuer, group) in self.groups for group in groups)


def parse_admin_rules(entries: Sequence[str], *, issuers: Sequence[IssuerSetting], key: str = ADMINS_KEY) -> AdminRules:
    """Read entries of the form `issuer|subject`, `issuer|address`, subject, or address.

    A bare subject belongs to the one issuer that is configured; with several it is an error. A bare address belongs
    to each issuer that is trusted for email. With several issuers that is none unless the setting says so, because any
    of them could claim any address (the nOAuth takeover). An address with its issuer counts unless that issuer is set
    as not trusted for email.

    What looks like an address is never a subject too: at some providers people choose theirs. A subject that looks
    like one is written `issuer|subject:<subject>`.

    Args:
        entries: The entries.
        issuers: The configured issuers.
        key: What errors call the entries.

    Raises:
        ConfigurationError: An entry names an issuer that is not configured, or no issuer where it must.
    """
    subjects: set[tuple[str, str]] = set()
    emails: set[tuple[str, str]] = set()
    for entry in entries:
        bound = _split_issuer(entry, issuers, key)
        if bound is None and "@" in entry:
            trusted = _trusted_for_email(issuers)
            emails.update((setting.issuer, entry) for setting in trusted)
            if not trusted:
                _warn_of_address(entry, "no issuer is trusted for email; write it as issuer|address, or trust one")
            continue
        setting, name = bound or (_only_issuer(entry, issuers, key), entry)
        if bound is None or not _ADDRESS.fullmatch(name):
            subject = name.removeprefix(_SUBJECT_PREFIX)
            # The prefix is one only before what would be taken for an address without it.
            subjects.add((setting.issuer, subject if bound and _ADDRESS.fullmatch(subject) else name))
        elif setting.is_trusted_for_email is not False:
            emails.add((setting.issuer, name))
        else:
            _warn_of_address(entry, "its issuer is set as not trusted for email; name the subject")
    groups = frozenset((setting.issuer, group) for setting in issuers for group in setting.admin_groups)
    return AdminRules(subjects=frozenset(subjects), emails=frozenset(emails), groups=groups)


def _split_issuer(entry: str, issuers: Sequence[IssuerSetting], key: str) -> tuple[IssuerSetting, str] | None:
    """Return the issuer that the entry begins with and what follows; None when it begins with none."""
    for setting in issuers:
        for issuer in (setting.issuer, *setting.aliases):
            if not entry.startswith(f"{issuer}|"):
                continue
            if name := entry.removeprefix(f"{issuer}|"):
                return setting, name
            raise ConfigurationError(
                f"{key} has an entry without a subject: {entry!r}.", key=key, remedy="Add the subject after the bar."
            )
    # Subjects may hold `|` themselves (Auth0's do), so only a URL before it is taken for an issuer.
    prefix, separator, _ = entry.partition("|")
    if separator and "://" in prefix:
        raise ConfigurationError(
            f"{key} names an issuer that is not configured: {entry!r}.",
            key=key,
            remedy="Write the issuer as it is configured.",
        )
    return None


def _trusted_for_email(issuers: Sequence[IssuerSetting]) -> list[IssuerSetting]:
    is_default = len(issuers) == 1
    return [
        setting
        for setting in issuers
        if (is_default if setting.is_trusted_for_email is None else setting.is_trusted_for_email)
    ]


def _warn_of_address(entry: str, reason: str) -> None:
    record_event(logging.WARNING, "An administrator's address matches nobody.", subject=entry, reason=reason)


def _only_issuer(entry: str, issuers: Sequence[IssuerSetting], key: str) -> IssuerSetting:
    if len(issuers) == 1:
        return issuers[0]
    raise ConfigurationError(
        f"{key} names the subject {entry!r} without its issuer, and there is not exactly one issuer.",
        key=key,
        remedy="Write the entry as issuer|subject.",
    )


class Roles:
    """The configured roles. Safe to share between threads.

    Args:
        roles: By name; None when there are none, and every caller may read everything.
        default_roles: What every caller has.
    """

    def __init__(self, roles: Mapping[str, RoleSetting] | None = None, default_roles: Iterable[str] = ()) -> None:
        self._roles = roles
        self._default_roles = tuple(default_roles)
        self._cached_access = lru_cache(maxsize=_MAX_ROLE_SETS)(self._access_of)

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
        return self._cached_access(self.all_roles(roles))

    def _access_of(self, roles: tuple[str, ...]) -> TableAccess:
        granted = [self._roles[name].tables for name in roles] if self._roles else []
        filters: dict[str, tuple[str, ...]] = {}
        for table in sorted({table for tables in granted for table in tables}):
            # A role that does not name the table shows it by its `*`, if it has one.
            shown_by = [tables for tables in granted if table in tables or EVERY_TABLE in tables]
            conditions = [tables[table] if table in tables else tables[EVERY_TABLE] for tables in shown_by]
            limited = tuple(dict.fromkeys(condition for condition in conditions if condition is not None))
            filters[table] = () if None in conditions else limited
        return TableAccess(filters=filters)
