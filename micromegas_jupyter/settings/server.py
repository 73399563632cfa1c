"""The server half's settings: whose keys and tokens are accepted, and who administers the server.

Where they come from is said in `access_config`.
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from micromegas_jupyter.settings.api_keys import ApiKeySetting
from micromegas_jupyter.settings.issuers import IssuerSetting
from micromegas_jupyter.settings.roles import RoleSetting


class LegacyApiKeys(enum.StrEnum):
    """What becomes of API keys that are kept as plain text."""

    ON = "on"
    WARN = "warn"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimits:
    """How often callers may call; each limit is a token bucket.

    Attributes:
        calls_per_second: Calls of one identity, lasting.
        burst_calls: Calls of one identity at once.
        refusals_per_second: Refused credentials from one address, lasting; beyond it, credentials from there that
            are not known already are not looked at.
        burst_refusals: Refused credentials from one address at once.
        max_tracked: How many identities, and how many addresses, are remembered.
    """

    calls_per_second: float = 2000.0
    burst_calls: int = 10_000
    refusals_per_second: float = 500.0
    burst_refusals: int = 5000
    max_tracked: int = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class OidcServerSettings:
    """What `MICROMEGAS_OIDC_CONFIG` says.

    Attributes:
        issuers: At least one; each issuer stands once, with all its audiences.
        jwks_refresh_interval_seconds: How long a fetched key set counts as fresh.
        jwks_stale_limit_seconds: How old it may grow while the provider does not answer.
        jwks_cool_down_seconds: An unknown key id causes one fetch, and the next not before this time has passed.
        token_cache_size: How many validated tokens are remembered at most.
        token_cache_ttl_seconds: How long a validated token is remembered at most.
    """

    issuers: tuple[IssuerSetting, ...]
    jwks_refresh_interval_seconds: int = 3600
    jwks_stale_limit_seconds: int = 24 * 3600
    jwks_cool_down_seconds: int = 30
    token_cache_size: int = 1000
    token_cache_ttl_seconds: int = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessSettings:
    """Whose tokens and keys a server accepts, who administers it, and what callers may read.

    Attributes:
        api_keys: From the variable and the key file.
        oidc: The accepted issuers, if any.
        admins: Who administers the server: `issuer|subject`, `issuer|address`, a subject, or an address.
        denied: `issuer|subject` of callers who are refused although their tokens are good; for an API key
            `api_key|name`.
        roles: By name; None when there are no roles, and every caller may read every table.
        default_roles: What every caller has in addition to what follows from groups.
        legacy_api_keys: What becomes of plain-text keys.
        rate_limits: How often callers may call.
        admins_place: Where `admins` stands, for refusals.
    """

    api_keys: tuple[ApiKeySetting, ...] = ()
    oidc: OidcServerSettings | None = None
    admins: tuple[str, ...] = ()
    denied: tuple[str, ...] = ()
    roles: Mapping[str, RoleSetting] | None = None
    default_roles: tuple[str, ...] = ()
    legacy_api_keys: LegacyApiKeys = LegacyApiKeys.WARN
    rate_limits: RateLimits = field(default_factory=RateLimits)
    admins_place: str = field(default="MICROMEGAS_ADMINS", compare=False)
