"""A credential as text: whether it is worth looking at, its digest, and its name in logs.

What the credential means is for the validators to say.
"""

import hashlib
from typing import TypeGuard

from micromegas_jupyter.oidc.jws import MAX_TOKEN_BYTES


def is_plausible(token: object) -> TypeGuard[str]:
    """Whether the credential is a text short enough to be looked at."""
    return isinstance(token, str) and len(token) <= MAX_TOKEN_BYTES


def token_digest(token: str) -> bytes:
    """Return the SHA-256 digest of a credential, the key of every cache."""
    # A credential may hold anything that a str can; "surrogatepass" keeps different texts different.
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def token_name(token: object) -> str:
    """Return how logs name a credential: 8 hexadecimal digits of its digest."""
    return token_digest(token).hex()[:8] if is_plausible(token) else "implausible"
