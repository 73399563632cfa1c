"""An application's own private key: taking it up, and signing JWTs with it.

What the key's text looks like is `key_text`'s, what the JWTs say is for their users to decide; reading the key's file
safely is the caller's job.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

from micromegas_jupyter.config.client import AssertionAudience
from micromegas_jupyter.core.secrets import Secret
from micromegas_jupyter.errors import ConfigurationError
from micromegas_jupyter.oidc.key_text import Key, KeyProblem, read_key_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from joserfc.jwa import JWSAlgModel

MAX_KEY_CHARACTERS = 64 * 1024
MAX_KEY_ID_CHARACTERS = 1024

_RSA_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
# By key type and curve; the first is the usual one. RFC 7518 section 3.1, RFC 8037 section 3.1.
_ALGORITHMS: Mapping[tuple[str, str | None], tuple[str, ...]] = {
    ("RSA", None): _RSA_ALGORITHMS,
    ("EC", "P-256"): ("ES256",),
    ("EC", "P-384"): ("ES384",),
    ("EC", "P-521"): ("ES512",),
    ("OKP", "Ed25519"): ("EdDSA",),
    ("OKP", "Ed448"): ("EdDSA",),
}
_MIN_RSA_BITS = 2048
_MAX_RSA_BITS = 8192


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivateKey:
    """The key with which an application signs assertions about itself.

    Attributes:
        key: The key itself.
        algorithm: How it signs.
        key_id: Its id at the provider.
        certificate_thumbprint: The SHA-256 thumbprint of its certificate in base64url, for providers that know keys
            by that (Entra ID).
        audience: Whom assertions that authenticate the application are made out to.
    """

    key: Key = field(repr=False)
    algorithm: str
    key_id: str | None = None
    certificate_thumbprint: str | None = None
    audience: AssertionAudience = AssertionAudience.TOKEN_ENDPOINT

    def __reduce__(self) -> str:
        raise TypeError("a private key cannot be pickled")


def parse_private_key(
    text: Secret,
    *,
    key_id: str | None,
    algorithm: str | None,
    source_name: str,
    audience: AssertionAudience = AssertionAudience.TOKEN_ENDPOINT,
) -> PrivateKey:
    """Read a private key in PEM (PKCS #8, PKCS #1 or SEC 1) or as one JWK.

    Args:
        text: The key; in PEM its certificate may stand beside it.
        key_id: Its id at the provider; the JWK's own `kid` when None.
        algorithm: How it signs; the JWK's own `alg`, else the usual one of its type, when None.
        source_name: The setting that the text came from, for errors.
        audience: Whom assertions that authenticate the application are made out to.

    Source: RFC 7517 section 4; RFC 7518 sections 3.3 and 6; RFC 8725 section 3.5.

    Raises:
        ConfigurationError: It is not a key, is a public or encrypted one, is too weak, does not fit the algorithm, or
            has another key's certificate beside it.
    """
    if len(text.reveal()) > MAX_KEY_CHARACTERS:
        raise _unusable(source_name, "is too long for a key")
    read = read_key_text(text.reveal())
    if isinstance(read, KeyProblem):
        raise _unusable(source_name, read.what, remedy=read.remedy)
    _check_strength(read.key, source_name)
    chosen_id = key_id or read.key_id
    if chosen_id is not None and not (len(chosen_id) <= MAX_KEY_ID_CHARACTERS and chosen_id.isprintable()):
        raise _unusable(source_name, "has a key id that is not a short line of text")
    return PrivateKey(
        key=read.key,
        algorithm=_choose_algorithm(read.key, algorithm or read.algorithm, source_name),
        key_id=chosen_id or None,
        certificate_thumbprint=read.certificate_thumbprint,
        audience=audience,
    )


def sign_jwt(key: PrivateKey, claims: Mapping[str, object]) -> Secret:
    """Return the claims as a signed JWT whose header names the algorithm, and the key as far as it has names.

    Source: RFC 7515 sections 4.1.8 and 7.1; RFC 7519 section 7.1.
    """
    header: dict[str, object] = {"alg": key.algorithm, "typ": "JWT"}
    if key.key_id is not None:
        header["kid"] = key.key_id
    if key.certificate_thumbprint is not None:
        # Not `x5t` as well: that is SHA-1, and Entra ID, which once asked for it, documents this one now.
        header["x5t#S256"] = key.certificate_thumbprint
    signing_input = b".".join(_encode(json.dumps(part).encode("ascii")) for part in (header, dict(claims)))
    # The library warns of the name EdDSA, which RFC 9864 replaces but providers still list; its signer does not.
    signature = _signers()[key.algorithm].sign(signing_input, key.key)
    return Secret((signing_input + b"." + _encode(signature)).decode("ascii"))


def _check_strength(key: Key, source_name: str) -> None:
    from joserfc.jwk import RSAKey

    if isinstance(key, RSAKey) and not _MIN_RSA_BITS <= key.raw_value.key_size <= _MAX_RSA_BITS:
        raise _unusable(source_name, f"holds an RSA key that has not {_MIN_RSA_BITS} to {_MAX_RSA_BITS} bits")


def _choose_algorithm(key: Key, wanted: str | None, source_name: str) -> str:
    curve = None if key.key_type == "RSA" else str(key["crv"])
    fitting = _ALGORITHMS.get((key.key_type, curve))
    if fitting is None:
        raise _unusable(source_name, "holds a key on a curve that cannot sign here")
    if wanted is not None and wanted not in fitting:
        raise _unusable(
            source_name, "does not fit the signature algorithm that was chosen", remedy=f"Choose {', '.join(fitting)}."
        )
    return wanted or fitting[0]


def _encode(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def _unusable(source_name: str, what: str, *, remedy: str | None = None) -> ConfigurationError:
    return ConfigurationError(
        f"What {source_name} names {what}.",
        key=source_name,
        remedy=remedy or "Give a private key for signing: RSA of 2048 bits or more, P-256, P-384, P-521 or Ed25519.",
    )


@cache
def _signers() -> Mapping[str, JWSAlgModel]:
    from joserfc.jwa import JWS_ALGORITHMS

    return {model.name: model for model in JWS_ALGORITHMS if any(model.name in names for names in _ALGORITHMS.values())}
