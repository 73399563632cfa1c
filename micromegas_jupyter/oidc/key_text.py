"""Reads the text of a private key, in PEM or as a JWK, and the certificate that may stand beside it.

Nothing here raises, so that no traceback has the key's text among its variables: what is wrong with it is said by a
value. Whether the key is good enough, and what it is used for, is `private_key`'s.
"""

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, TypeAlias

from micromegas_jupyter.core.json import JsonError, decode_strict_json

if TYPE_CHECKING:
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


def _import_pem(text: str) -> "Key | None":
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
