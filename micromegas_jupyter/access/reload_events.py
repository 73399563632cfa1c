"""Says in the log which access configuration is in force, and why a newer one is not.

What is in force is `reloading`'s choice.
"""

import logging
from datetime import datetime

from micromegas_jupyter.access.audit import record_event
from micromegas_jupyter.access.building import split_denied
from micromegas_jupyter.access.key_facts import key_state
from micromegas_jupyter.config.access import API_KEY_ISSUER, AccessSettings
from micromegas_jupyter.errors import ConfigurationError, MicromegasError

_MAX_WARNINGS = 100
_TRIED = "It is read again by itself when it has changed; nothing has to be restarted."


def record_in_force(settings: AccessSettings, *, before: AccessSettings, now: datetime) -> None:
    """Tell that settings came into force; a warning where they let in nobody, or roles are not there any more."""
    counts = count_settings(settings, now=now)
    is_odd = (before.roles is not None and settings.roles is None) or not (counts["issuers"] or counts["api_keys"])
    record_event(
        logging.WARNING if is_odd else logging.INFO,
        "The access configuration was read again and is in force.",
        had_roles=before.roles is not None,
        **counts,
    )


def warn_of_idle_names(settings: AccessSettings) -> None:
    """Tell of names that do nothing: of `denied`, those that no API key has; of `admins`, all where nobody signs in."""
    if settings.admins and settings.oidc is None:
        record_event(
            logging.WARNING,
            "Administrators are named, but no issuer whose tokens could be theirs; API keys administer nothing.",
            setting=settings.admins_place,
        )
    names = {key.name for key in settings.api_keys}
    denied = sorted(name for issuer, name in split_denied(settings.denied, issuers=()) if issuer == API_KEY_ISSUER)
    for name in [name for name in denied if name not in names][:_MAX_WARNINGS]:
        record_event(logging.WARNING, "An entry of denied names no API key that there is.", subject=name)


def record_problem(error: Exception, *, is_part: bool, **facts: str | float | None) -> None:
    """Tell why a new version is not in force as a whole.

    Args:
        error: What keeps it from being so.
        is_part: Whether a part of it came into force.
        facts: What is in force.
    """
    if not isinstance(error, ConfigurationError):
        sentence = "A new version of the access configuration could not be looked at; it is tried again."
    elif is_part:
        sentence = "A part of a new version of the access configuration cannot be used; the rest is in force."
    else:
        sentence = "A new version of the access configuration cannot be used; the old one stays in force."
    record_event(
        logging.ERROR,
        sentence,
        kind=type(error).__name__,
        setting=error.key if isinstance(error, ConfigurationError) else None,
        # Sentences of other libraries may hold anything.
        problem=error.what if isinstance(error, MicromegasError) else None,
        remedy=_remedy_of(error),
        **facts,
    )


def _remedy_of(error: Exception) -> str | None:
    """Return what to do while the server goes on: of a setting that it has at its start, restarting is the remedy."""
    if not isinstance(error, ConfigurationError):
        return error.remedy if isinstance(error, MicromegasError) else None
    own = "Correct what it says." if error.remedy == ConfigurationError.default_remedy else error.remedy
    return f"{own} {_TRIED}"


def count_settings(settings: AccessSettings, *, now: datetime) -> dict[str, float]:
    """Return how many of each there are; of keys, those that still let somebody in."""
    issuers = () if settings.oidc is None else settings.oidc.issuers
    return {
        "issuers": len(issuers),
        "api_keys": sum(key_state(key, now=now) == "valid" for key in settings.api_keys),
        "denied": len(settings.denied),
        "roles": len(settings.roles or ()),
        "admins": len(settings.admins),
        "admin_groups": sum(len(issuer.admin_groups) for issuer in issuers),
    }
