"""An application's own private key: reading it, and signing JWTs with it."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, TypeAlias

from micromegas_jupyter.config.client import AssertionAudience
from micromegas_jupyter.core.json import JsonError, decode_strict_json
from micromegas_jupyter.core.protocols import Secret
from micromegas_jupyter.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from joserfc.jwa import JWSAlgModel
    from joserfc.jwk import ECKey, OKPKey, RSAKey

Key: TypeAlias = "RSAKey | ECKey | OKPKey"

_NUMBERS: Mapping[str, tuple[str, ...]] = {
    "RSA": ("n", "e", "d", "p", "q", "dp", "dq", "qi"),
    "EC": ("crv", "x", "y", "d"),
    "OKP": ("crv", "x", "d"),
}
_CURVES: Mapping[str, frozenset[object]] = {
    "EC": frozenset({"P-256", "P-384", "P-521"}),
    "OKP": frozenset({"Ed25519", "Ed448"}),
}
_CERTIFICATE = "-----BEGIN CERTIFICATE-----"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyProblem:
    """What is wrong with the text.

    Attributes:
        what: As it goes on after the source's name.
        remedy: What to do, where it is not the usual.
    """

    what: str
    remedy: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyMaterial:
    """What the text holds.

    Attributes:
        key: A private key of a type that can sign.
        key_id: Its `kid`, as a JWK has it.
        algorithm: Its `alg`, as a JWK has it.
        certificate_thumbprint: The SHA-256 thumbprint of its certificate, in base64url.
    """

    key: Key = field(repr=False)
    key_id: str | None = None
    algorithm: str | None = None
    certificate_thumbprint: str | None = None


def read_key_text(text: str) -> KeyMaterial | KeyProblem:
    """Return the key that the text holds, or what is wrong with it."""
    stripped = text.strip()
    return _read_jwk(stripped) if stripped.startswith("{") else _read_pem(stripped)


def _read_jwk(text: str) -> KeyMaterial | KeyProblem:
    try:
        members = decode_strict_json(text)
    except JsonError:
        return KeyProblem(what="is not valid JSON")
    if not isinstance(members, dict) or "kty" not in members:
        return KeyProblem(what="holds no JSON Web Key")
    unfit = _unfitness(members)
    if unfit is not None:
        return KeyProblem(what=unfit)
    key_type = str(members["kty"])
    numbers = {name: str(members[name]) for name in _NUMBERS[key_type] if name in members}
    try:
        key = _key_classes()[key_type].import_key({"kty": key_type, **numbers})
    except Exception:  # noqa: BLE001 - the libraries' errors differ by kind of damage
        return KeyProblem(what="holds a damaged key")
    key_id, algorithm = members.get("kid"), members.get("alg")
    return KeyMaterial(
        key=key,
        key_id=key_id if isinstance(key_id, str) else None,
        algorithm=algorithm if isinstance(algorithm, str) else None,
    )


def _unfitness(members: Mapping[str, object]) -> str | None:
    """Return why a JWK is no private key for signing; None when it looks like one. Source: RFC 7517 section 4."""
    key_type = members["kty"]
    if not isinstance(key_type, str) or key_type not in _NUMBERS:
        return "holds a key of a type that cannot sign here"
    if "d" not in members:
        return "holds a public key only"
    operations = members.get("key_ops", ["sign"])
    if members.get("use", "sig") != "sig" or not isinstance(operations, list) or "sign" not in operations:
        return "holds a key that is not for signing"
    if not all(isinstance(members[name], str) for name in _NUMBERS[key_type] if name in members and name != "crv"):
        return "holds a damaged key"
    curve = members.get("crv")
    if key_type in _CURVES and not (isinstance(curve, str) and curve in _CURVES[key_type]):
        return "holds a key on a curve that cannot sign here"
    odd = next((name for name in ("kid", "alg") if not isinstance(members.get(name), str | None)), None)
    return None if odd is None else f"holds a JSON Web Key whose {odd} is not text"


def _read_pem(text: str) -> KeyMaterial | KeyProblem:
    if "PRIVATE KEY-----" not in text:
        is_public = "-----BEGIN" in text
        return KeyProblem(what="holds a public key only" if is_public else "holds neither a PEM key nor a JSON Web Key")
    if "ENCRYPTED" in text:
        return KeyProblem(what="holds an encrypted key", remedy="Give the key without a passphrase, mode 0600.")
    key = _import_pem(text)
    if key is None:
        return KeyProblem(what="holds a damaged key, or one of a type that cannot sign here")
    if _CERTIFICATE not in text:
        return KeyMaterial(key=key)
    thumbprint = _thumbprint(text, key)
    if thumbprint is None:
        return KeyProblem(
            what="holds a certificate that is not the key's, or a damaged one",
            remedy="Put the key's own certificate beside it in PEM form, or none.",
        )
    return KeyMaterial(key=key, certificate_thumbprint=thumbprint)


def _import_pem(text: str) -> Key | None:
    from joserfc.errors import JoseError

    for key_class in _key_classes().values():
        try:
            return key_class.import_key(text)
        except JoseError:
            continue  # a key of another type
        except Exception:  # noqa: BLE001 - the libraries' errors differ by kind of damage
            return None
    return None


def _thumbprint(text: str, key: Key) -> str | None:
    """Return the thumbprint of the certificate that is the key's; None when there is none, or one cannot be read."""
    from cryptography import x509
    from cryptography.hazmat.primitives.hashes import SHA256

    try:
        public_key = key.public_key
        certificates = x509.load_pem_x509_certificates(text.encode("utf-8"))
        own = next(found for found in certificates if found.public_key() == public_key)
        return base64.urlsafe_b64encode(own.fingerprint(SHA256())).rstrip(b"=").decode("ascii")
    except Exception:  # noqa: BLE001 - the library's errors differ by kind of damage
        return None


@cache
def _key_classes() -> Mapping[str, type[Key]]:
    from joserfc.jwk import ECKey, OKPKey, RSAKey  # slow to load, and most programs have no key of their own

    return {"RSA": RSAKey, "EC": ECKey, "OKP": OKPKey}


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
