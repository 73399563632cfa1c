"""Accepts the API keys that the server was started with.

Reading them from the environment is `settings`'s job.
"""

import hmac
import logging
from collections.abc import Sequence

from micromegas_jupyter.access.audit import record_event
from micromegas_jupyter.access.credential import is_plausible, token_digest
from micromegas_jupyter.access.deciding import DecidingValidator
from micromegas_jupyter.access.decision import Accepted, Decision, Refused
from micromegas_jupyter.contracts import AuthContext, AuthType
from micromegas_jupyter.settings import ApiKeySetting

API_KEY_ISSUER = "api_key"

# 128 bits are 22 characters of base64 or 32 of hexadecimal; anything below 16 characters cannot hold them.
_MIN_KEY_CHARACTERS = 16


class ApiKeyValidator(DecidingValidator):
    """Knows each key by its SHA-256 digest only; the cost of a look-up does not depend on the number of keys.

    The bearer of a key is never an administrator, and may say on whose behalf it calls. Immutable, so safe to
    share between threads.
    """

    def __init__(self, keys: Sequence[ApiKeySetting]) -> None:
        self._contexts: dict[bytes, tuple[bytes, AuthContext]] = {}
        for setting in keys:
            text = setting.key.reveal()
            digest = token_digest(text)
            self._contexts[digest] = (digest, _context_of(setting.name))
            if len(text) < _MIN_KEY_CHARACTERS:
                record_event(logging.WARNING, "An API key is short enough to be guessed.", subject=setting.name)

    def decide(self, token: str) -> Decision:
        """Look the key up."""
        context = self.cached_context(token)
        return Refused(reason="unknown_api_key") if context is None else Accepted(context=context)

    def cached_context(self, token: str) -> AuthContext | None:
        """Return the key's context; a look-up needs no I/O, so this knows every key."""
        if not is_plausible(token):
            return None
        digest = token_digest(token)
        stored, context = self._contexts.get(digest, (b"", None))
        return context if hmac.compare_digest(stored, digest) else None


def _context_of(name: str) -> AuthContext:
    return AuthContext(subject=name, issuer=API_KEY_ISSUER, auth_type=AuthType.API_KEY, may_delegate=True)
