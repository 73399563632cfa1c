"""Who administers the server: entries of `MICROMEGAS_ADMINS`, each bound to one issuer.

Reading the variable is `settings`'s job.
"""

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from micromegas_jupyter.access.audit import record_event
from micromegas_jupyter.errors import ConfigurationError

_KEY = "MICROMEGAS_ADMINS"


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminRules:
    """Administrators as (issuer, subject) and as (issuer, address that this issuer verified)."""

    subjects: frozenset[tuple[str, str]] = frozenset()
    emails: frozenset[tuple[str, str]] = frozenset()

    def is_admin(self, *, issuer: str, subject: str, verified_email: str | None) -> bool:
        """Whether a rule names this caller.

        Args:
            issuer: The issuer whose signature was verified.
            subject: The token's `sub`.
            verified_email: The token's `email` when its `email_verified` is JSON `true`, else None.
        """
        if (issuer, subject) in self.subjects:
            return True
        return verified_email is not None and (issuer, verified_email) in self.emails


def parse_admin_rules(entries: Sequence[str], *, issuers: Collection[str]) -> AdminRules:
    """Read entries of the form `issuer|subject`, `issuer|address`, subject, or address.

    An entry without an issuer belongs to the one issuer that is configured. With several issuers a bare address
    names nobody, because any of them could claim it (the nOAuth takeover), and a bare subject is an error.

    Raises:
        ConfigurationError: An entry names an issuer that is not configured, or no issuer where it must.
    """
    subjects: set[tuple[str, str]] = set()
    emails: set[tuple[str, str]] = set()
    for entry in entries:
        bound = _bind(entry, issuers)
        if bound is None:
            record_event(
                logging.WARNING,
                "An administrator's address names nobody, because several issuers are configured; "
                "write it as issuer|address.",
                subject=entry,
            )
            continue
        if "@" in entry:
            emails.add(bound)
        if "@" not in entry or "|" in entry:
            # A bare address never names a subject: at some providers people choose theirs.
            subjects.add(bound)
    return AdminRules(subjects=frozenset(subjects), emails=frozenset(emails))


def _bind(entry: str, issuers: Collection[str]) -> tuple[str, str] | None:
    for issuer in issuers:
        if entry.startswith(f"{issuer}|"):
            return issuer, _checked_name(entry.removeprefix(f"{issuer}|"), entry)
    # Subjects may hold `|` themselves (Auth0's do), so only a URL before it is taken for an issuer.
    prefix, separator, _ = entry.partition("|")
    if separator and "://" in prefix:
        raise ConfigurationError(f"{_KEY} names an issuer that is not configured: {entry!r}.", key=_KEY)
    if len(issuers) == 1:
        return next(iter(issuers)), entry
    if "@" in entry:
        return None
    raise ConfigurationError(
        f"{_KEY} names the subject {entry!r} without its issuer, and several issuers are configured.",
        key=_KEY,
        remedy="Write the entry as issuer|subject.",
    )


def _checked_name(name: str, entry: str) -> str:
    if not name:
        raise ConfigurationError(f"{_KEY} has an entry without a subject: {entry!r}.", key=_KEY)
    return name
