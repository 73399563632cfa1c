"""The provider's signing keys, made at start and gone at stop.

What a token says is the caller's; here it is signed and its signature checked.
"""

from collections.abc import Mapping
from typing import Literal

from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, RSAKey

SigningAlgorithm = Literal["RS256", "ES256"]


class SigningKeys:
    """One RSA and one elliptic-curve key; both are published, so that a client has to choose by `kid`."""

    def __init__(self) -> None:
        self._keys: dict[SigningAlgorithm, RSAKey | ECKey] = {
            "RS256": RSAKey.generate_key(2048, {"alg": "RS256", "use": "sig"}, auto_kid=True),
            "ES256": ECKey.generate_key("P-256", {"alg": "ES256", "use": "sig"}, auto_kid=True),
        }
        self._key_set = KeySet(list(self._keys.values()))

    def build_public_document(self) -> Mapping[str, object]:
        """Return the JWK set with public parts only (RFC 7517 section 5)."""
        return {**self._key_set.as_dict(private=False)}

    def sign(self, claims: dict[str, object], *, algorithm: SigningAlgorithm, token_type: str) -> str:
        """Return a JWT over `claims` whose header has `alg`, `kid` and this `typ`."""
        key = self._keys[algorithm]
        header = {"alg": algorithm, "kid": key.kid, "typ": token_type}
        return jwt.encode(header, claims, key, algorithms=[algorithm])

    def read_own(self, token: str) -> Mapping[str, object]:
        """Return the claims of a token that these keys signed; its times are not looked at.

        Raises:
            JoseError: Not signed by these keys.
            ValueError: Not a token at all.
        """
        return jwt.decode(token, self._key_set, algorithms=list(self._keys)).claims
