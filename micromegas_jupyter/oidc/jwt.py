"""JSON Web Tokens: their parts, their signatures and keys, and the required claims of ID and access tokens.

Ambiguous input is rejected. Each key is imported separately, so a bad key does not affect the others.
"""

import base64
import binascii
import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache, lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from micromegas_jupyter.core.protocols import ClaimValue, TokenKind
from micromegas_jupyter.core.system import Secret
from micromegas_jupyter.core.text import JsonError, decode_strict_json
from micromegas_jupyter.errors import ProviderMisbehaved

if TYPE_CHECKING:
    from joserfc.jwk import ECKey, OKPKey, RSAKey

MAX_TOKEN_BYTES = 16 * 1024
MAX_KEY_ID_CHARACTERS = 1024

_SEGMENTS = 3
# All tokens signed by one key have the same header, so recent headers are cached; longer ones are parsed each time.
_MAX_CACHED_HEADERS = 256
_MAX_CACHED_HEADER_CHARACTERS = 1024
# Maps base64url to base64, and characters that only base64 has to one that no decoder accepts.
_TO_BASE64 = bytes.maketrans(b"-_+/=", b"+/!!!")
# Keyed by the number of padding characters.
_LAST_CHARACTERS = {1: frozenset(b"AEIMQUYcgkosw048"), 2: frozenset(b"AQgw"), 3: frozenset(b"")}
_ACCEPTED_TYPES = frozenset({"jwt", "at+jwt", "application/at+jwt"})


class TokenProblem(ValueError):
    """The token is invalid."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class ParsedToken(msgspec.Struct, frozen=True, kw_only=True):
    """The parts of a compact JWS with a JSON object as payload; nothing in it is verified."""

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
        """The header's `kid`, or None if absent."""
        key_id = self.header.get("kid")
        return key_id if isinstance(key_id, str) else None


def parse_token(token: str) -> ParsedToken:
    """Split a compact JWS into its parts.

    Embedded keys and links to keys (`jwk`, `jku`, `x5c`, `x5u`) are kept but never used. Source: RFC 7515 sections 2,
    4 and 7.1; RFC 7519 section 7.2; RFC 8725 sections 3.7, 3.10, 3.11.

    Raises:
        TokenProblem: The token is too large, not ASCII, not three segments of canonical base64url, not UTF-8 JSON
            objects with unique names, or its header has a type, an extension or an `alg` that is not accepted.
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
    return ParsedToken(header=header, claims=claims, signing_input=signing_input, signature=signature)


def decode_base64url(segment: str) -> bytes:
    """Decode unpadded base64url in canonical form only. Source: RFC 7515 section 2; RFC 4648 section 3.5."""
    text = segment.encode("ascii", "replace").translate(_TO_BASE64)
    padding = -len(text) % 4
    # The decoder ignores trailing bits, which are zero only if the last character is one of these.
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
    # No extension is supported, so any critical one is rejected: RFC 7515 section 4.1.11, RFC 7797 section 7.
    if "crit" in header or "b64" in header:
        raise TokenProblem("critical_extension")
    kind = header.get("typ", "JWT")
    if not isinstance(kind, str) or kind.lower() not in _ACCEPTED_TYPES:
        raise TokenProblem("type_not_accepted")
    key_id = header.get("kid", "")
    if not isinstance(key_id, str) or len(key_id) > MAX_KEY_ID_CHARACTERS:
        raise TokenProblem("key_id_malformed")
    return MappingProxyType(header)  # shared by all tokens with this header


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
# 8192 bits are 1366 characters of base64url; longer text is rejected before it is converted to a number.
_MAX_NUMBER_CHARACTERS = 1366
MIN_RSA_BITS = 2048
MAX_RSA_BITS = 8192
_MIN_RSA_EXPONENT = 3
_MAX_RSA_EXPONENT_BITS = 64
_P25519 = 2**255 - 19
_P448 = 2**448 - 2**224 - 1
# The y of a point of order eight; the other such y has the opposite sign.
_Y_OF_ORDER_EIGHT = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
# By curve: the field's prime, and the y of all points whose order divides the cofactor (RFC 8032 section 5).
_SMALL_ORDERS: Mapping[str, tuple[int, frozenset[int]]] = {
    "Ed25519": (_P25519, frozenset({0, 1, _P25519 - 1, _Y_OF_ORDER_EIGHT, _P25519 - _Y_OF_ORDER_EIGHT})),
    "Ed448": (_P448, frozenset({0, 1, _P448 - 1})),
}
# A common typo for ES512 in published keys, for example in the Wycheproof set's RFC 7520 keys.
_ALGORITHM_SLIPS = {"ES521": "ES512"}


class _Unusable(ValueError):
    """A published key that is ignored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerificationKey:
    """A public key that may verify signatures."""

    key: Any
    key_id: str | None
    algorithm: str | None
    key_type: str
    curve: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySet:
    """A provider's usable keys."""

    keys: tuple[VerificationKey, ...]
    ignored_count: int = 0
    _by_id: dict[str | None, list[VerificationKey]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        by_id: dict[str | None, list[VerificationKey]] = defaultdict(list)
        for key in self.keys:
            by_id[key.key_id].append(key)
        object.__setattr__(self, "_by_id", dict(by_id))

    def candidates(self, key_id: str | None) -> Sequence[VerificationKey]:
        """Return the keys with that ID, or all keys for a token without a key ID."""
        return self.keys if key_id is None else self._by_id.get(key_id, ())


def parse_key_set(document: object, *, issuer: str | None = None, tenant: str | None = None) -> KeySet:
    """Import the keys of a JWK Set document, except those that cannot or must not verify signatures.

    It excludes keys that have private or symmetric parts, are of unknown type or curve, are for another use, or are
    malformed or weak (RSA below 2048 or above 8192 bits, or with an exponent that is even or out of range; an Edwards
    point of small order), and all after the first `MAX_KEYS`. Keys with the same ID are all kept. Source: RFC 7517
    sections 4 and 5; RFC 7518 sections 3.3 and 6; RFC 8725 section 3.5.

    A multitenant provider publishes the keys of all tenants in one set. With an `issuer`, keys with a different
    `issuer` member are excluded; a key may contain `{tenantid}` instead of `tenant`.

    Raises:
        ProviderMisbehaved: The document is not a JWK Set, or contains no keys.
    """
    listed = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(listed, list) or not listed:
        raise ProviderMisbehaved("The identity provider's key document does not contain a list of keys.")
    from joserfc.errors import JoseError

    usable: list[VerificationKey] = []
    for entry in listed[:MAX_KEYS]:
        try:
            usable.append(_import_key(entry, issuer, tenant))
        except (JoseError, ValueError, TypeError, KeyError):
            continue
    return KeySet(keys=tuple(usable), ignored_count=len(listed) - len(usable))


# The placeholder for the caller's tenant in the issuer of a multitenant provider's document or key.
TENANT_PLACEHOLDER = "{tenantid}"


def names_issuer(stated: object, *, issuer: str, tenant: str | None) -> bool:
    """Whether a document or key belongs to `issuer`, after the tenant is inserted, if any."""
    if not isinstance(stated, str):
        return False
    return issuer in {stated, stated if tenant is None else stated.replace(TENANT_PLACEHOLDER, tenant)}


def _import_key(entry: object, issuer: str | None, tenant: str | None) -> VerificationKey:
    if not isinstance(entry, dict):
        raise _Unusable("not an object")
    # Microsoft: "Validate the issuer of the signing key".
    if issuer is not None and not names_issuer(entry.get("issuer", issuer), issuer=issuer, tenant=tenant):
        raise _Unusable("key of a different issuer")
    if not _PRIVATE_PARTS.isdisjoint(entry):
        raise _Unusable("contains private or symmetric key material")
    operations = entry.get("key_ops", ["verify"])
    if entry.get("use", "sig") != "sig" or not isinstance(operations, list) or "verify" not in operations:
        raise _Unusable("for a different use")
    key_type = entry.get("kty")
    if not isinstance(key_type, str) or key_type not in _NUMBERS:
        raise _Unusable("unknown key type")
    curve = entry.get("crv") if key_type in _CURVES else None
    if curve is not None and curve not in _CURVES[key_type]:
        raise _Unusable("unknown curve")
    # Only the numbers are passed to the library. The other members are checked here, so that an odd but unused member
    # (such as a certificate's link) does not exclude the key.
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
        raise _Unusable("a member is not a string")
    return value


def _integer(text: str) -> int:
    return int.from_bytes(decode_base64url(text), "big")


def _check_rsa_strength(*, modulus: int, exponent: int) -> None:
    if not MIN_RSA_BITS <= modulus.bit_length() <= MAX_RSA_BITS or modulus % 2 == 0:
        raise _Unusable("modulus out of range")
    if exponent < _MIN_RSA_EXPONENT or exponent % 2 == 0 or exponent.bit_length() > _MAX_RSA_EXPONENT_BITS:
        raise _Unusable("exponent out of range")
    # Moduli that are vulnerable to CVE-2017-15361 (ROCA) are powers of 65537 modulo every small prime. For a random
    # modulus, the probability of this is below 2**-100.
    if all(modulus % prime in powers for prime, powers in _roca_residues().items()):
        raise _Unusable("modulus from a generator that is known to be weak")


@cache
def _roca_residues() -> dict[int, frozenset[int]]:
    primes = [number for number in range(3, 168) if all(number % smaller for smaller in range(2, number))]
    return {prime: frozenset(pow(65537, exponent, prime) for exponent in range(prime)) for prime in primes}


def _check_edwards_order(curve: str | None, encoded: bytes) -> None:
    """Reject a point of small order, such as an all-zero key, because anyone can forge signatures for such a key."""
    prime, small = _SMALL_ORDERS[str(curve)]
    # The topmost bit is the sign of x.
    without_sign = int.from_bytes(encoded, "little") & ((1 << (8 * len(encoded) - 1)) - 1)
    if without_sign % prime in small:
        raise _Unusable("point of small order")


@cache
def key_classes() -> "Mapping[str, type[RSAKey | ECKey | OKPKey]]":
    """Return the classes that parse keys, by type."""
    from joserfc.jwk import ECKey, OKPKey, RSAKey  # slow to load, and often not needed

    return {"RSA": RSAKey, "EC": ECKey, "OKP": OKPKey}


class UnknownKey(TokenProblem):
    """No key in the set produced the signature; a newer set from the same provider may contain the key."""


# By algorithm: the key type, and the signature's length in bytes for each of its curves. A signature of any other
# length has a second encoding (RFC 7518 section 3.4, RFC 8032 section 5.1).
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
    """Check that the algorithm is accepted; symmetric ones and `none` never are. Source: RFC 8725 section 3.1."""
    algorithm = parsed.algorithm
    if algorithm not in algorithms or algorithm not in _RULES:
        raise TokenProblem("algorithm_not_allowed")


def verify_signature(parsed: ParsedToken, keys: KeySet, *, algorithms: frozenset[str] = DEFAULT_ALGORITHMS) -> None:
    """Check that a key in the set produced the token's signature.

    With a `kid`, only keys with that ID are tried; otherwise up to `MAX_KEYS_TRIED` matching keys. A key matches if
    its type, its curve, and its own `alg` are those of the token's algorithm (RFC 8725 sections 3.1, 3.2).

    Raises:
        UnknownKey: No key has the token's `kid`, or the token has none and no key verifies it.
        TokenProblem: The algorithm is not accepted, the key with the token's `kid` does not match it, or the signature
            is wrong.
    """
    check_algorithm(parsed, algorithms)
    key_id, algorithm = parsed.key_id, parsed.algorithm
    key_type, signature_lengths = _RULES[algorithm]
    candidates = keys.candidates(key_id)
    tried = 0
    for key in candidates:
        fits = key.key_type == key_type and key.curve in signature_lengths and key.algorithm in {None, algorithm}
        if fits and tried < MAX_KEYS_TRIED:
            tried += 1
            if signature_lengths[key.curve] in {None, len(parsed.signature)} and _verifies(parsed, key, algorithm):
                return
    if key_id is None or not candidates:
        raise UnknownKey("unknown_key")
    raise TokenProblem("signature_wrong" if tried else "key_does_not_fit")


def _verifies(parsed: ParsedToken, key: VerificationKey, algorithm: str) -> bool:
    try:
        _verifier(algorithm)(key.key, parsed.signature, parsed.signing_input)
    except Exception:  # noqa: BLE001 - any error from hostile bytes means an invalid signature
        return False
    return True


@cache  # creating one takes as long as several checks
def _verifier(algorithm: str) -> Callable[[Any, bytes, bytes], None]:
    """Return a verifier that raises for invalid signatures. Source: RFC 7518 sections 3.3-3.5; RFC 8037 section 3.1."""
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


MAX_SUBJECT_CHARACTERS = 255
MAX_GROUPS = 256
# The claims that identify the application: OpenID Connect, RFC 9068, Entra ID 1.0, Okta.
CLIENT_CLAIMS = ("azp", "client_id", "appid", "cid")
# The default group claims; the third is Keycloak's, the last Cognito's.
GROUP_CLAIM_PATHS = (("groups",), ("roles",), ("realm_access", "roles"), ("cognito:groups",))

# Claim values with their types, because in Python `True == 1`.
TypedValues: TypeAlias = AbstractSet[tuple[type, ClaimValue]]

# The range of a datetime, as seconds since 1970: from the year 1 to the end of the year 9999.
_FIRST_SECOND = -62_135_596_800
_END_OF_TIME = 253_402_300_800
# Keycloak's `typ` claims and Cognito's `token_use` claims of tokens that are not bearer tokens.
_OTHER_USES = frozenset({"refresh", "offline", "logout"})
_ACCESS_TOKEN_TYPES = frozenset({"at+jwt", "application/at+jwt"})
# Cognito's `token_use` and Keycloak's `typ`.
_KINDS_BY_TOKEN_USE = {"access": TokenKind.ACCESS, "id": TokenKind.ID}
_KINDS_BY_TYPE_CLAIM = {"bearer": TokenKind.ACCESS, "id": TokenKind.ID}
LEEWAY_SECONDS = 60.0
CLOCK_REMEDY = "Check this machine's clock."

_MAX_SHOWN_CHARACTERS = 256

# The hash of each algorithm by its last three characters; Ed25519 uses SHA-512. OpenID Connect Core 1.0 section
# 3.1.3.6.
_HASHES = {"256": "sha256", "384": "sha384", "512": "sha512", "DSA": "sha512", "519": "sha512"}
# The symptoms of a wrong clock on this machine.
_CLOCK_REASONS = frozenset({"expired", "not_yet_valid", "issued_in_the_future"})
_ABSENT = object()


def check_audience(claims: Mapping[str, object], audiences: AbstractSet[str]) -> None:
    """Check that one of `audiences` is in the token's audience."""
    stated = claims.get("aud", _ABSENT)
    if isinstance(stated, str):
        if stated not in audiences:
            raise TokenProblem("audience_mismatch")
        return
    if stated is _ABSENT:
        raise TokenProblem("audience_missing")
    if not isinstance(stated, list) or not stated or not all(isinstance(audience, str) for audience in stated):
        raise TokenProblem("audience_malformed")
    if audiences.isdisjoint(stated):
        raise TokenProblem("audience_mismatch")


def check_times(
    claims: Mapping[str, object], now_seconds: float, *, leeway_seconds: float, is_issue_time_required: bool = False
) -> None:
    """Check that the token is valid now.

    `exp` is required; `nbf` and `iat` are optional. The leeway is applied once to each time, in the token's favor.
    Source: RFC 7519 sections 4.1.4 to 4.1.6.
    """
    if now_seconds >= _seconds(claims, "exp", "expiry") + leeway_seconds:
        raise TokenProblem("expired")
    latest_seconds = now_seconds + leeway_seconds
    if "nbf" in claims and latest_seconds < _seconds(claims, "nbf", "not_before"):
        raise TokenProblem("not_yet_valid")
    if (is_issue_time_required or "iat" in claims) and latest_seconds < _seconds(claims, "iat", "issued_at"):
        raise TokenProblem("issued_in_the_future")


def check_bearer_use(claims: Mapping[str, object]) -> None:
    """Check that the claims are those of a bearer token.

    The check rejects tokens bound to a key (`cnf`: RFC 7800), security events and logout tokens (`events`: RFC 8417),
    and refresh tokens in JWT form.
    """
    if "cnf" in claims:
        raise TokenProblem("sender_constrained")
    if "events" in claims:
        raise TokenProblem("not_a_bearer_token")
    for use in (claims.get("typ"), claims.get("token_use")):
        if isinstance(use, str) and use.lower() in _OTHER_USES:
            raise TokenProblem("not_a_bearer_token")


def check_required_claims(claims: Mapping[str, object], required: Iterable[tuple[str, TypedValues]]) -> None:
    """Check that each claim equals or, as a list, contains an allowed value of the same JSON type: `true` is not 1."""
    for name, accepted in required:
        stated = claims.get(name, _ABSENT)
        if stated is _ABSENT:
            raise TokenProblem("required_claim_missing")
        values = stated if isinstance(stated, list) else (stated,)
        if not any(isinstance(value, str | int) and (type(value), value) in accepted for value in values):
            raise TokenProblem("required_claim_mismatch")


def typed_values(values: Iterable[ClaimValue]) -> TypedValues:
    """Return the accepted values of a claim in the format for `check_required_claims`."""
    return frozenset((type(value), value) for value in values)


def check_client(claims: Mapping[str, object], client_ids: AbstractSet[str]) -> None:
    """Check that the token was issued to one of these applications, in any of the claims that identify one."""
    stated = [claims[name] for name in CLIENT_CLAIMS if name in claims]
    if not stated or not all(isinstance(client, str) and client in client_ids for client in stated):
        raise TokenProblem("client_not_allowed")


def kind_of(parsed: ParsedToken) -> TokenKind | None:
    """Return the token's kind, or None if it cannot be determined.

    No claim is common to all providers. The header's type takes precedence, then the claims that state the kind, then
    claims that only one kind has. Source: RFC 9068 section 2.1; OpenID Connect Core 1.0 sections 2 and 3.3.2.11.
    """
    claims = parsed.claims
    if _has_access_token_type(parsed.header):
        return TokenKind.ACCESS
    use, kind = claims.get("token_use"), claims.get("typ")
    stated = _KINDS_BY_TOKEN_USE.get(use) if isinstance(use, str) else None
    if stated is None and isinstance(kind, str):
        stated = _KINDS_BY_TYPE_CLAIM.get(kind.lower())
    if stated is not None:
        return stated
    if "at_hash" in claims or "c_hash" in claims:
        return TokenKind.ID
    if "scope" in claims or "scp" in claims:
        return TokenKind.ACCESS
    return TokenKind.ID if "nonce" in claims else None


def check_kind(parsed: ParsedToken, wanted: TokenKind) -> None:
    """Check that the token isn't of an unwanted kind; a token of unknown kind passes."""
    if wanted is TokenKind.EITHER:
        return
    kind = kind_of(parsed)
    if kind is TokenKind.ID and wanted is TokenKind.ACCESS:
        raise TokenProblem("id_token_as_access_token")
    if kind is TokenKind.ACCESS and wanted is TokenKind.ID:
        raise TokenProblem("access_token_as_id_token")


def check_rfc9068(parsed: ParsedToken) -> None:
    """Check the additional requirements of RFC 9068 (sections 2.1, 2.2, and 4) for access tokens."""
    if not _has_access_token_type(parsed.header):
        raise TokenProblem("type_not_at_jwt")
    _check_text(parsed.claims, "client_id", "client_id")
    _check_text(parsed.claims, "jti", "token_id")


def _check_text(claims: Mapping[str, object], name: str, reason: str) -> None:
    value = claims.get(name, _ABSENT)
    if not isinstance(value, str) or not value:
        raise TokenProblem(f"{reason}_missing" if value is _ABSENT else f"{reason}_malformed")


def _has_access_token_type(header: Mapping[str, object]) -> bool:
    kind = header.get("typ")
    return isinstance(kind, str) and kind.lower() in _ACCESS_TOKEN_TYPES


def read_subject(claims: Mapping[str, object], name: str = "sub") -> str:
    """Return the claim that identifies the caller: printable, not blank, with at most 255 characters."""
    value = claims.get(name, _ABSENT)
    if isinstance(value, str) and value.strip() and value.isprintable() and len(value) <= MAX_SUBJECT_CHARACTERS:
        return value
    raise TokenProblem("subject_missing" if value is _ABSENT else "subject_malformed")


def expiry_of(claims: Mapping[str, object]) -> datetime:
    """Return the token's expiry time as aware UTC."""
    return datetime.fromtimestamp(_seconds(claims, "exp", "expiry"), UTC)


def _seconds(claims: Mapping[str, object], name: str, reason: str) -> float:
    value = claims.get(name, _ABSENT)
    # Not `isinstance`: in Python, bool is a subclass of int, and `true` is not a time.
    if (type(value) is int or type(value) is float) and _FIRST_SECOND <= value < _END_OF_TIME:
        return value
    raise TokenProblem(f"{reason}_missing" if value is _ABSENT else f"{reason}_malformed")


def read_groups(claims: Mapping[str, object], paths: Iterable[tuple[str, ...]] = GROUP_CLAIM_PATHS) -> tuple[str, ...]:
    """Return the distinct group and role names in the claims at `paths`, at most `MAX_GROUPS`."""
    found: dict[str, None] = {}
    for path in paths:
        listed = claims.get(path[0])
        if listed is None:
            continue
        for name in path[1:]:
            listed = listed.get(name) if isinstance(listed, dict) else None
        if isinstance(listed, str):
            listed = [listed]
        if isinstance(listed, list) and all(isinstance(group, str) for group in listed):
            found.update(dict.fromkeys(listed))
    found.pop("", None)
    return tuple(found)[:MAX_GROUPS]


@dataclass(frozen=True, slots=True, kw_only=True)
class IdTokenClaims:
    """The claims of an ID token that this package uses; times are aware UTC, and names are for display."""

    issuer: str
    subject: str
    audiences: frozenset[str]
    issued_at: datetime
    expires_at: datetime
    name: str | None = None
    email: str | None = None
    nonce: Secret | None = field(default=None, repr=False)
    authorized_party: str | None = None
    groups: tuple[str, ...] = ()


def verify_id_token(  # noqa: PLR0913 - the values to check a token against
    token: Secret,
    keys: KeySet,
    *,
    issuer: str,
    client_id: str,
    now: datetime,
    nonce: Secret | None,
    access_token: Secret | None = None,
    algorithms: frozenset[str] = DEFAULT_ALGORITHMS,
) -> IdTokenClaims:
    """Verify an ID token from the token endpoint and return its claims.

    The client must be in the audience, and must be the authorized party if the token has one. `now` is the provider's
    time, as far as known. A refresh needs no `nonce`. An access token is checked against the ID token's `at_hash`.

    Source: OpenID Connect Core 1.0 sections 3.1.3.7 and 3.1.3.8.

    Raises:
        UnknownKey: The signing key is not in the set; a newer set may contain it.
        ProviderMisbehaved: Any check fails.
    """
    try:
        parsed = parse_token(token.reveal())
        verify_signature(parsed, keys, algorithms=algorithms)
        claims = _read_claims(parsed)
        check_audience(parsed.claims, {client_id})
        check_times(parsed.claims, now.timestamp(), leeway_seconds=LEEWAY_SECONDS)
        _check_sign_in(parsed, claims, issuer=issuer, client_id=client_id, access_token=access_token, nonce=nonce)
    except UnknownKey:
        raise
    except TokenProblem as problem:
        raise _misbehaved(problem) from None
    return claims


def read_stored_id_token(token: Secret, *, issuer: str, client_id: str) -> IdTokenClaims:
    """Return the claims of an ID token that was verified on receipt; only issuer and audience are checked again."""
    try:
        parsed = parse_token(token.reveal())
        claims = _read_claims(parsed)
    except TokenProblem as problem:
        raise _misbehaved(problem) from None
    if claims.issuer != issuer or client_id not in claims.audiences:
        raise _misbehaved(TokenProblem("another_sign_in"))
    return claims


def check_refreshed_claims(old: IdTokenClaims, new: IdTokenClaims) -> None:
    """Check that a refreshed ID token continues the same sign-in. Source: OpenID Connect Core 1.0 section 12.2."""
    same_person = (new.issuer, new.subject) == (old.issuer, old.subject)
    same_use = new.audiences >= old.audiences and new.authorized_party == old.authorized_party
    if not same_person or not same_use or (new.nonce is not None and new.nonce != old.nonce):
        raise ProviderMisbehaved(
            "The identity provider renewed the sign-in with a token for a different user or application."
        )
    if new.issued_at < old.issued_at:
        raise ProviderMisbehaved("The identity provider renewed the sign-in with an older token.")


def _read_claims(parsed: ParsedToken) -> IdTokenClaims:
    claims = parsed.claims
    audience = claims.get("aud")
    audiences = audience if isinstance(audience, list) else [audience]
    issuer = claims.get("iss")
    if not isinstance(issuer, str):
        raise TokenProblem("issuer_missing")
    nonce = _text(claims, "nonce")
    return IdTokenClaims(
        issuer=issuer,
        subject=read_subject(claims),
        audiences=frozenset(entry for entry in audiences if isinstance(entry, str)),
        issued_at=datetime.fromtimestamp(_seconds(claims, "iat", "issued_at"), UTC),
        expires_at=expiry_of(claims),
        name=shown_text(claims, "name") or shown_text(claims, "preferred_username"),
        email=shown_text(claims, "email"),
        nonce=None if nonce is None else Secret(nonce),
        authorized_party=_text(claims, "azp"),
        groups=shown_groups(claims),
    )


def shown_groups(claims: Mapping[str, object]) -> tuple[str, ...]:
    """Return the displayable names of groups and roles, truncated if long."""
    return tuple(group[:_MAX_SHOWN_CHARACTERS] for group in read_groups(claims) if group.isprintable())


def _text(claims: Mapping[str, object], name: str) -> str | None:
    value = claims.get(name)
    if value is not None and not isinstance(value, str):
        raise TokenProblem(f"{name}_malformed")
    return value


def shown_text(claims: Mapping[str, object], name: str) -> str | None:
    """Return a claim's text for display, truncated; an invalid value is omitted and doesn't fail the sign-in."""
    value = claims.get(name)
    return value[:_MAX_SHOWN_CHARACTERS] if isinstance(value, str) and value and value.isprintable() else None


def _check_sign_in(  # noqa: PLR0913 - the values to check a sign-in against
    parsed: ParsedToken,
    claims: IdTokenClaims,
    *,
    issuer: str,
    client_id: str,
    access_token: Secret | None,
    nonce: Secret | None,
) -> None:
    if claims.issuer != issuer:
        raise TokenProblem("issuer_mismatch")
    # An RFC 9068 access token must not pass for an ID token: RFC 8725 section 3.11.
    if str(parsed.header.get("typ", "JWT")).lower() != "jwt":
        raise TokenProblem("not_an_id_token")
    if claims.authorized_party is None and len(claims.audiences) > 1:
        raise TokenProblem("authorized_party_missing")
    if claims.authorized_party not in {None, client_id}:
        raise TokenProblem("authorized_party_mismatch")
    _check_access_token_hash(parsed, access_token)
    if nonce is not None and claims.nonce != nonce:
        raise TokenProblem("nonce_mismatch")


def _check_access_token_hash(parsed: ParsedToken, access_token: Secret | None) -> None:
    stated = parsed.claims.get("at_hash")
    if stated is None or access_token is None:
        return
    name = _HASHES.get(parsed.algorithm[-3:])
    if name is None:
        # A token whose hash cannot be checked is rejected: CVE-2026-28498.
        raise TokenProblem("access_token_hash_unknown")
    full = hashlib.new(name, access_token.reveal().encode("ascii")).digest()
    if stated != base64.urlsafe_b64encode(full[: len(full) // 2]).rstrip(b"=").decode("ascii"):
        raise TokenProblem("access_token_hash_mismatch")


def _misbehaved(problem: TokenProblem) -> ProviderMisbehaved:
    return ProviderMisbehaved(
        f"The identity provider's ID token is not acceptable ({problem.reason}).",
        remedy=CLOCK_REMEDY if problem.reason in _CLOCK_REASONS else None,
    )
