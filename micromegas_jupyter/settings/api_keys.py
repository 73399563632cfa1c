"""Accepted API keys, from the environment variable or a key file; both hold the same JSON list.

Reading and writing the file is left to others; so is what an expired or revoked key is worth.
"""

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial

from micromegas_jupyter.contracts import Secret
from micromegas_jupyter.errors import ConfigurationError
from micromegas_jupyter.settings.decoding import (
    as_list,
    as_moment,
    as_object,
    as_text,
    as_texts,
    decode_setting,
    is_too_long,
)
from micromegas_jupyter.settings.members import Members
from micromegas_jupyter.settings.roles import read_role_names

API_KEY_ISSUER = "api_key"
"""What stands for the issuer of an API key's bearer."""

READ_SCOPE = "read"
INGEST_SCOPE = "ingest"
API_KEY_SCOPES = frozenset({READ_SCOPE, INGEST_SCOPE})
MAX_API_KEYS = 100_000

_MEMBERS = frozenset({"name", "key", "sha256", "expires_at", "scopes", "roles", "created_at", "revoked_at"})
_DEFAULT_SCOPES = frozenset({READ_SCOPE})
_SHA256 = re.compile(r"[0-9A-Fa-f]{64}")
_DIGEST_OF_NOTHING = hashlib.sha256(b"").digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKeySetting:
    """One API key and the name that its bearer goes by; exactly one of `key` and `sha256` is set.

    Attributes:
        name: The bearer's name.
        key: The key itself (the older form).
        sha256: The SHA-256 digest of the key, 32 bytes.
        expires_at: When it ends (aware UTC); None when it does not.
        scopes: What it is for: `read`, `ingest`.
        roles: The roles of its bearer; one that is not configured counts for nothing.
        created_at: When it was made, for display.
        revoked_at: When it was revoked; a revoked key is refused.
    """

    name: str
    key: Secret | None = None
    sha256: bytes | None = field(default=None, repr=False)
    expires_at: datetime | None = None
    scopes: frozenset[str] = _DEFAULT_SCOPES
    roles: tuple[str, ...] = ()
    created_at: datetime | None = None
    revoked_at: datetime | None = None


def parse_api_keys(text: str, place: str) -> tuple[ApiKeySetting, ...]:
    """Read the JSON list of a variable or a key file.

    Args:
        text: The JSON text.
        place: Names the list in refusals.

    Raises:
        ConfigurationError: The list is malformed, too long, or holds one key twice.
    """
    keys = read_api_keys(decode_setting(text, place), place)
    check_distinct([(key, f"{place}[{index}]") for index, key in enumerate(keys)])
    return keys


def render_api_keys(keys: Iterable[ApiKeySetting]) -> str:
    """Return the text of a key file, sorted by name; keys of one name stay in order.

    `parse_api_keys` reads back the same keys in that order. A key itself is written only where it is all there is.

    Raises:
        ConfigurationError: The text is too long to be read back.
    """
    entries = [_rendered(key) for key in sorted(keys, key=lambda key: key.name)]
    text = json.dumps(entries, ensure_ascii=False, indent=2) + "\n"
    if len(entries) > MAX_API_KEYS or is_too_long(text):
        raise ConfigurationError(
            "There are more API keys than one key file can hold.",
            key="api_key_file",
            remedy="Remove keys that have expired or were revoked.",
        )
    return text


def read_api_keys(value: object, place: str) -> tuple[ApiKeySetting, ...]:
    """Read a decoded list of keys; whether one stands twice is `check_distinct`'s to say.

    A role that is not configured is no reason to refuse the list: it would keep later revocations from taking effect.
    What such a key is worth is for the validator to say.

    Args:
        value: The decoded list.
        place: Names the list in refusals.

    Raises:
        ConfigurationError: The list is malformed or too long.
    """
    entries = as_list(value, place)
    if len(entries) > MAX_API_KEYS:
        raise ConfigurationError(f"{place} holds more than {MAX_API_KEYS} keys.", key=place)
    return tuple(_read_key(entry, f"{place}[{index}]") for index, entry in enumerate(entries))


def check_distinct(keys: Iterable[tuple[ApiKeySetting, str]]) -> None:
    """Check that no key stands twice, be it as itself or as its digest.

    Args:
        keys: Keys, each with the place where it stands.

    Raises:
        ConfigurationError: Two entries are one key; both places are named.
    """
    first_places: dict[bytes, str] = {}
    for key, place in keys:
        first = first_places.setdefault(_digest(key), place)
        if first != place:
            raise ConfigurationError(
                f"{place} is the same key as {first}.", key=place, remedy="Give each entry its own key."
            )
    if len(first_places) > MAX_API_KEYS:
        raise ConfigurationError(f"There are more than {MAX_API_KEYS} API keys in all.", key=place)


def _read_key(entry: object, place: str) -> ApiKeySetting:
    values = as_object(entry, place)
    if not values.keys() <= _MEMBERS:
        # The name is not shown: in a list that somebody wrote as {key: name}, it is the key.
        raise ConfigurationError(
            f"{place} has an unknown name.", key=place, remedy=f"Known names: {', '.join(sorted(_MEMBERS))}."
        )
    members = Members(values=values, place=place)
    if "key" in members and "sha256" in members:
        raise ConfigurationError(
            f"{place} has both key and sha256.", key=place, remedy="Keep sha256: it does not give the key away."
        )
    return ApiKeySetting(
        name=members.require("name", as_text),
        sha256=members.read("sha256", _as_digest, None),
        key=None if "sha256" in members else Secret(members.require("key", as_text)),
        expires_at=members.read("expires_at", as_moment, None),
        scopes=members.read("scopes", _as_scopes, _DEFAULT_SCOPES),
        roles=members.read("roles", partial(read_role_names, known_roles=None), ()),
        created_at=members.read("created_at", as_moment, None),
        revoked_at=members.read("revoked_at", as_moment, None),
    )


def _as_digest(value: object, key: str) -> bytes:
    if not isinstance(value, str) or not _SHA256.fullmatch(value):
        raise ConfigurationError(f"{key} is not a SHA-256 digest of 64 hexadecimal digits.", key=key)
    digest = bytes.fromhex(value)
    if digest == _DIGEST_OF_NOTHING:
        raise ConfigurationError(f"{key} is the digest of an empty key.", key=key, remedy="Make a new key.")
    return digest


def _as_scopes(value: object, key: str) -> frozenset[str]:
    scopes = as_texts(value, key)
    for index, scope in enumerate(scopes):
        if scope not in API_KEY_SCOPES:
            raise ConfigurationError(
                f"{key}[{index}] is none of {', '.join(sorted(API_KEY_SCOPES))}.", key=f"{key}[{index}]"
            )
    return frozenset(scopes)


def _digest(key: ApiKeySetting) -> bytes:
    if key.sha256 is not None:
        return key.sha256
    return hashlib.sha256(_plain(key).encode()).digest()


def _plain(key: ApiKeySetting) -> str:
    return "" if key.key is None else key.key.reveal()


def _rendered(key: ApiKeySetting) -> dict[str, object]:
    entry: dict[str, object] = {"name": key.name}
    if key.sha256 is not None:
        entry["sha256"] = key.sha256.hex()
    else:
        entry["key"] = _plain(key)
    if key.scopes != _DEFAULT_SCOPES:
        entry["scopes"] = sorted(key.scopes)
    if key.roles:
        entry["roles"] = list(key.roles)
    for member, moment in (
        ("created_at", key.created_at),
        ("expires_at", key.expires_at),
        ("revoked_at", key.revoked_at),
    ):
        if moment is not None:
            entry[member] = moment.isoformat().replace("+00:00", "Z")
    return entry
