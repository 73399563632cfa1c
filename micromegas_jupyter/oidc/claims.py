"""The rules for a token's claims: who issued it, for whom, and when it is valid.

Signatures are `signature`'s job; what the subject may do is the caller's.
"""

from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import TypeGuard

from micromegas_jupyter.oidc.jws import TokenProblem
from micromegas_jupyter.oidc.signature import DEFAULT_ALGORITHMS

__all__ = ["DEFAULT_ALGORITHMS", "check_bearer_use", "check_claims", "expiry_of"]

MAX_SUBJECT_CHARACTERS = 255

# The times that a datetime can hold, as seconds since 1970: the year 1 to the end of the year 9999.
_FIRST_SECOND = -62_135_596_800
_END_OF_TIME = 253_402_300_800
# `typ` claims of Keycloak and `token_use` claims of Cognito for tokens that are no bearer of calls.
_OTHER_USES = frozenset({"refresh", "offline", "logout"})


def check_claims(
    claims: Mapping[str, object],
    *,
    issuer: str,
    audiences: Collection[str],
    now: datetime,
    leeway_seconds: float = 60,
) -> None:
    """Check issuer, audience, subject and times.

    Issuer and audience are compared as whole strings, with no normalisation. `exp` is required; `nbf` and `iat`
    count when present. The leeway is applied once to each time, in the token's favour.
    Source: RFC 7519 section 4.1; RFC 8725 sections 3.8, 3.9; OpenID Connect Core 1.0 section 2.

    Raises:
        TokenProblem: A claim is missing, malformed, or not the expected one.
    """
    if claims.get("iss") != issuer:
        raise TokenProblem("issuer_mismatch")
    _check_audience(claims, audiences)
    _check_times(claims, now.timestamp(), leeway_seconds)
    _check_subject(claims)


def check_bearer_use(claims: Mapping[str, object]) -> None:
    """Check that the claims are not those of a token made for something other than bearing calls.

    Refused are tokens bound to a key that the bearer would have to prove (`cnf`: RFC 7800), security events and
    logout tokens (`events`: RFC 8417), and refresh tokens in JWT form.

    Raises:
        TokenProblem: They are.
    """
    if "cnf" in claims:
        raise TokenProblem("sender_constrained")
    uses = (claims.get("typ"), claims.get("token_use"))
    if "events" in claims or any(isinstance(use, str) and use.lower() in _OTHER_USES for use in uses):
        raise TokenProblem("not_a_bearer_token")


def expiry_of(claims: Mapping[str, object]) -> datetime:
    """Return when the token ends, as aware UTC.

    Raises:
        TokenProblem: `exp` is missing or is not a number of seconds that a date can hold.
    """
    return datetime.fromtimestamp(_seconds(claims, "exp", "expiry"), UTC)


def _check_audience(claims: Mapping[str, object], audiences: Collection[str]) -> None:
    if "aud" not in claims:
        raise TokenProblem("audience_missing")
    stated = claims["aud"]
    listed = stated if isinstance(stated, list) else [stated]
    if not listed or not all(isinstance(audience, str) for audience in listed):
        raise TokenProblem("audience_malformed")
    if not any(audience in audiences for audience in listed):
        raise TokenProblem("audience_mismatch")


def _check_times(claims: Mapping[str, object], now_seconds: float, leeway_seconds: float) -> None:
    if now_seconds >= _seconds(claims, "exp", "expiry") + leeway_seconds:
        raise TokenProblem("expired")
    if "nbf" in claims and now_seconds < _seconds(claims, "nbf", "not_before") - leeway_seconds:
        raise TokenProblem("not_yet_valid")
    if "iat" in claims and now_seconds < _seconds(claims, "iat", "issued_at") - leeway_seconds:
        raise TokenProblem("issued_in_the_future")


def _seconds(claims: Mapping[str, object], name: str, reason: str) -> float:
    if name not in claims:
        raise TokenProblem(f"{reason}_missing")
    value = claims[name]
    if not _is_number(value) or not _FIRST_SECOND <= value < _END_OF_TIME:
        raise TokenProblem(f"{reason}_malformed")
    return value


def _is_number(value: object) -> TypeGuard[int | float]:
    # bool is a kind of int in Python, and `true` is no time.
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check_subject(claims: Mapping[str, object]) -> None:
    if "sub" not in claims:
        raise TokenProblem("subject_missing")
    subject = claims["sub"]
    if not isinstance(subject, str) or not 0 < len(subject) <= MAX_SUBJECT_CHARACTERS or not subject.isprintable():
        raise TokenProblem("subject_malformed")
