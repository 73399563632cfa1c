"""From the text of a signed token to its parts, refusing every form that has more than one reading.

Then to a signature that a published key verifies; each key is imported by itself, so that a bad one disables no other.
"""

import binascii
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import msgspec

from micromegas_jupyter.core.json import JsonError, decode_strict_json
from micromegas_jupyter.errors import ProviderMisbehaved
from micromegas_jupyter.oidc.discovery import names_issuer

if TYPE_CHECKING:
    from joserfc.jwk import ECKey, OKPKey, RSAKey

MAX_TOKEN_BYTES = 16 * 1024
MAX_KEY_ID_CHARACTERS = 1024

_SEGMENTS = 3
# All tokens of one key have the same header, so the last ones are cached; a longer header is read anew each time.
_MAX_CACHED_HEADERS = 256
_MAX_CACHED_HEADER_CHARACTERS = 1024
# From base64url to base64, and what only base64 has to a character that no reader accepts.
_TO_BASE64 = bytes.maketrans(b"-_+/=", b"+/!!!")
# By the number of padding characters.
_LAST_CHARACTERS = {1: frozenset(b"AEIMQUYcgkosw048"), 2: frozenset(b"AQgw"), 3: frozenset(b"")}
_ACCEPTED_TYPES = frozenset({"jwt", "at+jwt", "application/at+jwt"})


class TokenProblem(ValueError):
    """A token that is not acceptable."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class ParsedToken(msgspec.Struct, frozen=True, kw_only=True):
    """The parts of a compact JWS whose payload is a JSON object; nothing in it is verified."""

    header: Mapping[str, object]
    claims: Mapping[str, object]
    signing_input: bytes
    signature: bytes

    def __repr__(self) -> str:
        return "ParsedToken()"

    @property
    def algorithm(self) -> str:
        """The header's `alg`."""
        return str(self.header["alg"])

    @property
    def key_id(self) -> str | None:
        """The header's `kid`, None when absent."""
        key_id = self.header.get("kid")
        return key_id if isinstance(key_id, str) else None


def parse_token(token: str) -> ParsedToken:
    """Take a compact JWS apart.

    Embedded keys and links to keys (`jwk`, `jku`, `x5c`, `x5u`) are carried along unread: nothing here or later
    uses them. Source: RFC 7515 sections 2, 4 and 7.1; RFC 7519 section 7.2; RFC 8725 sections 3.7, 3.10, 3.11.

    Raises:
        TokenProblem: It is too large, not ASCII, not three segments of canonical base64url, not UTF-8 JSON objects
            with unique names, or its header has a type, an extension or an `alg` that is not accepted.
    """
    if len(token) > MAX_TOKEN_BYTES:
        raise TokenProblem("token_too_large")
    if not token:
        raise TokenProblem("token_empty")
    if not token.isascii():
        raise TokenProblem("token_not_ascii")
    segments = token.split(".")
    if len(segments) != _SEGMENTS:
        raise TokenProblem("not_three_segments")
    header_text, claims_text, signature_text = segments
    is_cached = len(header_text) <= _MAX_CACHED_HEADER_CHARACTERS
    header = _cached_header(header_text) if is_cached else _read_header(header_text)
    claims = _decode_object(claims_text, "claims_malformed")
    signature = decode_base64url(signature_text)
    if not signature:
        raise TokenProblem("signature_missing")
    signing_input = token[: -len(signature_text) - 1].encode("ascii")
    return ParsedToken(header=header, claims=MappingProxyType(claims), signing_input=signing_input, signature=signature)


def decode_base64url(segment: str) -> bytes:
    """Decode unpadded base64url that is written in the one canonical way.

    Source: RFC 7515 section 2; RFC 4648 section 3.5 on trailing bits.
    """
    text = segment.encode("ascii", "replace").translate(_TO_BASE64)
    padding = -len(text) % 4
    # The decoder ignores trailing bits; they are zero when the last character is one of these.
    if padding and text[-1] not in _LAST_CHARACTERS[padding]:
        raise TokenProblem("not_base64url")
    try:
        return binascii.a2b_base64(text + b"==="[:padding], strict_mode=True)
    except binascii.Error:
        raise TokenProblem("not_base64url") from None


def _read_header(segment: str) -> Mapping[str, object]:
    header = _decode_object(segment, "header_malformed")
    if not isinstance(header.get("alg"), str):
        raise TokenProblem("algorithm_missing")
    # No extension is understood here, so any critical one is a refusal: RFC 7515 section 4.1.11, RFC 7797 section 7.
    if "crit" in header or "b64" in header:
        raise TokenProblem("critical_extension")
    kind = header.get("typ", "JWT")
    if not isinstance(kind, str) or kind.lower() not in _ACCEPTED_TYPES:
        raise TokenProblem("type_not_accepted")
    key_id = header.get("kid", "")
    if not isinstance(key_id, str) or len(key_id) > MAX_KEY_ID_CHARACTERS:
        raise TokenProblem("key_id_malformed")
    return MappingProxyType(header)  # shared by all tokens that have it


_cached_header = lru_cache(maxsize=_MAX_CACHED_HEADERS)(_read_header)


def _decode_object(segment: str, reason: str) -> dict[str, object]:
    try:
        value = decode_strict_json(decode_base64url(segment).decode("utf-8"))
    except (UnicodeDecodeError, JsonError):
        raise TokenProblem(reason) from None
    if not isinstance(value, dict):
        raise TokenProblem(reason)
    return value


MAX_KEYS = 1000
MAX_KEYS_TRIED = 10

_NUMBERS: Mapping[str, tuple[str, ...]] = {"RSA": ("n", "e"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x")}
_CURVES: Mapping[str, frozenset[str]] = {
    "EC": frozenset({"P-256", "P-384", "P-521"}),
    "OKP": frozenset({"Ed25519", "Ed448"}),
}
_PRIVATE_PARTS = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
# 8192 bits in base64url are 1366 characters; longer text is refused before it becomes a number.
_MAX_NUMBER_CHARACTERS = 1366
MIN_RSA_BITS = 2048
MAX_RSA_BITS = 8192
_MIN_RSA_EXPONENT = 3
_MAX_RSA_EXPONENT_BITS = 64
_P25519 = 2**255 - 19
_P448 = 2**448 - 2**224 - 1
# The y of a point whose double's double's double is the neutral element; the other has the opposite sign.
_Y_OF_ORDER_EIGHT = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
# By curve: the field's prime, and the y of all points whose order divides the cofactor (RFC 8032 section 5).
_SMALL_ORDERS: Mapping[str, tuple[int, frozenset[int]]] = {
    "Ed25519": (_P25519, frozenset({0, 1, _P25519 - 1, _Y_OF_ORDER_EIGHT, _P25519 - _Y_OF_ORDER_EIGHT})),
    "Ed448": (_P448, frozenset({0, 1, _P448 - 1})),
}
# A common slip for ES512 in published keys, the Wycheproof set's RFC 7520 keys among them.
_ALGORITHM_SLIPS = {"ES521": "ES512"}


class _Unusable(ValueError):
    """One published key that is ignored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerificationKey:
    """One public key that may verify signatures."""

    key: Any
    key_id: str | None
    algorithm: str | None
    key_type: str
    curve: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySet:
    """The usable keys of one provider."""

    keys: tuple[VerificationKey, ...]
    ignored_count: int = 0
    _by_id: dict[str | None, list[VerificationKey]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        by_id: dict[str | None, list[VerificationKey]] = defaultdict(list)
        for key in self.keys:
            by_id[key.key_id].append(key)
        object.__setattr__(self, "_by_id", dict(by_id))

    def candidates(self, key_id: str | None) -> Sequence[VerificationKey]:
        """Return the keys of that name; all keys for a token that names none."""
        return self.keys if key_id is None else self._by_id.get(key_id, ())


def parse_key_set(document: object, *, issuer: str | None = None, tenant: str | None = None) -> KeySet:
    """Import the keys of a JWK Set document, leaving out those that cannot or must not verify signatures.

    Left out are keys with private or symmetric parts, of unknown type or curve, for another use, malformed, weak
    (RSA below 2048 or above 8192 bits, or with an exponent that is even or out of range; an Edwards point of small
    order), and all after the first `MAX_KEYS`. Several keys of one name are all kept. Source: RFC 7517 sections 4 and
    5; RFC 7518 sections 3.3 and 6; RFC 8725 section 3.5.

    A provider with many tenants publishes the keys of all of them in one set: with an `issuer`, keys whose `issuer`
    member names another one are left out; a key may say `{tenantid}` in place of `tenant`.

    Raises:
        ProviderMisbehaved: The document is not a JWK Set, or holds no key at all.
    """
    listed = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(listed, list) or not listed:
        raise ProviderMisbehaved("The identity provider's key document holds no list of keys.")
    from joserfc.errors import JoseError

    usable: list[VerificationKey] = []
    for entry in listed[:MAX_KEYS]:
        try:
            usable.append(_import_key(entry, issuer, tenant))
        except (JoseError, ValueError, TypeError, KeyError):
            continue
    return KeySet(keys=tuple(usable), ignored_count=len(listed) - len(usable))


def _import_key(entry: object, issuer: str | None, tenant: str | None) -> VerificationKey:
    if not isinstance(entry, dict):
        raise _Unusable("not an object")
    # Microsoft: "Validate the issuer of the signing key".
    if issuer is not None and not names_issuer(entry.get("issuer", issuer), issuer=issuer, tenant=tenant):
        raise _Unusable("another issuer's key")
    if not _PRIVATE_PARTS.isdisjoint(entry):
        raise _Unusable("holds private or symmetric parts")
    operations = entry.get("key_ops", ["verify"])
    if entry.get("use", "sig") != "sig" or not isinstance(operations, list) or "verify" not in operations:
        raise _Unusable("for another use")
    key_type = entry.get("kty")
    if not isinstance(key_type, str) or key_type not in _NUMBERS:
        raise _Unusable("unknown key type")
    curve = entry.get("crv") if key_type in _CURVES else None
    if curve is not None and curve not in _CURVES[key_type]:
        raise _Unusable("unknown curve")
    # Only the numbers go to the library: the other members are checked here, and one odd member that nobody needs
    # (a certificate's link, say) must not cost the key.
    numbers = {name: _number(entry, name) for name in _NUMBERS[key_type]}
    if key_type == "RSA":
        _check_rsa_strength(modulus=_integer(numbers["n"]), exponent=_integer(numbers["e"]))
    elif key_type == "OKP":
        _check_edwards_order(curve, decode_base64url(numbers["x"]))
    algorithm = _text_or_none(entry, "alg")
    return VerificationKey(
        key=key_classes()[key_type].import_key({"kty": key_type, **numbers}).public_key,
        key_id=_text_or_none(entry, "kid"),
        algorithm=None if algorithm is None else _ALGORITHM_SLIPS.get(algorithm, algorithm),
        key_type=key_type,
        curve=curve,
    )


def _number(entry: Mapping[str, object], name: str) -> str:
    value = entry.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= _MAX_NUMBER_CHARACTERS:
        raise _Unusable("a number is missing or too long")
    return value


def _text_or_none(entry: Mapping[str, object], name: str) -> str | None:
    value = entry.get(name)
    if value is not None and not isinstance(value, str):
        raise _Unusable("a member is not text")
    return value


def _integer(text: str) -> int:
    return int.from_bytes(decode_base64url(text), "big")


def _check_rsa_strength(*, modulus: int, exponent: int) -> None:
    if not MIN_RSA_BITS <= modulus.bit_length() <= MAX_RSA_BITS or modulus % 2 == 0:
        raise _Unusable("a modulus out of range")
    if exponent < _MIN_RSA_EXPONENT or exponent % 2 == 0 or exponent.bit_length() > _MAX_RSA_EXPONENT_BITS:
        raise _Unusable("an exponent out of range")
    # Moduli that CVE-2017-15361 (ROCA) factors are powers of 65537 modulo every small prime; a random one is so with
    # a chance below 2**-100.
    if all(modulus % prime in powers for prime, powers in _roca_residues().items()):
        raise _Unusable("a modulus from a generator that is known to be broken")


@cache
def _roca_residues() -> dict[int, frozenset[int]]:
    primes = [number for number in range(3, 168) if all(number % smaller for smaller in range(2, number))]
    return {prime: frozenset(pow(65537, exponent, prime) for exponent in range(prime)) for prime in primes}


def _check_edwards_order(curve: str | None, encoded: bytes) -> None:
    """Refuse a point of small order, an empty key's zeros among them: anybody can write signatures for such a key."""
    prime, small = _SMALL_ORDERS[str(curve)]
    # The topmost bit is the sign of x.
    without_sign = int.from_bytes(encoded, "little") & ((1 << (8 * len(encoded) - 1)) - 1)
    if without_sign % prime in small:
        raise _Unusable("a point of small order")


@cache
def key_classes() -> "Mapping[str, type[RSAKey | ECKey | OKPKey]]":
    """Return the classes that read keys, by type."""
    from joserfc.jwk import ECKey, OKPKey, RSAKey  # slow to load, and not needed where no key is

    return {"RSA": RSAKey, "EC": ECKey, "OKP": OKPKey}


class UnknownKey(TokenProblem):
    """No key of the set can have made the signature; a newer set of the same provider might hold it."""


# By algorithm: the key's type, and for each of its curves the signature's bytes; a signature of any other length has a
# second encoding (RFC 7518 section 3.4, RFC 8032 section 5.1).
_RULES: Mapping[str, tuple[str, Mapping[str | None, int | None]]] = {
    **dict.fromkeys(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), ("RSA", {None: None})),
    "ES256": ("EC", {"P-256": 64}),
    "ES384": ("EC", {"P-384": 96}),
    "ES512": ("EC", {"P-521": 132}),
    "EdDSA": ("OKP", {"Ed25519": 64, "Ed448": 114}),
    "Ed25519": ("OKP", {"Ed25519": 64}),
}
DEFAULT_ALGORITHMS = frozenset(_RULES)


def check_algorithm(parsed: ParsedToken, algorithms: frozenset[str]) -> None:
    """Check that the token's algorithm is one that is accepted.

    Source: RFC 8725 section 3.1. Symmetric algorithms and `none` are never accepted, whatever `algorithms` holds.
    """
    algorithm = parsed.algorithm
    if algorithm not in algorithms or algorithm not in _RULES:
        raise TokenProblem("algorithm_not_allowed")


def verify_signature(parsed: ParsedToken, keys: KeySet, *, algorithms: frozenset[str] = DEFAULT_ALGORITHMS) -> None:
    """Check that a key of the set made the token's signature.

    With a `kid` only keys of that name count; without one, at most `MAX_KEYS_TRIED` keys that fit are tried. A key
    fits when its type, its curve and its own `alg` are those of the token's algorithm (RFC 8725 sections 3.1, 3.2).

    Raises:
        UnknownKey: No key has the token's `kid`, or the token has none and no key verifies it.
        TokenProblem: The algorithm is not accepted, the named key does not fit it, or the signature is wrong.
    """
    check_algorithm(parsed, algorithms)
    key_id, algorithm = parsed.key_id, parsed.algorithm
    candidates = keys.candidates(key_id)
    tried = 0
    for key in candidates:
        if _fits(key, algorithm) and tried < MAX_KEYS_TRIED:
            tried += 1
            if _verifies(parsed, key, algorithm):
                return
    if key_id is None or not candidates:
        raise UnknownKey("unknown_key")
    raise TokenProblem("signature_wrong" if tried else "key_does_not_fit")


def _fits(key: VerificationKey, algorithm: str) -> bool:
    key_type, signature_bytes = _RULES[algorithm]
    return key.key_type == key_type and key.curve in signature_bytes and key.algorithm in {None, algorithm}


def _verifies(parsed: ParsedToken, key: VerificationKey, algorithm: str) -> bool:
    if _RULES[algorithm][1][key.curve] not in {None, len(parsed.signature)}:
        return False
    try:
        _verifier(algorithm)(key.key, parsed.signature, parsed.signing_input)
    except Exception:  # noqa: BLE001 - whatever the library makes of hostile bytes, the signature does not verify
        return False
    return True


@cache
def _verifier(algorithm: str) -> Callable[[Any, bytes, bytes], None]:
    """Return what raises when a key did not make a signature; made once, since that costs as much as some checks.

    Source: RFC 7518 sections 3.3 to 3.5; RFC 8037 section 3.1.
    """
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, padding
    from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

    if algorithm.startswith("Ed"):
        return lambda key, signature, data: key.verify(signature, data)
    digest = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}[algorithm[2:]]
    if algorithm.startswith("ES"):
        ecdsa = ec.ECDSA(digest)

        def verify(key: Any, signature: bytes, data: bytes) -> None:
            half = len(signature) // 2
            r, s = int.from_bytes(signature[:half], "big"), int.from_bytes(signature[half:], "big")
            key.verify(encode_dss_signature(r, s), data, ecdsa)

        return verify
    pss = padding.PSS(mgf=padding.MGF1(digest), salt_length=digest.digest_size)
    scheme = padding.PKCS1v15() if algorithm.startswith("RS") else pss
    return lambda key, signature, data: key.verify(signature, data, scheme, digest)
