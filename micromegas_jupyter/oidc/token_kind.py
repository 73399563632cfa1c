"""Whether a token is an access token or an ID token, as far as it shows.

No claim is common to all providers, so each one's marks are looked for. What else must hold is `claims`'s job.
"""

from collections.abc import Mapping

from micromegas_jupyter.config.access import TokenKind
from micromegas_jupyter.oidc.jws import ParsedToken, TokenProblem

_ACCESS_TOKEN_TYPES = frozenset({"at+jwt", "application/at+jwt"})
# `token_use` of Cognito and `typ` of Keycloak.
_KINDS_BY_TOKEN_USE = {"access": TokenKind.ACCESS, "id": TokenKind.ID}
_KINDS_BY_TYPE_CLAIM = {"bearer": TokenKind.ACCESS, "id": TokenKind.ID}


def kind_of(parsed: ParsedToken) -> TokenKind | None:
    """Return what the token is; None when it does not show.

    The header's type counts first, then the claims that say it outright, then those that only one kind has.
    Source: RFC 9068 section 2.1; OpenID Connect Core 1.0 sections 2 and 3.3.2.11.
    """
    claims = parsed.claims
    said = _kind_that_is_said(parsed)
    if said is not None:
        return said
    if "at_hash" in claims or "c_hash" in claims:
        return TokenKind.ID
    if "scope" in claims or "scp" in claims:
        return TokenKind.ACCESS
    return TokenKind.ID if "nonce" in claims else None


def check_kind(parsed: ParsedToken, wanted: TokenKind) -> None:
    """Check that the token is not of the kind that is not wanted; one that does not show its kind passes.

    Raises:
        TokenProblem: It is.
    """
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

    Raises:
        TokenProblem: The header's type is not `at+jwt`, or `client_id` or `jti` is missing or no text.
    """
    if not _has_access_token_type(parsed.header):
        raise TokenProblem("type_not_at_jwt")
    _check_text(parsed.claims, "client_id", "client_id")
    _check_text(parsed.claims, "jti", "token_id")


def _kind_that_is_said(parsed: ParsedToken) -> TokenKind | None:
    if _has_access_token_type(parsed.header):
        return TokenKind.ACCESS
    use, kind = parsed.claims.get("token_use"), parsed.claims.get("typ")
    said = _KINDS_BY_TOKEN_USE.get(use) if isinstance(use, str) else None
    if said is None and isinstance(kind, str):
        said = _KINDS_BY_TYPE_CLAIM.get(kind.lower())
    return said


def _has_access_token_type(header: Mapping[str, object]) -> bool:
    kind = header.get("typ")
    return isinstance(kind, str) and kind.lower() in _ACCESS_TOKEN_TYPES


def _check_text(claims: Mapping[str, object], name: str, reason: str) -> None:
    if name not in claims:
        raise TokenProblem(f"{reason}_missing")
    value = claims[name]
    if not isinstance(value, str) or not value:
        raise TokenProblem(f"{reason}_malformed")
