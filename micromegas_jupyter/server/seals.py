"""Marks what the server hands to a caller, so that it knows it again and knows whom it gave it to.

The mark is an HMAC-SHA256 (RFC 2104) over a purpose, the caller and the data, with a key that only the
server has. What is marked can be read by anybody; it cannot be made, changed or used by anybody else.
"""

import hashlib
import hmac
from typing import Final

from micromegas_jupyter.executors.limits import CallerKey

MARK_BYTES: Final = hashlib.sha256().digest_size
SHORTEST_KEY: Final = 32


class Seals:
    """Marks data for callers, and checks marks.

    Args:
        key: The secret.

    Raises:
        ValueError: The key is too short.
    """

    def __init__(self, key: bytes) -> None:
        if len(key) < SHORTEST_KEY:
            raise ValueError(f"a ticket key has at least {SHORTEST_KEY} bytes")
        self._key = key

    def mark(self, purpose: bytes, caller: CallerKey, data: bytes) -> bytes:
        """Return the mark of `data` for this purpose and caller (issuer, subject)."""
        return hmac.digest(self._key, join_parts(purpose, *map(str.encode, caller), data), hashlib.sha256)

    def is_mark(self, mark: bytes, purpose: bytes, caller: CallerKey, data: bytes) -> bool:
        """Tell whether `mark` is the one of `data`; takes the same time for every wrong mark."""
        return hmac.compare_digest(mark, self.mark(purpose, caller, data))


def join_parts(*parts: bytes) -> bytes:
    """Join byte strings so that other parts cannot give the same whole."""
    return b"".join(len(part).to_bytes(8, "big") + part for part in parts)
