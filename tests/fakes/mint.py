"""One mint makes valid tokens; each test changes one thing. Signs with `cryptography` directly, not with joserfc."""

import base64
import functools
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

ISSUER = "https://id.example.com"
AUDIENCE = "lake"
NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
NOW_SECONDS = 1_795_521_600

_HASHES = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}
_CURVES = {"P-256": (ec.SECP256R1(), 32), "P-384": (ec.SECP384R1(), 48), "P-521": (ec.SECP521R1(), 66)}
PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningKey:
    """A private key, the algorithm that it signs with, and its name."""

    private: PrivateKey
    algorithm: str
    kid: str

    def jwk(self, **changes):
        members = {"kid": self.kid, "use": "sig", "alg": self.algorithm, **_public_members(self.private), **changes}
        return {name: value for name, value in members.items() if value is not None}

    def sign(self, message, algorithm=None):
        name = algorithm or self.algorithm
        if isinstance(self.private, rsa.RSAPrivateKey):
            digest = _HASHES[name[2:]]
            scheme = (
                padding.PSS(mgf=padding.MGF1(digest), salt_length=digest.digest_size)
                if name.startswith("PS")
                else padding.PKCS1v15()
            )
            return self.private.sign(message, scheme, digest)
        if isinstance(self.private, ec.EllipticCurvePrivateKey):
            width = (self.private.key_size + 7) // 8
            first, second = decode_dss_signature(self.private.sign(message, ec.ECDSA(_HASHES[name[2:]])))
            return first.to_bytes(width, "big") + second.to_bytes(width, "big")
        return self.private.sign(message)


def _public_members(private):
    if isinstance(private, rsa.RSAPrivateKey):
        numbers = private.public_key().public_numbers()
        return {"kty": "RSA", "n": encode_number(numbers.n), "e": encode_number(numbers.e)}
    if isinstance(private, ec.EllipticCurvePrivateKey):
        point = private.public_key().public_numbers()
        curve, width = next((name, width) for name, (kind, width) in _CURVES.items() if kind.name == private.curve.name)
        return {"kty": "EC", "crv": curve, "x": encode_number(point.x, width), "y": encode_number(point.y, width)}
    curve = "Ed25519" if isinstance(private, ed25519.Ed25519PrivateKey) else "Ed448"
    return {"kty": "OKP", "crv": curve, "x": encode(private.public_key().public_bytes_raw())}


# Finding primes takes a tenth of a second for each key, in each process.
_RSA_PRIMES = iter(Path(__file__).with_name("rsa_primes.txt").read_text(encoding="ascii").splitlines())


@functools.cache
def rsa_key(kid="rsa", algorithm="RS256", bits=2048):
    return SigningKey(private=_new_rsa_key(bits), algorithm=algorithm, kid=kid)


def _new_rsa_key(bits):
    primes = next(_RSA_PRIMES, None) if bits == 2048 else None
    if primes is None:
        return rsa.generate_private_key(public_exponent=65537, key_size=bits)
    p, q = (int(prime, 16) for prime in primes.split())
    d = pow(65537, -1, (p - 1) * (q - 1))
    numbers = rsa.RSAPrivateNumbers(
        p, q, d, rsa.rsa_crt_dmp1(d, p), rsa.rsa_crt_dmq1(d, q), rsa.rsa_crt_iqmp(p, q),
        rsa.RSAPublicNumbers(65537, p * q),
    )  # fmt: skip
    return numbers.private_key(unsafe_skip_rsa_key_validation=True)


@functools.cache
def ec_key(kid="ec", curve="P-256"):
    algorithm = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512"}[curve]
    return SigningKey(private=ec.generate_private_key(_CURVES[curve][0]), algorithm=algorithm, kid=kid)


@functools.cache
def ed25519_key(kid="ed"):
    return SigningKey(private=ed25519.Ed25519PrivateKey.generate(), algorithm="EdDSA", kid=kid)


@functools.cache
def ed448_key(kid="ed448"):
    return SigningKey(private=ed448.Ed448PrivateKey.generate(), algorithm="EdDSA", kid=kid)


def encode(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def encode_number(number, width=None):
    return encode(number.to_bytes(width or (number.bit_length() + 7) // 8, "big"))


def encode_json(value):
    return encode(json.dumps(value, separators=(",", ":")).encode())


def mint(
    *, key=None, issuer=ISSUER, audience=AUDIENCE, subject="alice", expires_in=300, header=None, without=(), **claims
):
    """Make a token that is valid at `NOW` unless an argument says otherwise."""
    standard = {"iss": issuer, "aud": audience, "sub": subject, "exp": NOW_SECONDS + expires_in, "iat": NOW_SECONDS}
    payload = {name: value for name, value in {**standard, **claims}.items() if name not in without}
    return mint_raw(json.dumps(payload).encode(), key=key, header=header)


def mint_raw(payload, *, key=None, header=None, header_bytes=None):
    signer = key or rsa_key()
    members = {"alg": signer.algorithm, "kid": signer.kid, "typ": "JWT", **(header or {})}
    kept = {name: value for name, value in members.items() if value is not None}
    head = encode(json.dumps(kept).encode() if header_bytes is None else header_bytes)
    body = encode(payload)
    return f"{head}.{body}.{encode(signer.sign(f'{head}.{body}'.encode()))}"


def forge(change, **arguments):
    header, payload, signature = mint(**arguments).split(".")
    return ".".join(change(header, payload, signature))
