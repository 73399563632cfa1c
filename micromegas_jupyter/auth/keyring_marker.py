"""The text of the file that stands for a sign-in in the keyring; it holds no secret.

When it is written and what it means is `keyring_store`'s job.
"""

import json
from dataclasses import dataclass, replace
from typing import TypeGuard

from micromegas_jupyter.auth.sign_in_entry import SignInEntry
from micromegas_jupyter.auth.token_format import parse_entry, parse_extras
from micromegas_jupyter.core.json import JsonError, decode_strict_json
from micromegas_jupyter.errors import LoginRequired

MAX_PARTS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyringMarker:
    """Which of the keyring's entries count.

    Attributes:
        entry: What the sign-in was asked for.
        version: How many sign-ins and renewals there were; tells in which of two places the newest is.
        part_count: In how many parts it is kept.
    """

    entry: SignInEntry
    version: int
    part_count: int


def build_marker(marker: KeyringMarker) -> str:
    """Return the marker as text."""
    entry = marker.entry
    document = {
        "issuer": entry.issuer,
        "client_id": entry.client_id,
        "audience": entry.audience,
        "scope": entry.scope,
        "resource": entry.resource,
        "kept_in": "keyring",
        "version": marker.version,
        "parts": marker.part_count,
    }
    return json.dumps(document, indent=2)


def parse_marker(content: bytes) -> KeyringMarker:
    """Read a marker.

    Raises:
        LoginRequired: It is not one.
    """
    try:
        text = content.decode("utf-8")
        document = decode_strict_json(text)
    except (UnicodeDecodeError, JsonError):
        raise LoginRequired("The stored sign-in is damaged.") from None
    entry = parse_entry(text)
    version, part_count = (document.get(name) if isinstance(document, dict) else None for name in ("version", "parts"))
    if not _is_count(version) or not _is_count(part_count) or part_count > MAX_PARTS:
        raise LoginRequired("The stored sign-in cannot be read.")
    extras = parse_extras(text, entry=entry)
    return KeyringMarker(
        entry=replace(entry, scope=extras.scope, resource=extras.resource), version=version, part_count=part_count
    )


def _is_count(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
