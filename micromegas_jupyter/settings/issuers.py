"""One accepted issuer: what its tokens must say and where its keys are."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

SIGNATURE_ALGORITHMS = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519"}
)
MAX_LEEWAY_SECONDS = 60

ClaimValue = str | int | bool


class TokenKind(enum.StrEnum):
    """Which tokens of an issuer are accepted; a token that does not show its kind is taken for either."""

    ACCESS = "access"
    ID = "id"
    EITHER = "either"


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuerSetting:
    """One accepted issuer.

    Attributes:
        issuer: Compared with `iss` byte for byte.
        audiences: A token names at least one of them. Empty only for issuers whose tokens have no `aud`; then
            `client_ids` is not empty and `token_use` is among `required_claims`.
        aliases: Other values of `iss` that mean this issuer.
        discovery_url: Where its discovery document is, when it is not below the issuer.
        jwks_url: Where its keys are; no discovery document is read then.
        jwks_file: A file with its keys; nothing is fetched then.
        ca_file: A PEM file of the only certificates to trust when fetching.
        bearer_token_file: A file whose text authorizes the fetches; read for each of them. Goes with `ca_file`.
        algorithms: Accepted signature algorithms.
        subject_claim: The claim that names the caller, at the top level.
        subjects: When not empty, the caller must be one of these; an entry that ends in `*` is a prefix.
        group_claims: Where groups or roles are: paths of literal names. None: the usual places.
        required_claims: Claims that must have one of the listed values, or, as a list, hold one.
        client_ids: When not empty, the token must be made for one of these applications (`azp`, `client_id`,
            `appid` or `cid`).
        is_trusted_for_email: Whether its `email_verified` counts. None: with one issuer yes, with several no.
        tenant: The tenant for which a templated issuer was expanded; `tid` must equal it.
        token_kind: Which tokens are accepted.
        is_rfc9068: Its access tokens follow RFC 9068: `typ` is `at+jwt`, and that profile's claims are there.
        leeway_seconds: How far clocks may differ, at most `MAX_LEEWAY_SECONDS`.
        admin_groups: Members of these groups administer the server.
        group_roles: Roles by group.
        place: Where its entry stands, for refusals.
    """

    issuer: str
    audiences: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    discovery_url: str | None = None
    jwks_url: str | None = None
    jwks_file: str | None = None
    ca_file: str | None = None
    bearer_token_file: str | None = None
    algorithms: frozenset[str] = SIGNATURE_ALGORITHMS
    subject_claim: str = "sub"
    subjects: tuple[str, ...] = ()
    group_claims: tuple[tuple[str, ...], ...] | None = None
    required_claims: Mapping[str, tuple[ClaimValue, ...]] = field(default_factory=lambda: MappingProxyType({}))
    client_ids: tuple[str, ...] = ()
    is_trusted_for_email: bool | None = None
    tenant: str | None = None
    token_kind: TokenKind = TokenKind.EITHER
    is_rfc9068: bool = False
    leeway_seconds: int = MAX_LEEWAY_SECONDS
    admin_groups: tuple[str, ...] = ()
    group_roles: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))
    place: str = field(default="issuer", compare=False)
