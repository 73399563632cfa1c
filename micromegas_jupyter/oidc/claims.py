"""The rules for a token's claims: who issued it, for whom, to which application, and when it is valid.

Signatures are `signature`'s job, what kind of token it is `token_kind`'s; what the subject may do is the caller's.
"""

from collections.abc import Collection, Iterable, Mapping
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime
from typing import TypeAlias

from micromegas_jupyter.config.access import ClaimValue
from micromegas_jupyter.oidc.jws import TokenProblem
from micromegas_jupyter.oidc.signature import DEFAULT_ALGORITHMS

__all__ = [
    "CLIENT_CLAIMS",
    "DEFAULT_ALGORITHMS",
    "TypedValues",
    "check_audience",
    "check_bearer_use",
    "check_claims",
    "check_client",
    "check_no_audience",
    "check_required_claims",
    "check_times",
    "expiry_of",
    "read_subject",
    "typed_values",
]

MAX_SUBJECT_CHARACTERS = 255
# Where providers name the application: OpenID Connect, RFC 9068, Entra ID 1.0, Okta.
CLIENT_CLAIMS = ("azp", "client_id", "appid", "cid")

# Values of claims together with their types, because in Python `True == 1`.
TypedValues: TypeAlias = AbstractSet[tuple[type, ClaimValue]]

# The times that a datetime can hold, as seconds since 1970: the year 1 to the end of the year 9999.
_FIRST_SECOND = -62_135_596_800
_END_OF_TIME = 253_402_300_800
# `typ` claims of Keycloak and `token_use` claims of Cognito for tokens that are no bearer of calls.
_OTHER_USES = frozenset({"refresh", "offline", "logout"})
_ABSENT = object()


def check_claims(
    claims: Mapping[str, object],
    *,
    issuer: str,
    audiences: Collection[str],
    now: datetime,
    leeway_seconds: float = 60,
) -> None:
    """Check issuer, audience, subject and times.

    Issuer and audience are compared as whole strings, with no normalisation.
    Source: RFC 7519 section 4.1; RFC 8725 sections 3.8, 3.9; OpenID Connect Core 1.0 section 2.

    Raises:
        TokenProblem: A claim is missing, malformed, or not the expected one.
    """
    if claims.get("iss") != issuer:
        raise TokenProblem("issuer_mismatch")
    check_audience(claims, frozenset(audiences))
    check_times(claims, now.timestamp(), leeway_seconds=leeway_seconds)
    read_subject(claims)


def check_audience(claims: Mapping[str, object], audiences: AbstractSet[str]) -> None:
    """Check that the token is for one of `audiences`.

    Raises:
        TokenProblem: It names no audience, something that is none, or others only.
    """
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


def check_no_audience(claims: Mapping[str, object]) -> None:
    """Check that the token names no audience, for issuers whose access tokens have none.

    A token that names one is another kind of token, made for somebody else.

    Raises:
        TokenProblem: It names one.
    """
    if "aud" in claims:
        raise TokenProblem("audience_mismatch")


def check_times(
    claims: Mapping[str, object], now_seconds: float, *, leeway_seconds: float, is_issue_time_required: bool = False
) -> None:
    """Check that the token is valid now.

    `exp` is required; `nbf` and `iat` count when present. The leeway is applied once to each time, in the token's
    favour. Source: RFC 7519 sections 4.1.4 to 4.1.6.

    Raises:
        TokenProblem: A time is missing, malformed, over, or not yet there.
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

    Raises:
        TokenProblem: They are.
    """
    if "cnf" in claims:
        raise TokenProblem("sender_constrained")
    if "events" in claims or _is_other_use(claims.get("typ")) or _is_other_use(claims.get("token_use")):
        raise TokenProblem("not_a_bearer_token")


def check_required_claims(claims: Mapping[str, object], required: Iterable[tuple[str, TypedValues]]) -> None:
    """Check that each claim has one of its values or, as a list, holds one.

    Value and JSON type must both be the same: `true` is not 1, and "1" is not 1.

    Raises:
        TokenProblem: A claim is missing or has another value.
    """
    for name, accepted in required:
        stated = claims.get(name, _ABSENT)
        if stated is _ABSENT:
            raise TokenProblem("required_claim_missing")
        if not any(_is_one_of(value, accepted) for value in (stated if isinstance(stated, list) else (stated,))):
            raise TokenProblem("required_claim_mismatch")


def typed_values(values: Iterable[ClaimValue]) -> TypedValues:
    """Return the accepted values of a claim as `check_required_claims` takes them."""
    return frozenset((type(value), value) for value in values)


def check_client(claims: Mapping[str, object], client_ids: AbstractSet[str]) -> None:
    """Check that the token was made for one of these applications, whichever claims name it.

    Raises:
        TokenProblem: No claim names an application, or one of them names another.
    """
    stated = [claims[name] for name in CLIENT_CLAIMS if name in claims]
    if not stated or not all(isinstance(client, str) and client in client_ids for client in stated):
        raise TokenProblem("client_not_allowed")


def read_subject(claims: Mapping[str, object], name: str = "sub") -> str:
    """Return the claim that names the caller.

    Raises:
        TokenProblem: It is missing, or is not a printable text of 1 to 255 characters.
    """
    subject = claims.get(name, _ABSENT)
    if isinstance(subject, str) and 0 < len(subject) <= MAX_SUBJECT_CHARACTERS and subject.isprintable():
        return subject
    raise TokenProblem("subject_missing" if subject is _ABSENT else "subject_malformed")


def expiry_of(claims: Mapping[str, object]) -> datetime:
    """Return when the token ends, as aware UTC.

    Raises:
        TokenProblem: `exp` is missing or is not a number of seconds that a date can hold.
    """
    return datetime.fromtimestamp(_seconds(claims, "exp", "expiry"), UTC)


def _seconds(claims: Mapping[str, object], name: str, reason: str) -> float:
    value = claims.get(name, _ABSENT)
    # Not isinstance: bool is a kind of int in Python, and `true` is no time.
    if (type(value) is int or type(value) is float) and _FIRST_SECOND <= value < _END_OF_TIME:
        return value
    raise TokenProblem(f"{reason}_missing" if value is _ABSENT else f"{reason}_malformed")


def _is_other_use(use: object) -> bool:
    return isinstance(use, str) and use.lower() in _OTHER_USES


def _is_one_of(value: object, accepted: TypedValues) -> bool:
    return isinstance(value, str | int) and (type(value), value) in accepted
