"""The rules for a token's claims; each `check_` function raises `TokenProblem` with the reason."""

import base64
import hashlib
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TypeAlias

from micromegas_jupyter.core.protocols import ClaimValue, TokenKind
from micromegas_jupyter.core.system import Secret
from micromegas_jupyter.errors import ProviderMisbehaved
from micromegas_jupyter.oidc.jws import (
    DEFAULT_ALGORITHMS,
    KeySet,
    ParsedToken,
    TokenProblem,
    UnknownKey,
    parse_token,
    verify_signature,
)

MAX_SUBJECT_CHARACTERS = 255
MAX_GROUPS = 256
# Where providers name the application: OpenID Connect, RFC 9068, Entra ID 1.0, Okta.
CLIENT_CLAIMS = ("azp", "client_id", "appid", "cid")
# Where groups are unless somebody says otherwise; the third is Keycloak's, the last Cognito's.
GROUP_CLAIM_PATHS = (("groups",), ("roles",), ("realm_access", "roles"), ("cognito:groups",))

# Values of claims together with their types, because in Python `True == 1`.
TypedValues: TypeAlias = AbstractSet[tuple[type, ClaimValue]]

# The times that a datetime can hold, as seconds since 1970: the year 1 to the end of the year 9999.
_FIRST_SECOND = -62_135_596_800
_END_OF_TIME = 253_402_300_800
# `typ` claims of Keycloak and `token_use` claims of Cognito for tokens that do not bear calls.
_OTHER_USES = frozenset({"refresh", "offline", "logout"})
_ACCESS_TOKEN_TYPES = frozenset({"at+jwt", "application/at+jwt"})
# `token_use` of Cognito and `typ` of Keycloak.
_KINDS_BY_TOKEN_USE = {"access": TokenKind.ACCESS, "id": TokenKind.ID}
_KINDS_BY_TYPE_CLAIM = {"bearer": TokenKind.ACCESS, "id": TokenKind.ID}
LEEWAY_SECONDS = 60.0
CLOCK_REMEDY = "Check the clock of this machine."

_MAX_SHOWN_CHARACTERS = 256

# The hash of each algorithm by its last three characters; Ed25519 has SHA-512 inside. OpenID Connect Core 1.0 section
# 3.1.3.6.
_HASHES = {"256": "sha256", "384": "sha384", "512": "sha512", "DSA": "sha512", "519": "sha512"}
# What a token looks like to a machine whose clock is wrong.
_CLOCK_REASONS = frozenset({"expired", "not_yet_valid", "issued_in_the_future"})
_ABSENT = object()


def check_audience(claims: Mapping[str, object], audiences: AbstractSet[str]) -> None:
    """Check that the token is for one of `audiences`."""
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

    `exp` is required; `nbf` and `iat` count when present. The leeway is applied once to each time, in the token's
    favor. Source: RFC 7519 sections 4.1.4 to 4.1.6.
    """
    if now_seconds >= _seconds(claims, "exp", "expiry") + leeway_seconds:
        raise TokenProblem("expired")
    latest_seconds = now_seconds + leeway_seconds
    if "nbf" in claims and latest_seconds < _seconds(claims, "nbf", "not_before"):
        raise TokenProblem("not_yet_valid")
    if (is_issue_time_required or "iat" in claims) and latest_seconds < _seconds(claims, "iat", "issued_at"):
        raise TokenProblem("issued_in_the_future")


def check_bearer_use(claims: Mapping[str, object]) -> None:
    """Check that the claims are not those of a token made for something other than bearing calls.

    Refused are tokens bound to a key that the bearer would have to prove (`cnf`: RFC 7800), security events and
    logout tokens (`events`: RFC 8417), and refresh tokens in JWT form.
    """
    if "cnf" in claims:
        raise TokenProblem("sender_constrained")
    uses = (claims.get("typ"), claims.get("token_use"))
    if "events" in claims or any(isinstance(use, str) and use.lower() in _OTHER_USES for use in uses):
        raise TokenProblem("not_a_bearer_token")


def check_required_claims(claims: Mapping[str, object], required: Iterable[tuple[str, TypedValues]]) -> None:
    """Check that each claim has one of its values or, as a list, holds one.

    Value and JSON type must both be the same: `true` is not 1, and "1" is not 1.
    """
    for name, accepted in required:
        stated = claims.get(name, _ABSENT)
        if stated is _ABSENT:
            raise TokenProblem("required_claim_missing")
        values = stated if isinstance(stated, list) else (stated,)
        if not any(isinstance(value, str | int) and (type(value), value) in accepted for value in values):
            raise TokenProblem("required_claim_mismatch")


def typed_values(values: Iterable[ClaimValue]) -> TypedValues:
    """Return the accepted values of a claim as `check_required_claims` takes them."""
    return frozenset((type(value), value) for value in values)


def check_client(claims: Mapping[str, object], client_ids: AbstractSet[str]) -> None:
    """Check that the token was made for one of these applications, whichever claims name it."""
    stated = [claims[name] for name in CLIENT_CLAIMS if name in claims]
    if not stated or not all(isinstance(client, str) and client in client_ids for client in stated):
        raise TokenProblem("client_not_allowed")


def kind_of(parsed: ParsedToken) -> TokenKind | None:
    """Return what the token is; None when it does not show.

    No claim is common to all providers. The header's type counts first, then the claims that say it outright, then
    those that only one kind has. Source: RFC 9068 section 2.1; OpenID Connect Core 1.0 sections 2 and 3.3.2.11.
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
    """Check that the token is not of the kind that is not wanted; one that does not show its kind passes."""
    if wanted is TokenKind.EITHER:
        return
    kind = kind_of(parsed)
    if kind is TokenKind.ID and wanted is TokenKind.ACCESS:
        raise TokenProblem("id_token_as_access_token")
    if kind is TokenKind.ACCESS and wanted is TokenKind.ID:
        raise TokenProblem("access_token_as_id_token")


def check_rfc9068(parsed: ParsedToken) -> None:
    """Check what RFC 9068 asks of an access token beyond the claims that every token needs.

    Source: RFC 9068 sections 2.1, 2.2 and 4.
    """
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
    """Return the claim that names the caller: printable, not blank, of at most 255 characters."""
    subject = claims.get(name, _ABSENT)
    is_short = isinstance(subject, str) and 0 < len(subject) <= MAX_SUBJECT_CHARACTERS
    if is_short and isinstance(subject, str) and subject.isprintable() and not subject.isspace():
        return subject
    raise TokenProblem("subject_missing" if subject is _ABSENT else "subject_malformed")


def expiry_of(claims: Mapping[str, object]) -> datetime:
    """Return when the token ends, as aware UTC."""
    return datetime.fromtimestamp(_seconds(claims, "exp", "expiry"), UTC)


def _seconds(claims: Mapping[str, object], name: str, reason: str) -> float:
    value = claims.get(name, _ABSENT)
    # Not isinstance: bool is a kind of int in Python, and `true` is not a time.
    if (type(value) is int or type(value) is float) and _FIRST_SECOND <= value < _END_OF_TIME:
        return value
    raise TokenProblem(f"{reason}_missing" if value is _ABSENT else f"{reason}_malformed")


def read_groups(claims: Mapping[str, object], paths: Iterable[tuple[str, ...]] = GROUP_CLAIM_PATHS) -> tuple[str, ...]:
    """Return the names of groups and roles that the claims at `paths` list, each once and at most `MAX_GROUPS`."""
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
    """What an ID token says, as far as this package uses it; times are aware UTC, and names are for display."""

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


def verify_id_token(  # noqa: PLR0913 - what a token is held against
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
    """Check an ID token that came from the token endpoint, and return its claims.

    The client must be among the audiences, and the authorized party where one is named. `now` is the provider's time,
    as far as it is known; a refresh needs no `nonce`; an access token is held against the token's `at_hash`.

    Source: OpenID Connect Core 1.0 sections 3.1.3.7 and 3.1.3.8.

    Raises:
        UnknownKey: The keys do not hold the one that signed; newer keys might.
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
    """Return the claims of an ID token that was verified when it was received, and only kept since.

    Neither signature nor times are checked again; whose it is, is.
    """
    try:
        parsed = parse_token(token.reveal())
        claims = _read_claims(parsed)
    except TokenProblem as problem:
        raise _misbehaved(problem) from None
    if claims.issuer != issuer or client_id not in claims.audiences:
        raise _misbehaved(TokenProblem("another_sign_in"))
    return claims


def check_refreshed_claims(old: IdTokenClaims, new: IdTokenClaims) -> None:
    """Check that a refreshed ID token continues the same sign-in.

    Source: OpenID Connect Core 1.0 section 12.2.
    """
    same_person = (new.issuer, new.subject) == (old.issuer, old.subject)
    same_use = new.audiences >= old.audiences and new.authorized_party == old.authorized_party
    if not same_person or not same_use or (new.nonce is not None and new.nonce != old.nonce):
        raise ProviderMisbehaved(
            "The identity provider renewed the sign-in with a token for somebody or something else."
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
        name=_shown(claims, "name") or _shown(claims, "preferred_username"),
        email=_shown(claims, "email"),
        nonce=None if nonce is None else Secret(nonce),
        authorized_party=_text(claims, "azp"),
        groups=shown_groups(claims),
    )


def shown_groups(claims: Mapping[str, object]) -> tuple[str, ...]:
    """Return the names of groups and roles that can be shown, cut where they are long."""
    return tuple(group[:_MAX_SHOWN_CHARACTERS] for group in read_groups(claims) if group.isprintable())


def _text(claims: Mapping[str, object], name: str) -> str | None:
    value = claims.get(name)
    if value is not None and not isinstance(value, str):
        raise TokenProblem(f"{name}_malformed")
    return value


def _shown(claims: Mapping[str, object], name: str) -> str | None:
    # For display only: an odd value is left out, not a reason to refuse the sign-in.
    value = claims.get(name)
    return value[:_MAX_SHOWN_CHARACTERS] if isinstance(value, str) and value and value.isprintable() else None


def _check_sign_in(  # noqa: PLR0913 - what a sign-in is held against
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
    # An access token of RFC 9068 must not pass for an ID token: RFC 8725 section 3.11.
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
        # Without the right hash nothing is proved, so nothing is believed: CVE-2026-28498.
        raise TokenProblem("access_token_hash_unknown")
    full = hashlib.new(name, access_token.reveal().encode("ascii")).digest()
    if stated != base64.urlsafe_b64encode(full[: len(full) // 2]).rstrip(b"=").decode("ascii"):
        raise TokenProblem("access_token_hash_mismatch")


def _misbehaved(problem: TokenProblem) -> ProviderMisbehaved:
    return ProviderMisbehaved(
        f"The identity provider's ID token is not acceptable ({problem.reason}).",
        remedy=CLOCK_REMEDY if problem.reason in _CLOCK_REASONS else None,
    )
