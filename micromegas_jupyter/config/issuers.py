"""Parses the accepted issuers, fills in missing members from presets, and expands tenants."""

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import partial
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

from micromegas_jupyter.config.decoding import (
    MAX_ENTRIES,
    SIGNATURE_ALGORITHMS,
    Members,
    as_count,
    as_flag,
    as_list,
    as_named,
    as_object,
    as_text_or_texts,
    as_texts,
    as_type,
)
from micromegas_jupyter.core.protocols import ClaimValue, TokenKind
from micromegas_jupyter.core.text import as_fetch_url, as_issuer, as_text, refused, shown
from micromegas_jupyter.errors import ConfigurationError

TENANT_PLACEHOLDER = "{tenantid}"
MAX_TENANTS = 1000
MAX_ISSUERS = 2000
MAX_LEEWAY_SECONDS = 60

_MAX_PATH_STEPS = 8
_MAX_PATHS = 16
_ONE_WEEK_SECONDS = 7 * 24 * 3600
_TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_URL_MEMBERS = ("issuer", "discovery_url", "jwks_url")
_KEY_LOCATIONS = ("discovery_url", "jwks_url", "jwks_file")
_ENTRA_HOSTS = frozenset({
    "login.microsoftonline.com", "login.microsoftonline.us", "login.partner.microsoftonline.cn", "login.windows.net",
    "sts.windows.net",
})  # fmt: skip
# These names represent many tenants; they never appear in a token's issuer.
_ENTRA_SHARED_NAMES = frozenset({"common", "organizations", "consumers"})
_TENANTS_REMEDY = 'List the accepted tenants, such as "tenants": ["<tenant id>"].'


def read_role_names(value: object, key: str, *, known_roles: Collection[str] | None) -> tuple[str, ...]:
    """Parse a role name or a list of role names; `known_roles` is None if any name is allowed."""
    names = as_text_or_texts(value, key)
    for name in names:
        if known_roles is not None and name not in known_roles:
            raise refused(
                key,
                f"contains the role {shown(name)}, which is not configured",
                "Add the role to `roles` in the configuration file, or use a different one.",
            )
    return names


def as_subjects(value: object, key: str) -> tuple[str, ...]:
    """Parse the accepted subjects; a trailing asterisk makes an entry a prefix."""
    subjects = as_texts(value, key)
    for subject in subjects:
        if subject == "*" or "*" in subject[:-1]:
            raise refused(
                key,
                f"contains {shown(subject)}, but an asterisk is allowed only at the end of a subject's prefix",
                "Use the whole subject, or its prefix followed by an asterisk.",
            )
    return subjects


def as_claim_paths(value: object, key: str) -> tuple[tuple[str, ...], ...]:
    """Parse one name, one path of names, or several paths; a dot is part of a name."""
    if not isinstance(value, list):
        return ((as_text(value, key),),)
    if not any(isinstance(step, list) for step in value):
        return (_as_path(value, key),)
    if len(value) > _MAX_PATHS:
        raise refused(key, f"has more than {_MAX_PATHS} paths")
    return tuple(_as_path(path, f"{key}[{index}]") for index, path in enumerate(value))


def _as_path(value: object, key: str) -> tuple[str, ...]:
    steps = as_texts(value, key)
    if len(steps) > _MAX_PATH_STEPS:
        raise refused(key, f"is not a path of at most {_MAX_PATH_STEPS} names")
    return steps


def as_required_claims(value: object, key: str) -> Mapping[str, tuple[ClaimValue, ...]]:
    """Parse claims by name, each with one accepted value or a list of values."""
    return MappingProxyType(
        {name: _as_claim_values(wanted, f"{key}.{name}") for name, wanted in as_named(value, key).items()}
    )


def _as_claim_values(value: object, key: str) -> tuple[ClaimValue, ...]:
    if not isinstance(value, list):
        return (_as_claim_value(value, key),)
    if not value:
        raise refused(key, "is empty", "Add a value, or omit the claim.")
    if len(value) > MAX_ENTRIES:
        raise refused(key, f"has more than {MAX_ENTRIES} entries")
    return tuple(_as_claim_value(entry, f"{key}[{index}]") for index, entry in enumerate(value))


def _as_claim_value(value: object, key: str) -> ClaimValue:
    if isinstance(value, bool | int):
        return value
    if isinstance(value, str):
        return as_text(value, key)
    raise refused(key, "is not a string, an integer, or a boolean")


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
        raise refused(
            f"{key}[{index}]",
            f"is {shown(name)}, which {reason}",
            f"Accepted: {', '.join(sorted(SIGNATURE_ALGORITHMS))}.",
        )
    return frozenset(names)


def _as_group_roles(value: object, key: str, *, known_roles: Collection[str] | None) -> Mapping[str, tuple[str, ...]]:
    return MappingProxyType(
        {
            group: read_role_names(roles, f"{key}.{group}", known_roles=known_roles)
            for group, roles in as_named(value, key).items()
        }
    )


def _member(reader: Callable[[object, str], Any], *default: Any, name: str | None = None) -> Any:
    """Declare a field that an entry's member sets, with its check, its default, and the member's name if it differs."""
    metadata = {"reader": reader, "member": name}
    if default and default[0] == {}:
        return field(default_factory=lambda: MappingProxyType({}), metadata=metadata)
    return field(default=default[0], metadata=metadata) if default else field(metadata=metadata)


_as_seconds = partial(as_count, maximum=_ONE_WEEK_SECONDS)


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuerSetting:
    """One accepted issuer; docs/server-settings.md describes each member.

    Without `audiences`, tokens have no `aud`, and `client_ids` and `token_use` restrict access. Without `group_claims`,
    groups are read from the usual claims. If `is_trusted_for_email` is None, the number of issuers decides. `tenant` is
    set if a template was expanded for it; `path` is the name of the entry in errors.
    """

    issuer: str = _member(as_issuer)
    audiences: tuple[str, ...] = ()
    aliases: tuple[str, ...] = _member(as_texts, ())
    discovery_url: str | None = _member(as_fetch_url, None)
    jwks_url: str | None = _member(as_fetch_url, None)
    jwks_file: str | None = _member(as_text, None)
    ca_file: str | None = _member(as_text, None)
    bearer_token_file: str | None = _member(as_text, None)
    algorithms: frozenset[str] = _member(_as_algorithms, SIGNATURE_ALGORITHMS)
    subject_claim: str = _member(as_text, "sub")
    subjects: tuple[str, ...] = _member(as_subjects, ())
    group_claims: tuple[tuple[str, ...], ...] | None = _member(as_claim_paths, None, name="groups_claim")
    required_claims: Mapping[str, tuple[ClaimValue, ...]] = _member(as_required_claims, {})
    client_ids: tuple[str, ...] = _member(as_texts, ())
    is_trusted_for_email: bool | None = _member(as_flag, None, name="trusted_for_email")
    tenant: str | None = None
    token_kind: TokenKind = _member(partial(as_type, kind=TokenKind), TokenKind.EITHER)
    is_rfc9068: bool = _member(as_flag, False, name="rfc9068")
    leeway_seconds: int = _member(
        partial(as_count, minimum=0, maximum=MAX_LEEWAY_SECONDS), MAX_LEEWAY_SECONDS, name="leeway_secs"
    )
    admin_groups: tuple[str, ...] = _member(as_texts, ())
    group_roles: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))
    path: str = field(default="issuer", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class OidcServerSettings:
    """The value of `MICROMEGAS_OIDC_CONFIG`; each issuer is listed once, with all its audiences."""

    issuers: tuple[IssuerSetting, ...]
    jwks_refresh_interval_seconds: int = _member(_as_seconds, 3600, name="jwks_refresh_interval_secs")
    jwks_stale_limit_seconds: int = _member(_as_seconds, 24 * 3600, name="jwks_stale_limit_secs")
    jwks_cool_down_seconds: int = _member(partial(as_count, minimum=10, maximum=60), 30, name="jwks_cool_down_secs")
    token_cache_size: int = _member(partial(as_count, maximum=1_000_000), 1000)
    token_cache_ttl_seconds: int = _member(_as_seconds, 300, name="token_cache_ttl_secs")


def _declared(kind: type) -> dict[str, tuple[str, Callable[[object, str], Any]]]:
    """Return the declared field and check for each member."""
    found = [(entry.name, entry.metadata) for entry in fields(kind) if entry.metadata]
    return {declared["member"] or name: (name, declared["reader"]) for name, declared in found}


_ISSUER_FIELDS = _declared(IssuerSetting)
_OIDC_FIELDS = _declared(OidcServerSettings)
ISSUER_MEMBERS = frozenset({*_ISSUER_FIELDS, "audience", "preset", "tenants", "without_audience", "group_roles"})
OIDC_MEMBERS = frozenset({*_OIDC_FIELDS, "issuers"})


def _read_fields(members: Members, declared: Mapping[str, tuple[str, Callable[[object, str], Any]]]) -> dict[str, Any]:
    return {
        field: reader(members.values[name], members.key(name))
        for name, (field, reader) in declared.items()
        if name in members
    }


def parse_issuer(entry: object, path: str, *, known_roles: Collection[str] | None) -> tuple[IssuerSetting, ...]:
    """Parse one entry; an entry with several tenants becomes several issuers."""
    values = apply_preset(as_object(entry, path, known=ISSUER_MEMBERS), path)
    return tuple(
        _read_issuer(Members(values=expanded, place=path), tenant, known_roles)
        for tenant, expanded in expand_tenants(values, path)
    )


def _read_issuer(members: Members, tenant: str | None, known_roles: Collection[str] | None) -> IssuerSetting:
    _check_key_locations(members)
    members.require("issuer", as_issuer)
    audiences = _read_audiences(members)
    values = _read_fields(members, _ISSUER_FIELDS)
    roles = members.read("group_roles", partial(_as_group_roles, known_roles=known_roles), MappingProxyType({}))
    setting = IssuerSetting(**values, audiences=audiences, group_roles=roles, tenant=tenant, path=members.place)
    if setting.is_rfc9068 and (setting.token_kind is TokenKind.ID or not setting.audiences):
        raise refused(
            members.key("rfc9068"),
            "applies only to access tokens with an audience, which aren't accepted here",
            "Omit it, or accept access tokens with an audience.",
        )
    return setting


def _check_key_locations(members: Members) -> None:
    named = [name for name in _KEY_LOCATIONS if name in members]
    if len(named) > 1:
        raise ConfigurationError(
            f"{members.place} has {' and '.join(named)}, which are different ways of specifying the keys' location.",
            key=members.key(named[1]),
            remedy="Keep only one of them.",
        )
    if "bearer_token_file" in members and "ca_file" not in members:
        raise refused(
            members.key("bearer_token_file"),
            "is a credential, which requires TLS",
            "Add ca_file.",
        )


def _read_audiences(members: Members) -> tuple[str, ...]:
    if not members.read("without_audience", as_flag, False):
        return tuple(dict.fromkeys(members.require("audience", as_text_or_texts)))
    if "audience" in members:
        raise refused(
            members.key("audience"),
            "is set for tokens that have no audience",
            "Remove audience, or set without_audience to false.",
        )
    if "client_ids" not in members:
        raise refused(
            members.key("client_ids"),
            "is missing, but without an audience, only this setting excludes other applications' tokens",
            "Add the IDs of the applications whose tokens are accepted.",
        )
    if "token_use" not in members.read("required_claims", as_object, {}):
        raise refused(
            f"{members.key('required_claims')}.token_use",
            "is missing, but without an audience, only this setting excludes tokens for other uses",
            'Add it, such as "required_claims": {"token_use": "access"}.',
        )
    return ()


def expand_tenants(values: Mapping[str, object], path: str) -> Iterator[tuple[str | None, dict[str, object]]]:
    """Yield an entry's members for each tenant, with `tid` required; without tenants, yield them once, with None."""
    issuer = Members(values=values, place=path).require("issuer", as_text)
    if "tenants" not in values:
        if TENANT_PLACEHOLDER in issuer:
            raise ConfigurationError(
                f"{path}.issuer contains {TENANT_PLACEHOLDER}, but no tenants are listed, so every tenant of the "
                "provider "
                "would be accepted.",
                key=f"{path}.tenants",
                remedy=_TENANTS_REMEDY,
            )
        _check_fixed(values, path)
        yield None, dict(values)
        return
    if issuer.count(TENANT_PLACEHOLDER) != 1:
        raise refused(
            f"{path}.issuer",
            f"does not contain {TENANT_PLACEHOLDER} exactly once, but tenants are listed",
            f"Replace the tenant with {TENANT_PLACEHOLDER}, or omit tenants.",
        )
    tenants, key = as_texts(values["tenants"], f"{path}.tenants"), f"{path}.tenants"
    if len(tenants) > MAX_TENANTS:
        raise refused(key, f"lists more than {MAX_TENANTS} tenants")
    for tenant in tenants:
        if not _TENANT.fullmatch(tenant):
            raise refused(
                key,
                f"contains {shown(tenant)}, which is not a tenant",
                "A tenant consists of letters, digits, dots, hyphens, and underscores.",
            )
    for tenant in tenants:
        expanded = _for_tenant(values, tenant, path)
        _check_fixed(expanded, path)
        yield tenant, expanded


def _for_tenant(values: Mapping[str, object], tenant: str, path: str) -> dict[str, object]:
    expanded = {name: value for name, value in values.items() if name != "tenants"}
    for name in _URL_MEMBERS:
        if name in values:
            expanded[name] = as_text(values[name], f"{path}.{name}").replace(TENANT_PLACEHOLDER, tenant)
    if "aliases" in values:
        aliases = as_texts(values["aliases"], f"{path}.aliases")
        expanded["aliases"] = [alias.replace(TENANT_PLACEHOLDER, tenant) for alias in aliases]
    claims = as_object(values.get("required_claims", {}), f"{path}.required_claims")
    if "tid" in claims:
        raise refused(f"{path}.required_claims.tid", "is derived from the tenants", "Leave tid out.")
    expanded["required_claims"] = {**claims, "tid": tenant}
    return expanded


def _check_fixed(values: Mapping[str, object], path: str) -> None:
    """Check that no member stands for several tenants."""
    aliases = values.get("aliases")
    named = [(name, values.get(name)) for name in _URL_MEMBERS]
    listed = [(f"aliases[{index}]", alias) for index, alias in enumerate(aliases if isinstance(aliases, list) else [])]
    for name, text in (*named, *listed):
        key = f"{path}.{name}"
        if isinstance(text, str) and ("{" in text or "}" in text):
            raise refused(
                key,
                "contains a placeholder that is not replaced here",
                f"Only {TENANT_PLACEHOLDER} is replaced, and only if tenants are listed.",
            )
        if isinstance(text, str) and name.startswith(("issuer", "aliases")) and _is_shared_by_tenants(text):
            raise refused(
                key,
                "represents every tenant, so no token has it as its issuer",
                f"Use {TENANT_PLACEHOLDER} instead. {_TENANTS_REMEDY}",
            )


def _is_shared_by_tenants(issuer: str) -> bool:
    try:
        parts = urlsplit(issuer)
    except ValueError:
        return False
    first_segment = parts.path.lstrip("/").partition("/")[0]
    return parts.hostname in _ENTRA_HOSTS and first_segment.lower() in _ENTRA_SHARED_NAMES


def parse_oidc_config(value: object, path: str, *, known_roles: Collection[str] | None) -> OidcServerSettings:
    """Parse the value of `MICROMEGAS_OIDC_CONFIG`."""
    members = Members(values=as_object(value, path, known=OIDC_MEMBERS), place=path)
    entries = members.require("issuers", as_list)
    if not entries:
        raise ConfigurationError(f"{members.key('issuers')} is empty.", key=path, remedy="Add an issuer.")
    issuers = _merge(entries, members.key("issuers"), known_roles)
    settings = OidcServerSettings(issuers=issuers, **_read_fields(members, _OIDC_FIELDS))
    refresh = settings.jwks_refresh_interval_seconds
    if settings.jwks_stale_limit_seconds >= refresh:
        return settings
    if "jwks_stale_limit_secs" in members:
        raise refused(
            members.key("jwks_stale_limit_secs"),
            f"is below jwks_refresh_interval_secs ({refresh})",
            "Increase the former or decrease the latter.",
        )
    # Upstream's configuration has no limit, so a long interval overrides the default limit.
    return replace(settings, jwks_stale_limit_seconds=refresh)


def _merge(entries: list[object], path: str, known_roles: Collection[str] | None) -> tuple[IssuerSetting, ...]:
    """Parse all entries, and merge those with the same issuer (upstream's way to specify several audiences)."""
    if len(entries) > MAX_ISSUERS:
        raise refused(path, f"has more than {MAX_ISSUERS} entries")
    found: dict[str, IssuerSetting] = {}
    for index, entry in enumerate(entries):
        for setting in parse_issuer(entry, f"{path}[{index}]", known_roles=known_roles):
            earlier = found.get(setting.issuer)
            found[setting.issuer] = setting if earlier is None else _merge_audiences(earlier, setting)
        if len(found) > MAX_ISSUERS:
            raise refused(path, f"lists more than {MAX_ISSUERS} issuers")
    taken = set(found)
    for setting in found.values():
        for alias in setting.aliases:
            if alias in taken:
                raise refused(
                    f"{setting.path}.aliases",
                    f"contains {shown(alias)}, which is already a different issuer or alias",
                    "Each name can refer to only one issuer.",
                )
            taken.add(alias)
    return tuple(found.values())


def _merge_audiences(earlier: IssuerSetting, later: IssuerSetting) -> IssuerSetting:
    is_same = replace(earlier, audiences=()) == replace(later, audiences=())
    if not is_same or bool(earlier.audiences) != bool(later.audiences):
        raise refused(
            later.path,
            f"has the same issuer as {earlier.path}, but different members",
            "Entries with the same issuer can differ only in their audience.",
        )
    audiences = tuple(dict.fromkeys((*earlier.audiences, *later.audiences)))
    if len(audiences) > MAX_ENTRIES:
        raise refused(later.path, f"has more than {MAX_ENTRIES} audiences")
    return replace(earlier, audiences=audiences)


# Claims that are the same in every token of an issuer.
_CLAIMS_OF_EVERYBODY = frozenset({"iss", "aud", "exp", "iat", "nbf", "email_verified"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """One provider: an entry's default members, and its required members with the remedy for each missing one.

    With `members_by_kind`, no other `token_kind` is accepted. `issuer_rule` consists of the issuer's pattern, the kinds
    of tokens that it applies to, the error otherwise, and the remedy.
    """

    members: Mapping[str, object]
    members_by_kind: Mapping[str, Mapping[str, object]] = field(default_factory=lambda: MappingProxyType({}))
    needs: tuple[tuple[tuple[str, ...], str], ...] = ()
    needed_claim: tuple[str, str] | None = None
    issuer_rule: tuple[re.Pattern[str], tuple[str, ...], str, str] | None = None


def _needs_issuer(example: str) -> tuple[tuple[str, ...], str]:
    return ("issuer",), f"Add issuer, such as {example}."


PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        "google": Preset(
            members={"issuer": "https://accounts.google.com", "aliases": ["accounts.google.com"], "token_kind": "id"},
            needs=(
                (
                    ("client_ids", "subjects", "required_claims"),
                    (
                        'Add client_ids (your client id) or required_claims such as {"hd": "example.com"}. Every '
                        "project at Google can have a token made for a service account of its own with any audience, "
                        "so the audience alone doesn't protect you."
                    ),
                ),
            ),
        ),
        "entra": Preset(
            members={
                "issuer": "https://login.microsoftonline.com/{tenantid}/v2.0",
                "token_kind": "access",
                "groups_claim": [["groups"], ["roles"]],
                # The tenant's administrator can set any address and change it.
                "trusted_for_email": False,
            }
        ),
        "okta": Preset(
            members={"token_kind": "access"},
            needs=(_needs_issuer("https://example.okta.com/oauth2/default"),),
            issuer_rule=(
                re.compile(r"https?://[^/]+/oauth2/.+"),
                ("access", "either"),
                "is Okta's org authorization server, whose access tokens only Okta itself can read",
                (
                    "Specify a custom authorization server, such as https://example.okta.com/oauth2/default, "
                    "or set token_kind to id."
                ),
            ),
        ),
        "auth0": Preset(
            members={"token_kind": "access"},
            needs=(_needs_issuer("https://example.eu.auth0.com/, with the slash at the end"),),
            issuer_rule=(
                re.compile(r".*/"),
                ("access", "id", "either"),
                "does not end in a slash, as Auth0's issuers do",
                "Write it with the slash at the end, such as https://example.eu.auth0.com/.",
            ),
        ),
        "keycloak": Preset(
            members={"token_kind": "access", "groups_claim": [["realm_access", "roles"], ["groups"]]},
            needs=(_needs_issuer("https://id.example.com/realms/lake"),),
        ),
        "cognito": Preset(
            members={"token_kind": "access", "groups_claim": "cognito:groups"},
            members_by_kind={
                "access": {"without_audience": True, "required_claims": {"token_use": "access"}},
                "id": {"required_claims": {"token_use": "id"}},
            },
            needs=(_needs_issuer("https://cognito-idp.eu-central-1.amazonaws.com/<user pool id>"),),
        ),
        "dex": Preset(
            members={"token_kind": "id", "groups_claim": "groups"}, needs=(_needs_issuer("https://id.example.com/dex"),)
        ),
        "github_actions": Preset(
            members={"issuer": "https://token.actions.githubusercontent.com", "token_kind": "id"},
            needs=(
                (
                    ("subjects",),
                    (
                        "Add subjects, such as repo:example/lake:*. Every workflow on GitHub can ask for a token "
                        "with any audience, so the audience alone doesn't protect you."
                    ),
                ),
            ),
            needed_claim=(
                "repository_owner_id",
                (
                    "Add the number of the account that owns the repository, as a string. Unlike the number, the name "
                    "can be transferred to another account."
                ),
            ),
        ),
        "kubernetes": Preset(
            members={"token_kind": "either"},
            needs=(
                _needs_issuer("https://kubernetes.default.svc.cluster.local"),
                (
                    ("jwks_file", "jwks_url", "discovery_url"),
                    "Add jwks_file, jwks_url or discovery_url: a cluster's keys are seldom below its issuer.",
                ),
            ),
        ),
    }
)


def apply_preset(values: Mapping[str, object], path: str) -> dict[str, object]:
    """Merge an entry with its preset; the entry's members take precedence, and `required_claims` are combined."""
    if "preset" not in values:
        return dict(values)
    name = as_text(values["preset"], f"{path}.preset")
    preset = PRESETS.get(name)
    if preset is None:
        raise refused(f"{path}.preset", f"is not known: {shown(name)}", f"Known presets: {', '.join(PRESETS)}.")
    kind = values.get("token_kind", preset.members.get("token_kind"))
    by_kind = preset.members_by_kind
    if by_kind and kind not in tuple(by_kind):
        raise refused(f"{path}.token_kind", f"is not one of {', '.join(by_kind)}, the kinds that {name} supports")
    more = by_kind[kind] if isinstance(kind, str) and by_kind else {}
    merged = {**preset.members, **more, **values}
    own_claims, preset_claims = values.get("required_claims"), more.get("required_claims")
    if isinstance(own_claims, dict) and isinstance(preset_claims, dict):
        merged["required_claims"] = {**preset_claims, **own_claims}
    del merged["preset"]
    _check_needs(name, preset, merged, path)
    return merged


def _is_met(member: str, merged: Mapping[str, object]) -> bool:
    claims = merged.get(member)
    if member == "required_claims" and isinstance(claims, dict):
        return not claims.keys() <= _CLAIMS_OF_EVERYBODY
    return member in merged


def _check_needs(name: str, preset: Preset, merged: Mapping[str, object], path: str) -> None:
    for members, remedy in preset.needs:
        if not any(_is_met(member, merged) for member in members):
            key = f"{path}.{members[0]}" if len(members) == 1 else path
            what = "is missing" if len(members) == 1 else f"has none of {', '.join(members)}"
            raise refused(key, f"{what}, but the preset {name} requires it", remedy)
    if preset.needed_claim is not None:
        claim, remedy = preset.needed_claim
        claims = merged.get("required_claims")
        value = claims.get(claim) if isinstance(claims, dict) else None
        listed = value if isinstance(value, list) else [value]
        if not listed or not all(isinstance(text, str) for text in listed):
            key = f"{path}.required_claims.{claim}"
            raise refused(key, f"is not a string, but the preset {name} requires one", remedy)
    if preset.issuer_rule is not None:
        pattern, kinds, problem, remedy = preset.issuer_rule
        issuer = merged.get("issuer")
        if isinstance(issuer, str) and merged.get("token_kind") in kinds and not pattern.fullmatch(issuer):
            raise refused(f"{path}.issuer", problem, remedy)
