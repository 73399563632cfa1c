"""The server half's settings: accepted keys and tokens, administrators, and who may read which data."""

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
    Members,
    as_count,
    as_list,
    as_named,
    as_object,
    as_rate,
    as_texts,
    as_time,
    as_type,
    decode_setting,
    is_too_long,
)
from micromegas_jupyter.config.issuers import IssuerSetting, OidcServerSettings, parse_oidc_config, read_role_names
from micromegas_jupyter.core.system import Secret
from micromegas_jupyter.core.text import as_text, refused, shown
from micromegas_jupyter.errors import ConfigurationError

EVERY_TABLE = "*"

_ROLE_MEMBERS = frozenset({"tables", "ingest", "owns", "max_scan_bytes", "keys"})
_MAX_BYTES = 1 << 60
_TABLE_PATTERN = re.compile(r"[a-z][a-z0-9_]{0,62}\*?")
_PATTERN_REMEDY = "Use a table name (lowercase letters, digits, underscores), a prefix such as team_*, or *."


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleSetting:
    """What the holders of a role may do.

    Attributes:
        tables: The readable tables (`*`: all others), each with an SQL condition for its rows, or None for all rows.
        ingest: The tables that they may send rows to: names, prefixes (`team_*`), or `*`.
        owns: The tables that they may also create, replace, alter, optimize, and drop, and whose rows they may delete.
        max_scan_bytes: How many bytes a statement may read, as estimated; None for no limit.
        makes_own_keys: Whether they may create API keys for themselves to send telemetry (`"keys": "self"`).
    """

    tables: Mapping[str, str | None] = field(default_factory=lambda: MappingProxyType({}))
    ingest: frozenset[str] = frozenset()
    owns: frozenset[str] = frozenset()
    max_scan_bytes: int | None = None
    makes_own_keys: bool = False


def parse_roles(value: object, key: str) -> dict[str, RoleSetting]:
    """Parse roles by name."""
    return {name: _parse_role(role, f"{key}.{name}") for name, role in as_named(value, key).items()}


def _parse_role(value: object, key: str) -> RoleSetting:
    role = Members(values=as_object(value, key, known=_ROLE_MEMBERS), place=key)
    if not role.values.keys() - {"max_scan_bytes"}:
        raise refused(f"{key}.tables", "is missing", "Add the tables that the role can read or write to.")
    return RoleSetting(
        tables=MappingProxyType(role.read("tables", _as_readable_tables, {})),
        ingest=role.read("ingest", _as_table_patterns, frozenset()),
        owns=role.read("owns", _as_table_patterns, frozenset()),
        max_scan_bytes=role.read("max_scan_bytes", partial(as_count, maximum=_MAX_BYTES), None),
        makes_own_keys=role.read("keys", _as_self, False),
    )


def _as_self(value: object, key: str) -> bool:
    if value != "self":
        raise refused(key, "is not self", 'Use "keys": "self", or omit it.')
    return True


def _as_readable_tables(value: object, key: str) -> dict[str, str | None]:
    if isinstance(value, list):
        return dict.fromkeys(as_texts(value, key))
    return {
        name: None if condition is None else as_text(condition, f"{key}.{name}")
        for name, condition in as_named(value, key).items()
    }


def _as_table_patterns(value: object, key: str) -> frozenset[str]:
    if isinstance(value, dict):
        raise refused(key, "is not a JSON list", "List the tables. Row conditions apply only to reading.")
    patterns = as_texts(value, key)
    for index, pattern in enumerate(patterns):
        if pattern != EVERY_TABLE and not _TABLE_PATTERN.fullmatch(pattern):
            raise refused(f"{key}[{index}]", "cannot match any table", _PATTERN_REMEDY)
    return frozenset(patterns)


API_KEY_ISSUER = "api_key"
"""The issuer of all API key bearers."""

READ_SCOPE = "read"
WRITE_SCOPE = "write"
METRICS_SCOPE = "metrics"
"""Allows reading the server's `/metrics` only; `read` includes it."""
INGEST_SCOPE = "ingest"
"""Allows sending rows to every table; with a colon and a name or prefix (`team_*`), only to these tables."""

_PLAIN_SCOPES = frozenset({READ_SCOPE, WRITE_SCOPE, METRICS_SCOPE, INGEST_SCOPE})
MAX_API_KEYS = 100_000

_MEMBERS = frozenset(
    ["name", "key", "sha256", "expires_at", "scopes", "roles", "created_at", "revoked_at", "owner", "owner_groups"]
)
_DEFAULT_SCOPES = frozenset({READ_SCOPE})
_SHA256 = re.compile(r"[0-9A-Fa-f]{64}")
_DIGEST_OF_NOTHING = hashlib.sha256(b"").digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKeySetting:
    """One API key and its holder's name; exactly one of `key` (the older form) and `sha256` is set.

    `owner_groups` is set if the owner created the key: the groups whose roles allowed it.
    """

    name: str
    key: Secret | None = None
    sha256: bytes | None = field(default=None, repr=False)
    expires_at: datetime | None = None
    scopes: frozenset[str] = _DEFAULT_SCOPES
    roles: tuple[str, ...] = ()
    created_at: datetime | None = None
    revoked_at: datetime | None = None
    owner: str | None = None
    owner_groups: tuple[str, ...] | None = None


def parse_api_keys(text: str, path: str) -> tuple[ApiKeySetting, ...]:
    """Parse the JSON list of a variable or a key file."""
    keys = read_api_keys(decode_setting(text, path), path)
    check_distinct([(key, f"{path}[{index}]") for index, key in enumerate(keys)])
    return keys


def render_api_keys(keys: Iterable[ApiKeySetting]) -> str:
    """Return the contents of a key file, sorted by name; keys with the same name keep their order."""
    entries = [_rendered(key) for key in sorted(keys, key=lambda key: key.name)]
    text = json.dumps(entries, ensure_ascii=False, indent=2) + "\n"
    if len(entries) > MAX_API_KEYS or is_too_long(text):
        raise ConfigurationError(
            "There are more API keys than one key file can contain.",
            key="api_key_file",
            remedy="Remove keys that have expired or were revoked.",
        )
    return text


def read_api_keys(value: object, path: str) -> tuple[ApiKeySetting, ...]:
    """Parse a decoded list of keys; an unknown role does not reject the list, because it may contain revocations."""
    entries = as_list(value, path)
    if len(entries) > MAX_API_KEYS:
        raise refused(path, f"contains more than {MAX_API_KEYS} keys")
    return tuple(_read_key(entry, f"{path}[{index}]") for index, entry in enumerate(entries))


def check_distinct(keys: Iterable[tuple[ApiKeySetting, str]]) -> None:
    """Check that no key is listed twice, whether in plaintext or as a digest."""
    first_paths: dict[bytes, str] = {}
    for key, path in keys:
        first = first_paths.setdefault(key_digest(key), path)
        if first != path:
            raise refused(path, f"is the same key as {first}", "Give each entry its own key.")
    if len(first_paths) > MAX_API_KEYS:
        raise ConfigurationError(f"There are more than {MAX_API_KEYS} API keys in total.", key=path)


def key_digest(key: ApiKeySetting) -> bytes:
    """Return the SHA-256 digest of the key, however it is configured."""
    if key.sha256 is not None:
        return key.sha256
    text = "" if key.key is None else key.key.reveal()
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _read_key(entry: object, path: str) -> ApiKeySetting:
    values = as_object(entry, path)
    if not values.keys() <= _MEMBERS:
        # Don't show the name: in a list that is mistakenly written as {key: name}, it is the key.
        raise refused(path, "has an unknown name", f"Known names: {', '.join(sorted(_MEMBERS))}.")
    members = Members(values=values, place=path)
    if "key" in members and "sha256" in members:
        raise refused(path, "has both key and sha256", "Keep only sha256, which doesn't reveal the key.")
    return ApiKeySetting(
        name=members.require("name", as_text),
        sha256=members.read("sha256", _as_digest, None),
        key=None if "sha256" in members else Secret(members.require("key", as_text)),
        expires_at=members.read("expires_at", as_time, None),
        scopes=members.read("scopes", _as_scopes, _DEFAULT_SCOPES),
        roles=members.read("roles", partial(read_role_names, known_roles=None), ()),
        created_at=members.read("created_at", as_time, None),
        revoked_at=members.read("revoked_at", as_time, None),
        owner=members.read("owner", as_text, None),
        owner_groups=members.read("owner_groups", _as_texts_or_none, None),
    )


def _as_digest(value: object, key: str) -> bytes:
    if not isinstance(value, str) or not _SHA256.fullmatch(value):
        raise refused(key, "is not a SHA-256 digest of 64 hexadecimal digits")
    digest = bytes.fromhex(value)
    if digest == _DIGEST_OF_NOTHING:
        raise refused(key, "is the digest of an empty key", "Create a new key.")
    return digest


def _as_scopes(value: object, key: str) -> frozenset[str]:
    scopes = as_texts(value, key)
    for index, scope in enumerate(scopes):
        if not is_scope(scope):
            raise refused(f"{key}[{index}]", "is not a scope", SCOPE_REMEDY)
    return frozenset(scopes)


SCOPE_REMEDY = (
    "Use read, write, metrics, ingest (rows for every table), or ingest: followed by a table name or prefix, such as "
    "ingest:orders."
)


def is_scope(text: str) -> bool:
    """Whether an API key may have this scope."""
    kind, colon, pattern = text.partition(":")
    return text in _PLAIN_SCOPES or (bool(colon) and kind == INGEST_SCOPE and bool(_TABLE_PATTERN.fullmatch(pattern)))


def ingest_patterns(scopes: Iterable[str]) -> frozenset[str]:
    """Return the tables that a key with these scopes may send rows to, regardless of its roles."""
    beginning = f"{INGEST_SCOPE}:"
    named = frozenset(scope.removeprefix(beginning) for scope in scopes if scope.startswith(beginning))
    return named | {EVERY_TABLE} if INGEST_SCOPE in scopes else named


def _rendered(key: ApiKeySetting) -> dict[str, object]:
    entry: dict[str, object] = {
        "name": key.name,
        "sha256": None if key.sha256 is None else key.sha256.hex(),
        "key": None if key.sha256 is not None or key.key is None else key.key.reveal(),
        "scopes": None if key.scopes == _DEFAULT_SCOPES else sorted(key.scopes),
        "roles": list(key.roles) or None,
        "owner": key.owner,
        "owner_groups": None if key.owner_groups is None else list(key.owner_groups),
    }
    for member in ("created_at", "expires_at", "revoked_at"):
        time: datetime | None = getattr(key, member)
        entry[member] = None if time is None else time.isoformat().replace("+00:00", "Z")
    return {name: value for name, value in entry.items() if value is not None}


class LegacyApiKeys(enum.StrEnum):
    """How plaintext API keys are handled."""

    ON = "on"
    WARN = "warn"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimits:
    """Limits on calls per identity and on rejected credentials per address; each is a token bucket."""

    calls_per_second: float = 2000.0
    burst_calls: int = 10_000
    refusals_per_second: float = 500.0
    burst_refusals: int = 5000
    max_tracked: int = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessSettings:
    """Whose tokens and keys a server accepts, who administers it, and what callers may read.

    `admins` are `issuer|subject`, `issuer|address`, a subject, or an address; `denied` are `issuer|subject` or
    `api_key|name`. Without `roles`, every caller may read every table. `admins_path` is the name of `admins` in errors.
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


RATE_LIMIT_MEMBERS = frozenset(RateLimits.__slots__)
_as_frequency = partial(as_rate, minimum=0.001, maximum=1_000_000)
_as_number = partial(as_count, maximum=1_000_000)


def as_rate_limits(value: object, key: str) -> RateLimits:
    """Parse the limits; missing members use their defaults."""
    limits: dict[str, Any] = {}
    for name, limit in as_object(value, key, known=RATE_LIMIT_MEMBERS).items():
        reader = _as_frequency if name.endswith("_per_second") else _as_number
        limits[name] = reader(limit, f"{key}.{name}")
    return RateLimits(**limits)


API_KEYS = "MICROMEGAS_API_KEYS"
API_KEY_FILE = "MICROMEGAS_API_KEY_FILE"
OIDC_CONFIG = "MICROMEGAS_OIDC_CONFIG"
ADMINS = "MICROMEGAS_ADMINS"
LEGACY_API_KEYS = "MICROMEGAS_LEGACY_API_KEYS"
ACCESS_CONFIG = "MICROMEGAS_ACCESS_CONFIG"

# This is upstream's row isolation; ignoring it would reveal rows that were meant to be hidden.
_AUDIENCE_GRANT_VARIABLES = (
    "MICROMEGAS_AUDIENCE_GRANTS",
    "MICROMEGAS_UNSTAMPED_AUDIENCE",
    "MICROMEGAS_PUBLIC_VIEW_SETS",
)

VARIABLES = frozenset({
    API_KEYS, API_KEY_FILE, OIDC_CONFIG, ADMINS, LEGACY_API_KEYS, ACCESS_CONFIG, *_AUDIENCE_GRANT_VARIABLES,
})  # fmt: skip
"""Every variable that configures who has access."""

CONFIG_MEMBERS = frozenset(
    ["oidc", "api_keys", "api_key_file", "admins", "denied", "roles", "default_roles", "legacy_api_keys", "rate_limits"]
)


def find_config_file(environ: Mapping[str, str]) -> str | None:
    """Return the configuration file's path as specified, or None."""
    return as_text(environ[ACCESS_CONFIG], ACCESS_CONFIG) if environ.get(ACCESS_CONFIG) else None


def find_key_file(environ: Mapping[str, str], *, config_text: str | None) -> str | None:
    """Return the API key file's path as specified, or None."""
    named = _pick(environ, API_KEY_FILE, _config_members(config_text), "api_key_file", decode=_undecoded)
    return None if named is None else as_text(*named)


def parse_access_settings(
    environ: Mapping[str, str], *, config_text: str | None = None, key_file_text: str | None = None
) -> AccessSettings:
    """Parse the environment, the configuration file, and the key file; every setting must be completely valid.

    If a file is specified but its text isn't passed, settings that depend on it are skipped; callers must pass it.
    """
    for variable in _AUDIENCE_GRANT_VARIABLES:
        if environ.get(variable):
            raise refused(
                variable,
                "is set, but this server doesn't support audience grants",
                "Define read access with roles, and unset the variable.",
            )
    find_key_file(environ, config_text=config_text)
    config = _config_members(config_text)
    roles = config.read("roles", parse_roles, None)
    is_config_missing = config_text is None and bool(environ.get(ACCESS_CONFIG))
    known_roles = None if is_config_missing else frozenset(roles or ())
    oidc = _pick(environ, OIDC_CONFIG, config, "oidc")
    admins = _pick(environ, ADMINS, config, "admins")
    legacy = _pick(environ, LEGACY_API_KEYS, config, "legacy_api_keys", decode=_undecoded)
    settings = AccessSettings(
        api_keys=_read_all_keys(environ, config, key_file_text),
        oidc=None if oidc is None else parse_oidc_config(*oidc, known_roles=known_roles),
        admins=() if admins is None else _as_texts_or_none(*admins),
        admins_path=ADMINS if admins is None else admins[1],
        denied=config.read("denied", _as_texts_or_none, ()),
        roles=roles,
        default_roles=config.read("default_roles", partial(_as_default_roles, known_roles=known_roles), ()),
        legacy_api_keys=LegacyApiKeys.WARN if legacy is None else as_type(*legacy, kind=LegacyApiKeys),
        rate_limits=config.read("rate_limits", as_rate_limits, RateLimits()),
    )
    _check_denied(config.key("denied"), settings.denied, () if settings.oidc is None else settings.oidc.issuers)
    return settings


def _undecoded(text: str, _key: str) -> object:
    return text


def _config_members(config_text: str | None) -> Members:
    decoded = {} if config_text is None else decode_setting(config_text, ACCESS_CONFIG)
    return Members(values=as_object(decoded, ACCESS_CONFIG, known=CONFIG_MEMBERS), place=ACCESS_CONFIG)


def _pick(
    environ: Mapping[str, str],
    variable: str,
    config: Members,
    member: str,
    *,
    decode: Callable[[str, str], object] = decode_setting,
) -> tuple[object, str] | None:
    """Return a setting's value and path from its variable or the configuration file, or None if neither sets it."""
    text = environ.get(variable)
    if text and member in config:
        raise refused(variable, f"and {config.key(member)} are both set", "Keep only one of them.")
    if text:
        return decode(text, variable), variable
    return (config.values[member], config.key(member)) if member in config else None


def _read_all_keys(environ: Mapping[str, str], config: Members, key_file_text: str | None) -> tuple[ApiKeySetting, ...]:
    named = _pick(environ, API_KEYS, config, "api_keys")
    sources = [] if named is None else [named]
    if key_file_text is not None:
        path = config.key("api_key_file") if "api_key_file" in config else API_KEY_FILE
        sources.append((decode_setting(key_file_text, path), path))
    found = [
        (key, f"{path}[{index}]") for value, path in sources for index, key in enumerate(read_api_keys(value, path))
    ]
    check_distinct(found)
    return tuple(key for key, _ in found)


def _as_texts_or_none(value: object, key: str) -> tuple[str, ...]:
    """Parse a list of names; an empty list is equivalent to a missing one."""
    return as_texts(value, key) if as_list(value, key) else ()


def _as_default_roles(value: object, key: str, *, known_roles: Collection[str] | None) -> tuple[str, ...]:
    return read_role_names(value, key, known_roles=known_roles) if as_list(value, key) else ()


def _check_denied(key: str, denied: Collection[str], issuers: Collection[IssuerSetting]) -> None:
    """Check that each entry can match a caller; an entry that can't would only appear to deny access."""
    beginnings = tuple(f"{name}|" for name in (API_KEY_ISSUER, *(setting.issuer for setting in issuers)))
    for entry in denied:
        if not entry.startswith(beginnings) or entry in beginnings:
            raise refused(
                key,
                f"contains {shown(entry)}, which is not a subject of a configured issuer",
                "Use issuer|subject with the issuer exactly as it is configured (not its alias), or api_key|name.",
            )


def read_listed_keys(config_text: str) -> tuple[ApiKeySetting, ...]:
    """Return the configuration's inline `api_keys`."""
    keys = as_object(decode_setting(config_text, ACCESS_CONFIG), ACCESS_CONFIG).get("api_keys", [])
    return read_api_keys(keys, f"{ACCESS_CONFIG}.api_keys")
