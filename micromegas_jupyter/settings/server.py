"""The server half's settings: whose keys and tokens are accepted, and who administers the server."""

from collections.abc import Mapping
from dataclasses import dataclass

from micromegas_jupyter.contracts import Secret
from micromegas_jupyter.errors import ConfigurationError
from micromegas_jupyter.settings.decoding import as_count, as_list, as_object, as_text, decode_setting
from micromegas_jupyter.settings.urls import check_issuer_url

API_KEYS = "MICROMEGAS_API_KEYS"
OIDC_CONFIG = "MICROMEGAS_OIDC_CONFIG"
ADMINS = "MICROMEGAS_ADMINS"

_ONE_WEEK_SECONDS = 7 * 24 * 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKeySetting:
    """One accepted API key and the name that its bearer goes by."""

    name: str
    key: Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuerSetting:
    """One accepted issuer and the audiences of which its tokens must name at least one."""

    issuer: str
    audiences: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class OidcServerSettings:
    """What `MICROMEGAS_OIDC_CONFIG` says.

    Attributes:
        issuers: At least one; each issuer stands once, with all its audiences.
        jwks_refresh_interval_seconds: How long a fetched key set counts as fresh.
        token_cache_size: How many validated tokens are remembered at most.
        token_cache_ttl_seconds: How long a validated token is remembered at most.
    """

    issuers: tuple[IssuerSetting, ...]
    jwks_refresh_interval_seconds: int = 3600
    token_cache_size: int = 1000
    token_cache_ttl_seconds: int = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessSettings:
    """Whose tokens and keys a server accepts, and who administers it."""

    api_keys: tuple[ApiKeySetting, ...] = ()
    oidc: OidcServerSettings | None = None
    admins: tuple[str, ...] = ()


def parse_access_settings(environ: Mapping[str, str]) -> AccessSettings:
    """Read `MICROMEGAS_API_KEYS`, `MICROMEGAS_OIDC_CONFIG` and `MICROMEGAS_ADMINS`.

    A variable that is absent or empty counts as not set; anything else must be right in full.

    Raises:
        ConfigurationError: A variable is malformed; nothing is accepted in part.
    """
    keys = environ.get(API_KEYS, "")
    oidc = environ.get(OIDC_CONFIG, "")
    admins = environ.get(ADMINS, "")
    return AccessSettings(
        api_keys=_parse_api_keys(keys) if keys else (),
        oidc=_parse_oidc_config(oidc) if oidc else None,
        admins=_parse_admins(admins) if admins else (),
    )


def _parse_api_keys(text: str) -> tuple[ApiKeySetting, ...]:
    found: list[ApiKeySetting] = []
    for index, entry in enumerate(as_list(decode_setting(text, API_KEYS), API_KEYS)):
        place = f"{API_KEYS}[{index}]"
        values = as_object(entry, place, known=frozenset({"name", "key"}))
        found.append(
            ApiKeySetting(
                name=as_text(values.get("name"), f"{place}.name"),
                key=Secret(as_text(values.get("key"), f"{place}.key")),
            )
        )
    if len({setting.key for setting in found}) != len(found):
        raise ConfigurationError(f"{API_KEYS} holds one key twice.", key=API_KEYS, remedy="Give each name its own key.")
    return tuple(found)


def _parse_oidc_config(text: str) -> OidcServerSettings:
    known = frozenset({"issuers", "jwks_refresh_interval_secs", "token_cache_size", "token_cache_ttl_secs"})
    values = as_object(decode_setting(text, OIDC_CONFIG), OIDC_CONFIG, known=known)
    audiences: dict[str, list[str]] = {}
    for index, entry in enumerate(as_list(values.get("issuers"), f"{OIDC_CONFIG}.issuers")):
        place = f"{OIDC_CONFIG}.issuers[{index}]"
        pair = as_object(entry, place, known=frozenset({"issuer", "audience"}))
        issuer = as_text(pair.get("issuer"), f"{place}.issuer")
        check_issuer_url(issuer, key=f"{place}.issuer")
        audiences.setdefault(issuer, []).append(as_text(pair.get("audience"), f"{place}.audience"))
    if not audiences:
        raise ConfigurationError(f"{OIDC_CONFIG}.issuers is empty.", key=OIDC_CONFIG)
    defaults = OidcServerSettings(issuers=())

    def count(name: str, default: int, maximum: int) -> int:
        return as_count(values[name], f"{OIDC_CONFIG}.{name}", maximum=maximum) if name in values else default

    return OidcServerSettings(
        issuers=tuple(IssuerSetting(issuer=key, audiences=tuple(named)) for key, named in audiences.items()),
        jwks_refresh_interval_seconds=count(
            "jwks_refresh_interval_secs", defaults.jwks_refresh_interval_seconds, _ONE_WEEK_SECONDS
        ),
        token_cache_size=count("token_cache_size", defaults.token_cache_size, 1_000_000),
        token_cache_ttl_seconds=count("token_cache_ttl_secs", defaults.token_cache_ttl_seconds, _ONE_WEEK_SECONDS),
    )


def _parse_admins(text: str) -> tuple[str, ...]:
    listed = as_list(decode_setting(text, ADMINS), ADMINS)
    return tuple(as_text(entry, f"{ADMINS}[{index}]") for index, entry in enumerate(listed))
