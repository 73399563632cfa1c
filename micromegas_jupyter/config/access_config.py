"""Environment and configuration file become the server half's settings.

Nothing is read from the disk here: the caller reads the files that are named and hands the texts in. Each setting may
be in one path only, so that nobody has to know which of two wins.
"""

from collections.abc import Callable, Collection, Mapping
from functools import partial

from micromegas_jupyter.config.access import (
    API_KEY_ISSUER,
    AccessSettings,
    ApiKeySetting,
    IssuerSetting,
    LegacyApiKeys,
    RateLimits,
    as_rate_limits,
    check_distinct,
    parse_roles,
    read_api_keys,
    read_role_names,
)
from micromegas_jupyter.config.decoding import (
    Members,
    as_choice,
    as_list,
    as_object,
    as_text,
    as_texts,
    decode_setting,
    shown,
)
from micromegas_jupyter.config.issuer_config import parse_oidc_config
from micromegas_jupyter.errors import ConfigurationError

API_KEYS = "MICROMEGAS_API_KEYS"
API_KEY_FILE = "MICROMEGAS_API_KEY_FILE"
OIDC_CONFIG = "MICROMEGAS_OIDC_CONFIG"
ADMINS = "MICROMEGAS_ADMINS"
LEGACY_API_KEYS = "MICROMEGAS_LEGACY_API_KEYS"
ACCESS_CONFIG = "MICROMEGAS_ACCESS_CONFIG"

# Upstream's row isolation; a server that took no notice of it would show rows that were meant to be hidden.
_AUDIENCE_GRANT_VARIABLES = (
    "MICROMEGAS_AUDIENCE_GRANTS",
    "MICROMEGAS_UNSTAMPED_AUDIENCE",
    "MICROMEGAS_PUBLIC_VIEW_SETS",
)

CONFIG_MEMBERS = frozenset(
    {
        "oidc",
        "api_keys",
        "api_key_file",
        "admins",
        "denied",
        "roles",
        "default_roles",
        "legacy_api_keys",
        "rate_limits",
    }
)


def find_config_file(environ: Mapping[str, str]) -> str | None:
    """Return the configuration file's path as it is written, None when none is named."""
    return as_text(environ[ACCESS_CONFIG], ACCESS_CONFIG) if environ.get(ACCESS_CONFIG) else None


def find_key_file(environ: Mapping[str, str], *, config_text: str | None) -> str | None:
    """Return the path of the file of API keys as it is written, None when none is named."""
    named = _pick(environ, API_KEY_FILE, _config_members(config_text), "api_key_file", decode=_undecoded)
    return None if named is None else as_text(*named)


def parse_access_settings(
    environ: Mapping[str, str], *, config_text: str | None = None, key_file_text: str | None = None
) -> AccessSettings:
    """Read the environment, the configuration file and the key file.

    A variable that is absent or empty counts as not set; anything else must be right in full, or nothing is accepted.
    A file that is named and not handed in is left out, and so is what depends on it: its reader must not forget it.
    """
    for variable in _AUDIENCE_GRANT_VARIABLES:
        if environ.get(variable):
            raise ConfigurationError(
                f"{variable} is set, and this server has no audience grants.",
                key=variable,
                remedy="Say who may read what by roles, and unset the variable.",
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
        legacy_api_keys=LegacyApiKeys.WARN if legacy is None else as_choice(*legacy, choices=LegacyApiKeys),
        rate_limits=config.read("rate_limits", as_rate_limits, RateLimits()),
    )
    _check_denied(config.key("denied"), settings.denied, () if settings.oidc is None else settings.oidc.issuers)
    return settings


def _undecoded(text: str, _key: str) -> object:
    return text


def _config_members(config_text: str | None) -> Members:
    if config_text is None:
        return Members(values={}, place=ACCESS_CONFIG)
    values = as_object(decode_setting(config_text, ACCESS_CONFIG), ACCESS_CONFIG, known=CONFIG_MEMBERS)
    return Members(values=values, place=ACCESS_CONFIG)


def _pick(
    environ: Mapping[str, str],
    variable: str,
    config: Members,
    member: str,
    *,
    decode: Callable[[str, str], object] = decode_setting,
) -> tuple[object, str] | None:
    """Return a setting's value and path, from its variable or the configuration file; None when it is in neither."""
    text = environ.get(variable)
    if text and member in config:
        raise ConfigurationError(
            f"{variable} and {config.key(member)} are both set.", key=variable, remedy="Keep one of the two."
        )
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
    """Read a list of names that may be empty, which means the same as leaving it out."""
    return as_texts(value, key) if as_list(value, key) else ()


def _as_default_roles(value: object, key: str, *, known_roles: Collection[str] | None) -> tuple[str, ...]:
    return read_role_names(value, key, known_roles=known_roles) if as_list(value, key) else ()


def _check_denied(key: str, denied: Collection[str], issuers: Collection[IssuerSetting]) -> None:
    """Check that each entry can match somebody; one that matches nobody would look as if access had been cut."""
    beginnings = tuple(f"{name}|" for name in (API_KEY_ISSUER, *(setting.issuer for setting in issuers)))
    for entry in denied:
        if not entry.startswith(beginnings) or entry in beginnings:
            raise ConfigurationError(
                f"{key} holds {shown(entry)}, which does not name a subject of a configured issuer.",
                key=key,
                remedy="Write issuer|subject with an issuer as it is configured (not its alias), or api_key|name.",
            )


def read_denied(config_text: str) -> tuple[str, ...]:
    """Return the configuration's `denied`; whether its entries can meet anybody is not checked."""
    denied = as_object(decode_setting(config_text, ACCESS_CONFIG), ACCESS_CONFIG).get("denied", [])
    return _as_texts_or_none(denied, f"{ACCESS_CONFIG}.denied")


def read_listed_keys(config_text: str) -> tuple[ApiKeySetting, ...]:
    """Return the configuration's own `api_keys`."""
    keys = as_object(decode_setting(config_text, ACCESS_CONFIG), ACCESS_CONFIG).get("api_keys", [])
    return read_api_keys(keys, f"{ACCESS_CONFIG}.api_keys")
