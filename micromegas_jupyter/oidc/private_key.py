"""An application's private key: parsing it, and signing JWTs with it."""

from __future__ import annotations

import base64
import enum
import json
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, TypeAlias

from micromegas_jupyter.config.client import AssertionAudience
from micromegas_jupyter.core.system import Secret
from micromegas_jupyter.core.text import JsonError, decode_strict_json
from micromegas_jupyter.errors import ConfigurationError
from micromegas_jupyter.oidc.jwt import MAX_RSA_BITS, MIN_RSA_BITS, key_classes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from joserfc.jwa import JWSAlgModel
    from joserfc.jwk import ECKey, OKPKey, RSAKey

Key: TypeAlias = "RSAKey | ECKey | OKPKey"

MAX_KEY_CHARACTERS = 64 * 1024
MAX_KEY_ID_CHARACTERS = 1024

_NUMBERS: Mapping[str, tuple[str, ...]] = {
    "RSA": ("n", "e", "d", "p", "q", "dp", "dq", "qi"),
    "EC": ("crv", "x", "y", "d"),
    "OKP": ("crv", "x", "d"),
}
_RSA_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
# By key type and curve; the first one is the default. RFC 7518 section 3.1, RFC 8037 section 3.1.
_ALGORITHMS: Mapping[tuple[str, str | None], tuple[str, ...]] = {
    ("RSA", None): _RSA_ALGORITHMS,
    ("EC", "P-256"): ("ES256",),
    ("EC", "P-384"): ("ES384",),
    ("EC", "P-521"): ("ES512",),
    ("OKP", "Ed25519"): ("EdDSA",),
    ("OKP", "Ed448"): ("EdDSA",),
}
_CERTIFICATE = "-----BEGIN CERTIFICATE-----"
_REMEDY = "Specify a private key for signing: RSA with at least 2048 bits, P-256, P-384, P-521, or Ed25519."


class _Problem(enum.Enum):
    """A problem with a key's text, worded to follow the source's name, and the remedy if it isn't the usual one."""

    NOT_JSON = ("is not valid JSON", _REMEDY)
    NO_KEY = ("contains neither a PEM key nor a JSON Web Key", _REMEDY)
    OTHER_TYPE = ("contains a key of an unsupported type", _REMEDY)
    PUBLIC = ("contains only a public key", _REMEDY)
    OTHER_USE = ("contains a key that is not for signing", _REMEDY)
    OTHER_CURVE = ("contains a key with an unsupported curve", _REMEDY)
    DAMAGED = ("contains a key that is corrupted or of an unsupported type", _REMEDY)
    ENCRYPTED = ("contains an encrypted key", "Specify a key without a passphrase, and set its file mode to 0600.")
    OTHER_CERTIFICATE = (
        "contains a certificate that is corrupted or does not match the key",
        "Put the key's own certificate in the same file in PEM format, or remove the certificate.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivateKey:
    """The private key with which an application signs its client assertions."""

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
    """Parse a private key in PEM (PKCS #8, PKCS #1, or SEC 1) or a single JWK.

    Source: RFC 7517 section 4; RFC 7518 sections 3.3 and 6; RFC 8725 section 3.5.

    Raises:
        ConfigurationError: The text is not a key; or the key is public, encrypted, or too weak, does not match the
            algorithm, or comes with another key's certificate.
    """
    if len(text.reveal()) > MAX_KEY_CHARACTERS:
        raise _unusable(source_name, "is too long to be a key")
    # Functions that see the text never raise, so that it cannot appear among a traceback's variables.
    found = _read_text(text.reveal().strip())
    if isinstance(found, _Problem):
        what, remedy = found.value
        raise _unusable(source_name, what, remedy=remedy)
    key = found.key
    if key.key_type == "RSA" and not MIN_RSA_BITS <= key.raw_value.key_size <= MAX_RSA_BITS:  # type: ignore[union-attr]
        raise _unusable(source_name, f"contains an RSA key that does not have {MIN_RSA_BITS} to {MAX_RSA_BITS} bits")
    chosen_id = key_id or found.key_id
    if chosen_id is not None and not (len(chosen_id) <= MAX_KEY_ID_CHARACTERS and chosen_id.isprintable()):
        raise _unusable(source_name, "has a key ID that is not a short line of text")
    return PrivateKey(
        key=key,
        algorithm=_choose_algorithm(key, algorithm or found.algorithm, source_name),
        key_id=chosen_id or None,
        certificate_thumbprint=found.certificate_thumbprint,
        audience=audience,
    )


def sign_jwt(key: PrivateKey, claims: Mapping[str, object]) -> Secret:
    """Return the claims as a signed JWT. Source: RFC 7515 sections 4.1.8 and 7.1; RFC 7519 section 7.1."""
    header: dict[str, object] = {"alg": key.algorithm, "typ": "JWT"}
    if key.key_id is not None:
        header["kid"] = key.key_id
    if key.certificate_thumbprint is not None:
        # Not also `x5t`, because that is SHA-1; Entra ID once required it but now documents this one.
        header["x5t#S256"] = key.certificate_thumbprint
    signing_input = b".".join(_encode(json.dumps(part).encode("ascii")) for part in (header, dict(claims)))
    # The library warns about the name EdDSA, which RFC 9864 replaces but providers still list; its signer doesn't.
    signature = _signers()[key.algorithm].sign(signing_input, key.key)
    return Secret((signing_input + b"." + _encode(signature)).decode("ascii"))


@dataclass(frozen=True, slots=True, kw_only=True)
class _KeyText:
    """The parsed contents of a key's text."""

    key: Key = field(repr=False)
    key_id: str | None = None
    algorithm: str | None = None
    certificate_thumbprint: str | None = None


def _read_text(text: str) -> _KeyText | _Problem:
    if text.startswith("{"):
        return _read_jwk(text)
    if "PRIVATE KEY-----" not in text:
        return _Problem.PUBLIC if "-----BEGIN" in text else _Problem.NO_KEY
    if "ENCRYPTED" in text:
        return _Problem.ENCRYPTED
    key = _import_pem(text)
    if key is None:
        return _Problem.DAMAGED
    if _CERTIFICATE not in text:
        return _KeyText(key=key)
    thumbprint = _thumbprint(text, key)
    return _KeyText(key=key, certificate_thumbprint=thumbprint) if thumbprint else _Problem.OTHER_CERTIFICATE


def _read_jwk(text: str) -> _KeyText | _Problem:  # noqa: PLR0911 - one line for each problem
    try:
        members = decode_strict_json(text)
    except JsonError:
        return _Problem.NOT_JSON
    if not isinstance(members, dict) or "kty" not in members:
        return _Problem.NO_KEY
    key_type, operations = members["kty"], members.get("key_ops", ["sign"])
    if not isinstance(key_type, str) or key_type not in _NUMBERS:
        return _Problem.OTHER_TYPE
    if "d" not in members:
        return _Problem.PUBLIC
    if members.get("use", "sig") != "sig" or not isinstance(operations, list) or "sign" not in operations:
        return _Problem.OTHER_USE
    if key_type != "RSA" and (key_type, members.get("crv")) not in list(_ALGORITHMS):
        return _Problem.OTHER_CURVE
    numbers = {name: members[name] for name in _NUMBERS[key_type] if name in members}
    key_id, algorithm = members.get("kid"), members.get("alg")
    if not isinstance(key_id, str | None) or not isinstance(algorithm, str | None):
        return _Problem.DAMAGED
    if not all(isinstance(number, str) for number in numbers.values()):
        return _Problem.DAMAGED
    try:
        key = key_classes()[key_type].import_key({"kty": key_type, **numbers})
    except Exception:  # noqa: BLE001 - the libraries' errors differ by kind of damage
        return _Problem.DAMAGED
    return _KeyText(key=key, key_id=key_id, algorithm=algorithm)


def _import_pem(text: str) -> Key | None:
    from joserfc.errors import JoseError

    for key_class in key_classes().values():
        try:
            return key_class.import_key(text)
        except JoseError:
            continue  # a key of another type
        except Exception:  # noqa: BLE001 - the libraries' errors differ by kind of damage
            return None
    return None


def _thumbprint(text: str, key: Key) -> str | None:
    """Return the thumbprint of the key's certificate, or None if it is missing or unreadable."""
    from cryptography import x509
    from cryptography.hazmat.primitives.hashes import SHA256

    try:
        public_key = key.public_key
        certificates = x509.load_pem_x509_certificates(text.encode("utf-8"))
        own = next(found for found in certificates if found.public_key() == public_key)
        return _encode(own.fingerprint(SHA256())).decode("ascii")
    except Exception:  # noqa: BLE001 - the library's errors differ by kind of damage
        return None


def _choose_algorithm(key: Key, wanted: str | None, source_name: str) -> str:
    curve = None if key.key_type == "RSA" else str(key["crv"])
    fitting = _ALGORITHMS.get((key.key_type, curve))
    if fitting is None:
        raise _unusable(source_name, _Problem.OTHER_CURVE.value[0])
    if wanted is not None and wanted not in fitting:
        raise _unusable(
            source_name, "does not match the selected signature algorithm", remedy=f"Choose {', '.join(fitting)}."
        )
    return wanted or fitting[0]


def _encode(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def _unusable(source_name: str, what: str, *, remedy: str = _REMEDY) -> ConfigurationError:
    return ConfigurationError(f"The file that {source_name} points to {what}.", key=source_name, remedy=remedy)


@cache
def _signers() -> Mapping[str, JWSAlgModel]:
    from joserfc.jwa import JWS_ALGORITHMS

    return {model.name: model for model in JWS_ALGORITHMS}
