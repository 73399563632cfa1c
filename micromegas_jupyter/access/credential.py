"""A credential as text: whether it is worth looking at, its digest, and its name in logs.

What the credential means is for the validators to say.
"""

from hashlib import sha256
from typing import TypeGuard

from micromegas_jupyter.oidc.jws import MAX_TOKEN_BYTES


def is_plausible(token: object) -> TypeGuard[str]:
    """Whether the credential is a text short enough to be looked at."""
    return isinstance(token, str) and len(token) <= MAX_TOKEN_BYTES


def token_digest(token: str) -> bytes:
    """Return the SHA-256 digest of a credential, the key of every cache."""
    try:
        return sha256(token.encode()).digest()
    except UnicodeEncodeError:
        # A credential may hold anything that a str can; "surrogatepass" keeps different texts different.
        return sha256(token.encode("utf-8", "surrogatepass")).digest()


def plausible_digest(token: object) -> bytes | None:
    """Return the digest of a credential that is plausible, else None; the first step of every cached look-up."""
    # The two functions above in one: as calls they would cost a fifth of a look-up.
    if not isinstance(token, str) or len(token) > MAX_TOKEN_BYTES:
        return None
    try:
        return sha256(token.encode()).digest()
    except UnicodeEncodeError:
        return token_digest(token)


def digest_name(digest: bytes) -> str:
    """Return how logs and lists name a credential: 8 hexadecimal digits of its digest."""
    return digest.hex()[:8]


def token_name(token: object) -> str:
    """Return how logs name a credential, whatever it is."""
    return digest_name(token_digest(token)) if is_plausible(token) else "implausible"
