"""ID tokens: who signed in, believed only after every check of OpenID Connect."""

import base64
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from micromegas_jupyter.core.system import Secret
from micromegas_jupyter.errors import ProviderMisbehaved
from micromegas_jupyter.oidc.claims import check_claims, expiry_of, read_groups
from micromegas_jupyter.oidc.jws import ParsedToken, TokenProblem, parse_token
from micromegas_jupyter.oidc.keys import DEFAULT_ALGORITHMS, KeySet, UnknownKey, verify_signature

LEEWAY_SECONDS = 60.0
CLOCK_REMEDY = "Check the clock of this machine."

_MAX_SHOWN_CHARACTERS = 256

# The hash of each algorithm; Ed25519 has SHA-512 inside. OpenID Connect Core 1.0 section 3.1.3.6.
_HASHES: Mapping[str, Callable[[bytes], bytes]] = {
    **dict.fromkeys(("RS256", "PS256", "ES256"), lambda data: hashlib.sha256(data).digest()),
    **dict.fromkeys(("RS384", "PS384", "ES384"), lambda data: hashlib.sha384(data).digest()),
    **dict.fromkeys(("RS512", "PS512", "ES512", "EdDSA", "Ed25519"), lambda data: hashlib.sha512(data).digest()),
}
# What a token looks like to a machine whose clock is wrong.
_CLOCK_REASONS = frozenset({"expired", "not_yet_valid", "issued_in_the_future"})


@dataclass(frozen=True, slots=True, kw_only=True)
class IdTokenClaims:
    """What an ID token says, as far as this package uses it.

    Attributes:
        issuer: Who says it.
        subject: The issuer's name of the person; unique together with the issuer.
        audiences: The applications that it is for.
        issued_at: When it was made (aware UTC).
        expires_at: When it ends (aware UTC).
        name: The person's name, for display.
        email: The person's address, for display.
        nonce: The sign-in that it belongs to.
        authorized_party: The application that asked for it.
        groups: The person's groups and roles, for display.
    """

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
    clock_remedy: str = CLOCK_REMEDY,
) -> IdTokenClaims:
    """Check an ID token that came from the token endpoint, and return its claims.

    Args:
        token: The ID token.
        keys: The provider's keys.
        issuer: The configured issuer; compared byte for byte.
        client_id: Must be among the audiences, and the authorized party where one is named.
        now: The provider's time, as far as it is known.
        nonce: What was sent; None for a refresh, whose token need not carry one.
        access_token: Held against `at_hash` when the token has one.
        algorithms: The signature algorithms to accept.
        clock_remedy: What to do when the token's times do not fit.

    Source: OpenID Connect Core 1.0 sections 3.1.3.7 and 3.1.3.8.

    Raises:
        UnknownKey: The keys do not hold the one that signed; newer keys might.
        ProviderMisbehaved: Any check fails.
    """
    try:
        parsed = parse_token(token.reveal())
        verify_signature(parsed, keys, algorithms=algorithms)
        check_claims(parsed.claims, issuer=issuer, audiences=(client_id,), now=now, leeway_seconds=LEEWAY_SECONDS)
        claims = _read_claims(parsed)
        _check_sign_in(parsed, claims, client_id=client_id, access_token=access_token, nonce=nonce)
    except UnknownKey:
        raise
    except TokenProblem as problem:
        raise _misbehaved(problem, clock_remedy) from None
    return claims


def read_stored_id_token(token: Secret, *, issuer: str, client_id: str) -> IdTokenClaims:
    """Return the claims of an ID token that was verified when it was received, and only kept since.

    Neither signature nor times are checked again; whose it is, is.

    Raises:
        ProviderMisbehaved: It is not an ID token of this issuer for this client.
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

    Raises:
        ProviderMisbehaved: Another issuer, subject, audience, authorized party or nonce, or an older token.
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
    subject, issuer = claims.get("sub"), claims.get("iss")
    if not isinstance(subject, str) or not subject or not isinstance(issuer, str):
        raise TokenProblem("subject_or_issuer_missing")
    nonce = _text(claims, "nonce")
    return IdTokenClaims(
        issuer=issuer,
        subject=subject,
        audiences=frozenset(entry for entry in audiences if isinstance(entry, str)),
        issued_at=_issued_at(claims),
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


def _issued_at(claims: Mapping[str, object]) -> datetime:
    seconds = claims.get("iat")
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise TokenProblem("issued_at_missing")
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        raise TokenProblem("issued_at_malformed") from None


def _text(claims: Mapping[str, object], name: str) -> str | None:
    value = claims.get(name)
    if value is not None and not isinstance(value, str):
        raise TokenProblem(f"{name}_malformed")
    return value


def _shown(claims: Mapping[str, object], name: str) -> str | None:
    # For display only: an odd value is left out, not a reason to refuse the sign-in.
    value = claims.get(name)
    return value[:_MAX_SHOWN_CHARACTERS] if isinstance(value, str) and value and value.isprintable() else None


def _check_sign_in(
    parsed: ParsedToken, claims: IdTokenClaims, *, client_id: str, access_token: Secret | None, nonce: Secret | None
) -> None:
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
    digest = _HASHES.get(parsed.algorithm)
    if digest is None:
        # Without the right hash nothing is proved, so nothing is believed: CVE-2026-28498.
        raise TokenProblem("access_token_hash_unknown")
    full = digest(access_token.reveal().encode("ascii"))
    if stated != base64.urlsafe_b64encode(full[: len(full) // 2]).rstrip(b"=").decode("ascii"):
        raise TokenProblem("access_token_hash_mismatch")


def _misbehaved(problem: TokenProblem, clock_remedy: str = CLOCK_REMEDY) -> ProviderMisbehaved:
    return ProviderMisbehaved(
        f"The identity provider's ID token is not acceptable ({problem.reason}).",
        remedy=clock_remedy if problem.reason in _CLOCK_REASONS else None,
    )
