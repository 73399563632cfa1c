"""From the text of a signed token to its parts, refusing every form that has more than one reading.

Nothing is believed yet: `keys` checks signatures, `claims` what the token says.
"""

import binascii
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType

import msgspec

from micromegas_jupyter.core.json import JsonError, decode_strict_json

MAX_TOKEN_BYTES = 16 * 1024
MAX_KEY_ID_CHARACTERS = 1024

_SEGMENTS = 3
# All tokens of one key have the same header, so the last ones are cached; a longer header is read anew each time.
_MAX_CACHED_HEADERS = 256
_MAX_CACHED_HEADER_CHARACTERS = 1024
# From base64url to base64, and what only base64 has to a character that no reader accepts.
_TO_BASE64 = bytes.maketrans(b"-_+/=", b"+/!!!")
_ACCEPTED_TYPES = frozenset({"jwt", "at+jwt", "application/at+jwt"})


class TokenProblem(ValueError):
    """A token that is not acceptable.

    Attributes:
        reason: A fixed snake_case word that says why; safe to log, holds nothing of the token.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class ParsedToken(msgspec.Struct, frozen=True, kw_only=True):
    """The parts of a compact JWS whose payload is a JSON object; nothing in it is verified.

    Attributes:
        header: The protected header; `alg` is a string in it, and `kid` is one when present.
        claims: The payload.
        signing_input: What the signature covers.
        signature: The decoded signature.
    """

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

    Raises:
        TokenProblem: Padding, a foreign character, an impossible length, or trailing bits that are not zero.
    """
    text = segment.encode("ascii", "replace").translate(_TO_BASE64)
    padding = -len(text) % 4
    try:
        decoded = binascii.a2b_base64(text + b"==="[:padding])
    except binascii.Error:
        raise TokenProblem("not_base64url") from None
    # The decoder skips foreign characters and ignores trailing bits; writing the result again shows both.
    written = binascii.b2a_base64(decoded, newline=False)
    if len(written) - padding != len(text) or not written.startswith(text):
        raise TokenProblem("not_base64url")
    return decoded


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
