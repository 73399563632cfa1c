"""One entry of `issuers`: its members are read, a preset fills in what it leaves out, its tenants are expanded.

What several entries mean together is said in `oidc_config`.
"""

from collections.abc import Collection, Mapping
from functools import partial
from types import MappingProxyType

from micromegas_jupyter.errors import ConfigurationError
from micromegas_jupyter.settings.claim_rules import as_claim_paths, as_required_claims, as_subjects
from micromegas_jupyter.settings.decoding import (
    as_choice,
    as_count,
    as_flag,
    as_named,
    as_object,
    as_text,
    as_text_or_texts,
    as_texts,
    shown,
)
from micromegas_jupyter.settings.issuers import (
    MAX_LEEWAY_SECONDS,
    SIGNATURE_ALGORITHMS,
    IssuerSetting,
    TokenKind,
)
from micromegas_jupyter.settings.members import Members
from micromegas_jupyter.settings.presets import apply_preset
from micromegas_jupyter.settings.roles import read_role_names
from micromegas_jupyter.settings.tenants import expand_tenants
from micromegas_jupyter.settings.urls import check_fetch_url, check_issuer_url

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
    """Read one entry; it is several issuers when it lists tenants.

    Args:
        entry: The decoded entry.
        place: Names the entry in refusals.
        known_roles: The configured roles; None when they are not known here.

    Raises:
        ConfigurationError: A member is missing, malformed or does not fit the others.
    """
    values = apply_preset(as_object(entry, place, known=ISSUER_MEMBERS), place)
    return tuple(
        _read_issuer(Members(values=expanded, place=place), tenant, known_roles)
        for tenant, expanded in expand_tenants(values, place)
    )


def _read_issuer(members: Members, tenant: str | None, known_roles: Collection[str] | None) -> IssuerSetting:
    _check_key_places(members)
    setting = IssuerSetting(
        issuer=members.require("issuer", _as_issuer),
        place=members.place,
        audiences=_read_audiences(members),
        aliases=members.read("aliases", as_texts, ()),
        discovery_url=members.read("discovery_url", _as_fetch_url, None),
        jwks_url=members.read("jwks_url", _as_fetch_url, None),
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


def _as_issuer(value: object, key: str) -> str:
    issuer = as_text(value, key)
    check_issuer_url(issuer, key=key)
    return issuer


def _as_fetch_url(value: object, key: str) -> str:
    url = as_text(value, key)
    check_fetch_url(url, key=key)
    return url


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
