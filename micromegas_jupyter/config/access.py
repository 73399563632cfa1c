"""The server half's settings: whose keys and tokens are accepted, who administers the server, who may read what."""

import enum
import hashlib
import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from types import MappingProxyType
from typing import Any

from micromegas_jupyter.config.decoding import (
    SIGNATURE_ALGORITHMS,
    Members,
    as_count,
    as_list,
    as_named,
    as_object,
    as_rate,
    as_text,
    as_text_or_texts,
    as_texts,
    as_time,
    decode_setting,
    is_too_long,
    shown,
)
from micromegas_jupyter.core.system import Secret
from micromegas_jupyter.errors import ConfigurationError

EVERY_TABLE = "*"


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleSetting:
    """One role.

    Attributes:
        tables: The readable tables, each with a condition in SQL that its rows must meet, or None for all rows.
            The name `*` means every table that is not named.
    """

    tables: Mapping[str, str | None] = field(default_factory=lambda: MappingProxyType({}))


def parse_roles(value: object, key: str) -> dict[str, RoleSetting]:
    """Read roles by name."""
    return {name: _parse_role(role, f"{key}.{name}") for name, role in as_named(value, key).items()}


def read_role_names(value: object, key: str, *, known_roles: Collection[str] | None) -> tuple[str, ...]:
    """Read one role's name, or a list of names; `known_roles` is None when any name will do."""
    names = as_text_or_texts(value, key)
    for name in names:
        if known_roles is not None and name not in known_roles:
            raise ConfigurationError(
                f"{key} names the role {shown(name)}, which is not configured.",
                key=key,
                remedy="Add the role to `roles` in the configuration file, or name another.",
            )
    return names


def _parse_role(value: object, key: str) -> RoleSetting:
    role = as_object(value, key, known=frozenset({"tables"}))
    if "tables" not in role:
        raise ConfigurationError(
            f"{key}.tables is missing.", key=f"{key}.tables", remedy="Add the tables that the role may read."
        )
    tables, path = role["tables"], f"{key}.tables"
    if isinstance(tables, list):
        return RoleSetting(tables=MappingProxyType(dict.fromkeys(as_texts(tables, path))))
    conditions = {
        name: None if condition is None else as_text(condition, f"{path}.{name}")
        for name, condition in as_named(tables, path).items()
    }
    return RoleSetting(tables=MappingProxyType(conditions))


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
        path: What errors call its entry.
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
    path: str = field(default="issuer", compare=False)


API_KEY_ISSUER = "api_key"
"""The issuer of every API key's bearer."""

READ_SCOPE = "read"
INGEST_SCOPE = "ingest"
API_KEY_SCOPES = frozenset({READ_SCOPE, INGEST_SCOPE})
MAX_API_KEYS = 100_000

_MEMBERS = frozenset({"name", "key", "sha256", "expires_at", "scopes", "roles", "created_at", "revoked_at"})
_DEFAULT_SCOPES = frozenset({READ_SCOPE})
_SHA256 = re.compile(r"[0-9A-Fa-f]{64}")
_DIGEST_OF_NOTHING = hashlib.sha256(b"").digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKeySetting:
    """One API key and the name that its bearer goes by; exactly one of `key` and `sha256` is set.

    Attributes:
        name: The bearer's name.
        key: The key itself (the older form).
        sha256: The SHA-256 digest of the key, 32 bytes.
        expires_at: When it ends (aware UTC); None when it does not.
        scopes: What it is for: `read`, `ingest`.
        roles: The roles of its bearer; one that is not configured counts for nothing.
        created_at: When it was made, for display.
        revoked_at: When it was revoked; a revoked key is refused.
    """

    name: str
    key: Secret | None = None
    sha256: bytes | None = field(default=None, repr=False)
    expires_at: datetime | None = None
    scopes: frozenset[str] = _DEFAULT_SCOPES
    roles: tuple[str, ...] = ()
    created_at: datetime | None = None
    revoked_at: datetime | None = None


def parse_api_keys(text: str, path: str) -> tuple[ApiKeySetting, ...]:
    """Read the JSON list of a variable or a key file."""
    keys = read_api_keys(decode_setting(text, path), path)
    check_distinct([(key, f"{path}[{index}]") for index, key in enumerate(keys)])
    return keys


def render_api_keys(keys: Iterable[ApiKeySetting]) -> str:
    """Return the text of a key file, sorted by name; keys of one name stay in order.

    `parse_api_keys` reads back the same keys in that order. A key itself is written only where it is all there is.
    """
    entries = [_rendered(key) for key in sorted(keys, key=lambda key: key.name)]
    text = json.dumps(entries, ensure_ascii=False, indent=2) + "\n"
    if len(entries) > MAX_API_KEYS or is_too_long(text):
        raise ConfigurationError(
            "There are more API keys than one key file can hold.",
            key="api_key_file",
            remedy="Remove keys that have expired or were revoked.",
        )
    return text


def read_api_keys(value: object, path: str) -> tuple[ApiKeySetting, ...]:
    """Read a decoded list of keys.

    A role that is not configured is not a reason to refuse the list: that would keep later revocations from taking
    effect. The validator says what such a key is worth.
    """
    entries = as_list(value, path)
    if len(entries) > MAX_API_KEYS:
        raise ConfigurationError(f"{path} holds more than {MAX_API_KEYS} keys.", key=path)
    return tuple(_read_key(entry, f"{path}[{index}]") for index, entry in enumerate(entries))


def check_distinct(keys: Iterable[tuple[ApiKeySetting, str]]) -> None:
    """Check that no key is listed twice, be it as itself or as its digest."""
    first_paths: dict[bytes, str] = {}
    for key, path in keys:
        first = first_paths.setdefault(key_digest(key), path)
        if first != path:
            raise ConfigurationError(
                f"{path} is the same key as {first}.", key=path, remedy="Give each entry its own key."
            )
    if len(first_paths) > MAX_API_KEYS:
        raise ConfigurationError(f"There are more than {MAX_API_KEYS} API keys in all.", key=path)


def key_digest(key: ApiKeySetting) -> bytes:
    """Return the SHA-256 digest of the key, whichever way it is configured."""
    if key.sha256 is not None:
        return key.sha256
    text = "" if key.key is None else key.key.reveal()
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _read_key(entry: object, path: str) -> ApiKeySetting:
    values = as_object(entry, path)
    if not values.keys() <= _MEMBERS:
        # The name is not shown: in a list that somebody wrote as {key: name}, it is the key.
        raise ConfigurationError(
            f"{path} has an unknown name.", key=path, remedy=f"Known names: {', '.join(sorted(_MEMBERS))}."
        )
    members = Members(values=values, place=path)
    if "key" in members and "sha256" in members:
        raise ConfigurationError(
            f"{path} has both key and sha256.", key=path, remedy="Keep sha256: it does not give the key away."
        )
    return ApiKeySetting(
        name=members.require("name", as_text),
        sha256=members.read("sha256", _as_digest, None),
        key=None if "sha256" in members else Secret(members.require("key", as_text)),
        expires_at=members.read("expires_at", as_time, None),
        scopes=members.read("scopes", _as_scopes, _DEFAULT_SCOPES),
        roles=members.read("roles", partial(read_role_names, known_roles=None), ()),
        created_at=members.read("created_at", as_time, None),
        revoked_at=members.read("revoked_at", as_time, None),
    )


def _as_digest(value: object, key: str) -> bytes:
    if not isinstance(value, str) or not _SHA256.fullmatch(value):
        raise ConfigurationError(f"{key} is not a SHA-256 digest of 64 hexadecimal digits.", key=key)
    digest = bytes.fromhex(value)
    if digest == _DIGEST_OF_NOTHING:
        raise ConfigurationError(f"{key} is the digest of an empty key.", key=key, remedy="Make a new key.")
    return digest


def _as_scopes(value: object, key: str) -> frozenset[str]:
    scopes = as_texts(value, key)
    for index, scope in enumerate(scopes):
        if scope not in API_KEY_SCOPES:
            raise ConfigurationError(
                f"{key}[{index}] is not one of {', '.join(sorted(API_KEY_SCOPES))}.", key=f"{key}[{index}]"
            )
    return frozenset(scopes)


def _rendered(key: ApiKeySetting) -> dict[str, object]:
    entry: dict[str, object] = {
        "name": key.name,
        "sha256": None if key.sha256 is None else key.sha256.hex(),
        "key": None if key.sha256 is not None or key.key is None else key.key.reveal(),
        "scopes": None if key.scopes == _DEFAULT_SCOPES else sorted(key.scopes),
        "roles": list(key.roles) or None,
    }
    for member in ("created_at", "expires_at", "revoked_at"):
        time: datetime | None = getattr(key, member)
        entry[member] = None if time is None else time.isoformat().replace("+00:00", "Z")
    return {name: value for name, value in entry.items() if value is not None}


class LegacyApiKeys(enum.StrEnum):
    """What becomes of API keys that are stored as plain text."""

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
        issuers: At least one; each issuer is listed once, with all its audiences.
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
        admins_path: What errors call `admins`.
    """

    api_keys: tuple[ApiKeySetting, ...] = ()
    oidc: OidcServerSettings | None = None
    admins: tuple[str, ...] = ()
    denied: tuple[str, ...] = ()
    roles: Mapping[str, RoleSetting] | None = None
    default_roles: tuple[str, ...] = ()
    legacy_api_keys: LegacyApiKeys = LegacyApiKeys.WARN
    rate_limits: RateLimits = field(default_factory=RateLimits)
    admins_path: str = field(default="MICROMEGAS_ADMINS", compare=False)


_as_frequency = partial(as_rate, minimum=0.001, maximum=1_000_000)
_as_count = partial(as_count, maximum=1_000_000)
_RATE_LIMITS: Mapping[str, Callable[[object, str], float]] = {
    "calls_per_second": _as_frequency,
    "burst_calls": _as_count,
    "refusals_per_second": _as_frequency,
    "burst_refusals": _as_count,
    "max_tracked": _as_count,
}
RATE_LIMIT_MEMBERS = frozenset(_RATE_LIMITS)


def as_rate_limits(value: object, key: str) -> RateLimits:
    """Read the limits; each that is left out has its default."""
    given = as_object(value, key, known=RATE_LIMIT_MEMBERS)
    limits: dict[str, Any] = {name: _RATE_LIMITS[name](limit, f"{key}.{name}") for name, limit in given.items()}
    return RateLimits(**limits)
