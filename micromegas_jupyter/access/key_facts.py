"""What can be said of a configured API key without showing it: its digest, its id, its state.

Whether a credential is that key is for `api_keys` to find.
"""

import re
from collections.abc import Sequence
from datetime import datetime

from micromegas_jupyter.access.credential import digest_name, token_digest
from micromegas_jupyter.config.access import ApiKeySetting
from micromegas_jupyter.errors import UsageError

_ID = re.compile(r"[0-9a-f]{8,64}")
_LONGER_ID_DIGITS = 16
_MAX_SHOWN_CHARACTERS = 60


def key_digest(key: ApiKeySetting) -> bytes:
    """Return the SHA-256 digest of the key, whichever way it is configured."""
    if key.sha256 is not None:
        return key.sha256
    return token_digest("" if key.key is None else key.key.reveal())


def key_id(key: ApiKeySetting) -> str:
    """Return the key's short id, under which the server's log names it too."""
    return digest_name(key_digest(key))


def key_state(key: ApiKeySetting, *, now: datetime) -> str:
    """Return `valid`, `revoked` or `expired`."""
    if key.revoked_at is not None:
        return "revoked"
    return "expired" if key.expires_at is not None and now >= key.expires_at else "valid"


def find_keys(keys: Sequence[ApiKeySetting], wanted: str) -> list[ApiKeySetting]:
    """Return all keys of that name, or else the one with that id.

    Raises:
        UsageError: There is none, or the text could mean several things.
    """
    named = [key for key in keys if key.name == wanted]
    digits = wanted.lower()
    numbered = [key for key in keys if key_digest(key).hex().startswith(digits)] if _ID.fullmatch(digits) else []
    if not named and not numbered:
        # Somebody may have given the key itself, so it is not repeated.
        raise UsageError("No key in the file has that name or id.", remedy="`micromegas keys list` shows them.")
    others = [key for key in numbered if key not in named]
    if (named and others) or len(others) > 1:
        ids = ", ".join(key_digest(key).hex()[:_LONGER_ID_DIGITS] for key in (*named, *others))
        raise UsageError(
            f"{wanted[:_MAX_SHOWN_CHARACTERS]!r} could mean several keys: {ids}.", remedy="Give more digits of the id."
        )
    return named or numbered
