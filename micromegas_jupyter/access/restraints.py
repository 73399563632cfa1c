"""What a version that is not in force says against credentials that are: revocations and denials count all the same.

Which version is in force is `reloading`'s choice.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TypeVar

from micromegas_jupyter.access.key_facts import key_digest
from micromegas_jupyter.config.access import AccessSettings, ApiKeySetting, parse_api_keys
from micromegas_jupyter.config.access_config import read_denied, read_listed_keys
from micromegas_jupyter.errors import ConfigurationError

Part = TypeVar("Part")


@dataclass(frozen=True, slots=True, kw_only=True)
class Statements:
    """What texts say of who may come, as far as each part can be read.

    Attributes:
        denied: The configuration file's `denied`.
        config_keys: The keys that stand in the configuration file itself.
        file_keys: The keys in the key file.
    """

    denied: tuple[str, ...] = ()
    config_keys: tuple[ApiKeySetting, ...] = field(default=(), repr=False)
    file_keys: tuple[ApiKeySetting, ...] = field(default=(), repr=False)


NO_STATEMENTS = Statements()


def read_statements(
    config_text: str | None, key_file_text: str | None, *, otherwise: Statements = NO_STATEMENTS
) -> Statements:
    """Read each part by itself; a part whose text is missing or malformed is that of `otherwise`."""
    return Statements(
        denied=_read(read_denied, config_text, otherwise.denied),
        config_keys=_read(read_listed_keys, config_text, otherwise.config_keys),
        file_keys=_read(lambda text: parse_api_keys(text, "keys"), key_file_text, otherwise.file_keys),
    )


def restrain(settings: AccessSettings, *, before: Statements, now: Statements) -> AccessSettings:
    """Return settings that let in nobody whom the texts of now shut out.

    A key is refused that is now marked as revoked, has ended or is no longer listed, and so is everybody who is now
    denied. Nobody gets anything that they did not have. A list without any key says nothing where keys are the only
    way in: it would shut out everybody, and is never put in force for the same reason.

    Args:
        settings: What is in force.
        before: What the texts of these settings say.
        now: What the texts say now.
    """
    if before == now:
        return settings
    listed = {key_digest(key): key for key in (*now.config_keys, *now.file_keys)}
    watched = {key_digest(key) for key in (*before.config_keys, *before.file_keys)}
    kept = []
    for key in settings.api_keys:
        digest = key_digest(key)
        if digest in listed:
            kept.append(_stricter(key, listed[digest]))
        elif digest not in watched:
            kept.append(key)
    if not kept and settings.oidc is None:
        kept = list(settings.api_keys)
    return replace(settings, api_keys=tuple(kept), denied=tuple(dict.fromkeys((*settings.denied, *now.denied))))


def _read(reader: Callable[[str], Part], text: str | None, otherwise: Part) -> Part:
    if text is None:
        return otherwise
    try:
        return reader(text)
    except ConfigurationError:
        return otherwise


def _stricter(key: ApiKeySetting, now: ApiKeySetting) -> ApiKeySetting:
    ends = [moment for moment in (key.expires_at, now.expires_at) if moment is not None]
    return replace(key, revoked_at=key.revoked_at or now.revoked_at, expires_at=min(ends, default=None))
