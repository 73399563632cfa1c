"""The accepted issuers: their entries are read, presets fill in what these leave out, tenants are expanded.

Where the JSON stands is said in `access_config`; holding a token against the rules is left to the validator.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from urllib.parse import urlsplit

from micromegas_jupyter.config.access import (
    MAX_LEEWAY_SECONDS,
    ClaimValue,
    IssuerSetting,
    OidcServerSettings,
    TokenKind,
    read_role_names,
)
from micromegas_jupyter.config.decoding import (
    MAX_ENTRIES,
    SIGNATURE_ALGORITHMS,
    Members,
    as_choice,
    as_count,
    as_fetch_url,
    as_flag,
    as_issuer,
    as_list,
    as_named,
    as_object,
    as_text,
    as_text_or_texts,
    as_texts,
    shown,
)
from micromegas_jupyter.config.presets import apply_preset
from micromegas_jupyter.errors import ConfigurationError

_MAX_PATH_STEPS = 8
_MAX_PATHS = 16


def as_subjects(value: object, key: str) -> tuple[str, ...]:
    """Read the accepted subjects; a star at the end makes an entry a prefix."""
    subjects = as_texts(value, key)
    for subject in subjects:
        if subject == "*" or "*" in subject[:-1]:
            raise ConfigurationError(
                f"{key} holds {shown(subject)}: a star stands only at the end, after what the subject begins with.",
                key=key,
                remedy="Write the whole subject, or its beginning and a star.",
            )
    return subjects


def as_claim_paths(value: object, key: str) -> tuple[tuple[str, ...], ...]:
    """Read one name, one path of names, or several paths; a dot in a name is a dot."""
    if not isinstance(value, list):
        return ((as_text(value, key),),)
    if not any(isinstance(step, list) for step in value):
        return (_as_path(value, key),)
    if len(value) > _MAX_PATHS:
        raise ConfigurationError(f"{key} has more than {_MAX_PATHS} paths.", key=key)
    return tuple(_as_path(path, f"{key}[{index}]") for index, path in enumerate(value))


def _as_path(value: object, key: str) -> tuple[str, ...]:
    steps = as_texts(value, key)
    if len(steps) > _MAX_PATH_STEPS:
        raise ConfigurationError(f"{key} is not a path of at most {_MAX_PATH_STEPS} names.", key=key)
    return steps


def as_required_claims(value: object, key: str) -> Mapping[str, tuple[ClaimValue, ...]]:
    """Read claims by name, each with one accepted value or a list of them."""
    return MappingProxyType(
        {name: _as_claim_values(wanted, f"{key}.{name}") for name, wanted in as_named(value, key).items()}
    )


def _as_claim_values(value: object, key: str) -> tuple[ClaimValue, ...]:
    if not isinstance(value, list):
        return (_as_claim_value(value, key),)
    if not value:
        raise ConfigurationError(f"{key} is empty.", key=key, remedy="Add a value, or leave the claim out.")
    if len(value) > MAX_ENTRIES:
        raise ConfigurationError(f"{key} has more than {MAX_ENTRIES} entries.", key=key)
    return tuple(_as_claim_value(entry, f"{key}[{index}]") for index, entry in enumerate(value))


def _as_claim_value(value: object, key: str) -> ClaimValue:
    if isinstance(value, bool | int):
        return value
    if isinstance(value, str):
        return as_text(value, key)
    raise ConfigurationError(f"{key} is no text, whole number, true or false.", key=key)


TENANT_PLACEHOLDER = "{tenantid}"
MAX_TENANTS = 1000

_TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_URL_MEMBERS = ("issuer", "discovery_url", "jwks_url")
_ENTRA_HOSTS = frozenset(
    {
        "login.microsoftonline.com",
        "login.microsoftonline.us",
        "login.partner.microsoftonline.cn",
        "login.windows.net",
        "sts.windows.net",
    }
)
# These names stand for many tenants; no token has them in its issuer.
_ENTRA_SHARED_NAMES = frozenset({"common", "organizations", "consumers"})
_TENANT_REMEDY = 'Write {tenantid} in its place and list the accepted tenants, such as "tenants": ["<tenant id>"].'


def expand_tenants(values: Mapping[str, object], place: str) -> Iterator[tuple[str | None, dict[str, object]]]:
    """Yield an entry's members once for each of its tenants, with the tenant's name in place of `{tenantid}`.

    An entry without tenants is yielded as it is, with None. `required_claims` of a tenant hold its `tid`.
    """
    issuer = Members(values=values, place=place).require("issuer", as_text)
    if "tenants" not in values:
        if TENANT_PLACEHOLDER in issuer:
            raise ConfigurationError(
                f"{place}.issuer holds {TENANT_PLACEHOLDER} and no tenants are listed, so every tenant of the provider "
                "would be accepted.",
                key=f"{place}.tenants",
                remedy='List the accepted tenants, such as "tenants": ["<tenant id>"].',
            )
        _check_fixed(values, place)
        yield None, dict(values)
        return
    if issuer.count(TENANT_PLACEHOLDER) != 1:
        raise ConfigurationError(
            f"{place}.issuer does not hold {TENANT_PLACEHOLDER} exactly once, and tenants are listed.",
            key=f"{place}.issuer",
            remedy=f"Write {TENANT_PLACEHOLDER} where the tenant stands, or leave tenants out.",
        )
    for tenant in _read_tenants(values["tenants"], f"{place}.tenants"):
        expanded = _for_tenant(values, tenant, place)
        _check_fixed(expanded, place)
        yield tenant, expanded


def _read_tenants(value: object, key: str) -> tuple[str, ...]:
    tenants = as_texts(value, key)
    if len(tenants) > MAX_TENANTS:
        raise ConfigurationError(f"{key} lists more than {MAX_TENANTS} tenants.", key=key)
    for tenant in tenants:
        if not _TENANT.fullmatch(tenant):
            raise ConfigurationError(
                f"{key} holds {shown(tenant)}, which is no tenant.",
                key=key,
                remedy="A tenant consists of letters, digits, dots, hyphens and underscores.",
            )
    return tenants


def _for_tenant(values: Mapping[str, object], tenant: str, place: str) -> dict[str, object]:
    expanded = {name: value for name, value in values.items() if name != "tenants"}
    for name in _URL_MEMBERS:
        if name in values:
            expanded[name] = as_text(values[name], f"{place}.{name}").replace(TENANT_PLACEHOLDER, tenant)
    if "aliases" in values:
        aliases = as_texts(values["aliases"], f"{place}.aliases")
        expanded["aliases"] = [alias.replace(TENANT_PLACEHOLDER, tenant) for alias in aliases]
    claims = as_object(values.get("required_claims", {}), f"{place}.required_claims")
    if "tid" in claims:
        raise ConfigurationError(
            f"{place}.required_claims.tid follows from the tenants.",
            key=f"{place}.required_claims.tid",
            remedy="Leave tid out.",
        )
    expanded["required_claims"] = {**claims, "tid": tenant}
    return expanded


def _check_fixed(values: Mapping[str, object], place: str) -> None:
    """Check that nothing is left that stands for several tenants."""
    aliases = values.get("aliases")
    named = [(name, values.get(name)) for name in _URL_MEMBERS]
    listed = [(f"aliases[{index}]", alias) for index, alias in enumerate(aliases if isinstance(aliases, list) else [])]
    for name, text in (*named, *listed):
        if isinstance(text, str) and ("{" in text or "}" in text):
            raise ConfigurationError(
                f"{place}.{name} holds a placeholder that stands for nothing here.",
                key=f"{place}.{name}",
                remedy=f"Only {TENANT_PLACEHOLDER} is filled in, and only where tenants are listed.",
            )
        if isinstance(text, str) and name.startswith(("issuer", "aliases")) and _is_shared_by_tenants(text):
            raise ConfigurationError(
                f"{place}.{name} stands for every tenant, and no token has it as its issuer.",
                key=f"{place}.{name}",
                remedy=_TENANT_REMEDY,
            )


def _is_shared_by_tenants(issuer: str) -> bool:
    try:
        parts = urlsplit(issuer)
    except ValueError:
        return False
    first_segment = parts.path.lstrip("/").partition("/")[0]
    return parts.hostname in _ENTRA_HOSTS and first_segment.lower() in _ENTRA_SHARED_NAMES


ISSUER_MEMBERS = frozenset(
    {
        "issuer", "audience", "preset", "aliases", "discovery_url", "jwks_url", "jwks_file", "ca_file",
        "bearer_token_file", "algorithms", "subject_claim", "subjects", "groups_claim", "required_claims", "client_ids",
        "trusted_for_email", "tenants", "without_audience", "token_kind", "rfc9068", "leeway_secs", "admin_groups",
        "group_roles",
    }
)  # fmt: skip

_KEY_PLACES = ("discovery_url", "jwks_url", "jwks_file")


def parse_issuer(entry: object, place: str, *, known_roles: Collection[str] | None) -> tuple[IssuerSetting, ...]:
    """Read one entry; it is several issuers when it lists tenants."""
    values = apply_preset(as_object(entry, place, known=ISSUER_MEMBERS), place)
    return tuple(
        _read_issuer(Members(values=expanded, place=place), tenant, known_roles)
        for tenant, expanded in expand_tenants(values, place)
    )


def _read_issuer(members: Members, tenant: str | None, known_roles: Collection[str] | None) -> IssuerSetting:
    _check_key_places(members)
    setting = IssuerSetting(
        issuer=members.require("issuer", as_issuer),
        place=members.place,
        audiences=_read_audiences(members),
        aliases=members.read("aliases", as_texts, ()),
        discovery_url=members.read("discovery_url", as_fetch_url, None),
        jwks_url=members.read("jwks_url", as_fetch_url, None),
        jwks_file=members.read("jwks_file", as_text, None),
        ca_file=members.read("ca_file", as_text, None),
        bearer_token_file=members.read("bearer_token_file", as_text, None),
        algorithms=members.read("algorithms", _as_algorithms, SIGNATURE_ALGORITHMS),
        subject_claim=members.read("subject_claim", as_text, "sub"),
        subjects=members.read("subjects", as_subjects, ()),
        group_claims=members.read("groups_claim", as_claim_paths, None),
        required_claims=members.read("required_claims", as_required_claims, MappingProxyType({})),
        client_ids=members.read("client_ids", as_texts, ()),
        is_trusted_for_email=members.read("trusted_for_email", as_flag, None),
        tenant=tenant,
        token_kind=members.read("token_kind", partial(as_choice, choices=TokenKind), TokenKind.EITHER),
        is_rfc9068=members.read("rfc9068", as_flag, False),
        leeway_seconds=members.read(
            "leeway_secs", partial(as_count, minimum=0, maximum=MAX_LEEWAY_SECONDS), MAX_LEEWAY_SECONDS
        ),
        admin_groups=members.read("admin_groups", as_texts, ()),
        group_roles=members.read(
            "group_roles", partial(_as_group_roles, known_roles=known_roles), MappingProxyType({})
        ),
    )
    _check_kind(members, setting)
    return setting


def _check_key_places(members: Members) -> None:
    named = [name for name in _KEY_PLACES if name in members]
    if len(named) > 1:
        raise ConfigurationError(
            f"{members.place} has {' and '.join(named)}, which say where the keys are in different ways.",
            key=members.key(named[1]),
            remedy="Keep one of them.",
        )
    if "bearer_token_file" in members and "ca_file" not in members:
        raise ConfigurationError(
            f"{members.key('bearer_token_file')} is a credential, and no certificate says who may receive it.",
            key=members.key("bearer_token_file"),
            remedy="Add ca_file.",
        )


def _read_audiences(members: Members) -> tuple[str, ...]:
    if not members.read("without_audience", as_flag, False):
        return tuple(dict.fromkeys(members.require("audience", as_text_or_texts)))
    if "audience" in members:
        raise ConfigurationError(
            f"{members.key('audience')} is set for tokens that have no audience.",
            key=members.key("audience"),
            remedy="Remove audience, or set without_audience to false.",
        )
    if "client_ids" not in members:
        raise ConfigurationError(
            f"{members.key('client_ids')} is missing: without an audience it alone keeps out tokens of other "
            "applications.",
            key=members.key("client_ids"),
            remedy="Add the ids of the applications whose tokens are accepted.",
        )
    claims = members.read("required_claims", as_object, {})
    if "token_use" not in claims:
        raise ConfigurationError(
            f"{members.key('required_claims')}.token_use is missing: without an audience it alone keeps out tokens "
            "for other uses.",
            key=f"{members.key('required_claims')}.token_use",
            remedy='Add it, such as "required_claims": {"token_use": "access"}.',
        )
    return ()


def _check_kind(members: Members, setting: IssuerSetting) -> None:
    if setting.is_rfc9068 and (setting.token_kind is TokenKind.ID or not setting.audiences):
        raise ConfigurationError(
            f"{members.key('rfc9068')} is about access tokens with an audience, which are not accepted here.",
            key=members.key("rfc9068"),
            remedy="Leave it out, or accept access tokens with an audience.",
        )


def _as_algorithms(value: object, key: str) -> frozenset[str]:
    names = as_texts(value, key)
    for index, name in enumerate(names):
        if name in SIGNATURE_ALGORITHMS:
            continue
        reason = "is not a known signature algorithm"
        if name.lower() == "none":
            reason = "means no signature, so that anybody could write a token"
        elif name.upper().startswith("HS"):
            reason = "signs with a shared secret, so that whoever can check a token can write one"
        raise ConfigurationError(
            f"{key}[{index}] is {shown(name)}: that {reason}.",
            key=f"{key}[{index}]",
            remedy=f"Accepted: {', '.join(sorted(SIGNATURE_ALGORITHMS))}.",
        )
    return frozenset(names)


def _as_group_roles(value: object, key: str, *, known_roles: Collection[str] | None) -> Mapping[str, tuple[str, ...]]:
    named = as_named(value, key)
    return MappingProxyType(
        {group: read_role_names(roles, f"{key}.{group}", known_roles=known_roles) for group, roles in named.items()}
    )


MAX_ISSUERS = 2000
OIDC_MEMBERS = frozenset(
    {
        "issuers",
        "jwks_refresh_interval_secs",
        "jwks_stale_limit_secs",
        "jwks_cool_down_secs",
        "token_cache_size",
        "token_cache_ttl_secs",
    }
)

_ONE_WEEK_SECONDS = 7 * 24 * 3600
_MAX_CACHED_TOKENS = 1_000_000
_MIN_COOL_DOWN_SECONDS = 10
_MAX_COOL_DOWN_SECONDS = 60


def parse_oidc_config(value: object, place: str, *, known_roles: Collection[str] | None) -> OidcServerSettings:
    """Read what `MICROMEGAS_OIDC_CONFIG` holds."""
    members = Members(values=as_object(value, place, known=OIDC_MEMBERS), place=place)
    entries = members.require("issuers", as_list)
    if not entries:
        raise ConfigurationError(f"{members.key('issuers')} is empty.", key=place, remedy="Add an issuer.")
    issuers = _merge(entries, members.key("issuers"), known_roles)
    defaults = OidcServerSettings(issuers=())
    as_seconds = partial(as_count, maximum=_ONE_WEEK_SECONDS)
    as_cool_down = partial(as_count, minimum=_MIN_COOL_DOWN_SECONDS, maximum=_MAX_COOL_DOWN_SECONDS)
    as_size = partial(as_count, maximum=_MAX_CACHED_TOKENS)
    refresh = members.read("jwks_refresh_interval_secs", as_seconds, defaults.jwks_refresh_interval_seconds)
    # Upstream's configuration has no limit, so the default one gives way to a long interval.
    stale_limit = members.read("jwks_stale_limit_secs", as_seconds, max(defaults.jwks_stale_limit_seconds, refresh))
    if stale_limit < refresh:
        raise ConfigurationError(
            f"{members.key('jwks_stale_limit_secs')} is below jwks_refresh_interval_secs ({refresh}).",
            key=members.key("jwks_stale_limit_secs"),
            remedy="Raise the one or lower the other.",
        )
    return OidcServerSettings(
        issuers=issuers,
        jwks_refresh_interval_seconds=refresh,
        jwks_stale_limit_seconds=stale_limit,
        jwks_cool_down_seconds=members.read("jwks_cool_down_secs", as_cool_down, defaults.jwks_cool_down_seconds),
        token_cache_size=members.read("token_cache_size", as_size, defaults.token_cache_size),
        token_cache_ttl_seconds=members.read("token_cache_ttl_secs", as_seconds, defaults.token_cache_ttl_seconds),
    )


def _merge(entries: list[object], place: str, known_roles: Collection[str] | None) -> tuple[IssuerSetting, ...]:
    """Read all entries; one issuer's entries, upstream's way to give it several audiences, become one."""
    if len(entries) > MAX_ISSUERS:
        raise ConfigurationError(f"{place} has more than {MAX_ISSUERS} entries.", key=place)
    found: dict[str, tuple[IssuerSetting, str]] = {}
    for index, entry in enumerate(entries):
        entry_place = f"{place}[{index}]"
        for setting in parse_issuer(entry, entry_place, known_roles=known_roles):
            earlier, earlier_place = found.get(setting.issuer, (None, entry_place))
            merged = setting if earlier is None else _merge_audiences(earlier, setting, earlier_place, entry_place)
            found[setting.issuer] = (merged, earlier_place)
        if len(found) > MAX_ISSUERS:
            raise ConfigurationError(f"{place} names more than {MAX_ISSUERS} issuers.", key=place)
    _check_names(found)
    return tuple(setting for setting, _ in found.values())


def _merge_audiences(
    earlier: IssuerSetting, later: IssuerSetting, earlier_place: str, later_place: str
) -> IssuerSetting:
    is_same = replace(earlier, audiences=()) == replace(later, audiences=())
    if not is_same or bool(earlier.audiences) != bool(later.audiences):
        raise ConfigurationError(
            f"{later_place} is the issuer of {earlier_place} with other members.",
            key=later_place,
            remedy="Entries of one issuer may differ in their audience only.",
        )
    audiences = tuple(dict.fromkeys((*earlier.audiences, *later.audiences)))
    if len(audiences) > MAX_ENTRIES:
        raise ConfigurationError(f"{later_place} has more than {MAX_ENTRIES} audiences.", key=later_place)
    return replace(earlier, audiences=audiences)


def _check_names(found: dict[str, tuple[IssuerSetting, str]]) -> None:
    """Check that each value of `iss` means one issuer."""
    taken = set(found)
    for setting, place in found.values():
        for alias in setting.aliases:
            if alias in taken:
                raise ConfigurationError(
                    f"{place}.aliases holds {shown(alias)}, which is another issuer or alias already.",
                    key=f"{place}.aliases",
                    remedy="Each name may mean one issuer only.",
                )
            taken.add(alias)
