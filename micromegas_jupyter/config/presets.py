"""What is known about common identity providers, as data: an entry that names a preset need not say it again.

Each preset holds members in the form that an issuer's entry has, and what the entry must add. Whether the members
themselves are right is checked when the whole entry is read.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from micromegas_jupyter.config.decoding import as_text, shown
from micromegas_jupyter.errors import ConfigurationError

_NO_MEMBERS: Mapping[str, object] = MappingProxyType({})
_ACCESS_KINDS = frozenset({"access", "either"})
_EVERY_KIND = frozenset({"access", "id", "either"})
# What every token of an issuer says alike, whoever it was made for.
_CLAIMS_OF_EVERYBODY = frozenset({"iss", "aud", "exp", "iat", "nbf", "email_verified"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """The entry must have at least one of `members`; `remedy` says what to add.

    `required_claims` counts only with a claim that not every token has.
    """

    members: tuple[str, ...]
    remedy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuerRule:
    """The issuer must look like `pattern` when tokens of one of these kinds are accepted."""

    pattern: re.Pattern[str]
    token_kinds: frozenset[str]
    problem: str
    remedy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """One provider.

    Attributes:
        members: What an entry holds that says nothing else.
        members_by_kind: What it holds in addition, by its `token_kind`. When not empty, no other kind is accepted.
        needs: What the entry must add.
        needed_claims: Which `required_claims` it must add, each with one text or several, and how to write them.
        issuer_rule: What its issuer must look like.
    """

    members: Mapping[str, object]
    members_by_kind: Mapping[str, Mapping[str, object]] = field(default_factory=lambda: MappingProxyType({}))
    needs: tuple[Need, ...] = ()
    needed_claims: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    issuer_rule: IssuerRule | None = None


def _needs_issuer(example: str) -> Need:
    return Need(members=("issuer",), remedy=f"Add issuer, such as {example}.")


PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        "google": Preset(
            members={
                "issuer": "https://accounts.google.com",
                "aliases": ["accounts.google.com"],
                "token_kind": "id",
            },
            needs=(
                Need(
                    members=("client_ids", "subjects", "required_claims"),
                    remedy='Add client_ids (your client id) or required_claims such as {"hd": "example.com"}. Every '
                    "project at Google can have a token made for a service account of its own with any audience, so "
                    "the audience alone keeps nobody out.",
                ),
            ),
        ),
        "entra": Preset(
            members={
                "issuer": "https://login.microsoftonline.com/{tenantid}/v2.0",
                "token_kind": "access",
                "groups_claim": [["groups"], ["roles"]],
                # An address there is whatever the tenant's administrator writes, and it can change.
                "trusted_for_email": False,
            },
        ),
        "okta": Preset(
            members={"token_kind": "access"},
            needs=(_needs_issuer("https://example.okta.com/oauth2/default"),),
            issuer_rule=IssuerRule(
                pattern=re.compile(r"https?://[^/]+/oauth2/.+"),
                token_kinds=_ACCESS_KINDS,
                problem="is Okta's org authorization server, whose access tokens only Okta itself can read",
                remedy="Name a custom authorization server, such as https://example.okta.com/oauth2/default, "
                "or set token_kind to id.",
            ),
        ),
        "auth0": Preset(
            members={"token_kind": "access"},
            needs=(_needs_issuer("https://example.eu.auth0.com/, with the slash at the end"),),
            issuer_rule=IssuerRule(
                pattern=re.compile(r".*/"),
                token_kinds=_EVERY_KIND,
                problem="does not end in a slash, as Auth0's issuers do",
                remedy="Write it with the slash at the end, such as https://example.eu.auth0.com/.",
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
            members={"token_kind": "id", "groups_claim": "groups"},
            needs=(_needs_issuer("https://id.example.com/dex"),),
        ),
        "github_actions": Preset(
            members={"issuer": "https://token.actions.githubusercontent.com", "token_kind": "id"},
            needs=(
                Need(
                    members=("subjects",),
                    remedy="Add subjects, such as repo:example/lake:*. Every workflow on GitHub can ask for a token "
                    "with any audience, so the audience alone keeps nobody out.",
                ),
            ),
            needed_claims={
                "repository_owner_id": "Add the number of the account that owns the repository, as a text. A name can "
                "pass to somebody else, the number cannot."
            },
        ),
        "kubernetes": Preset(
            members={"token_kind": "either"},
            needs=(
                _needs_issuer("https://kubernetes.default.svc.cluster.local"),
                Need(
                    members=("jwks_file", "jwks_url", "discovery_url"),
                    remedy="Add jwks_file, jwks_url or discovery_url: a cluster's keys are seldom below its issuer.",
                ),
            ),
        ),
    }
)


def apply_preset(values: Mapping[str, object], path: str) -> dict[str, object]:
    """Return an entry's members with those of its preset; what the entry itself says wins.

    `required_claims` of both hold, by name, so that an entry that adds a claim does not lose the preset's.
    """
    if "preset" not in values:
        return dict(values)
    name = as_text(values["preset"], f"{path}.preset")
    preset = PRESETS.get(name)
    if preset is None:
        raise ConfigurationError(
            f"{path}.preset is not known: {shown(name)}.",
            key=f"{path}.preset",
            remedy=f"Known presets: {', '.join(PRESETS)}.",
        )
    kind = values.get("token_kind", preset.members.get("token_kind"))
    by_kind = preset.members_by_kind
    if by_kind and kind not in tuple(by_kind):
        raise ConfigurationError(
            f"{path}.token_kind is not one of {', '.join(by_kind)}, the kinds that {name} has rules for.",
            key=f"{path}.token_kind",
        )
    more = by_kind[kind] if isinstance(kind, str) and by_kind else _NO_MEMBERS
    merged = {**preset.members, **more, **values, **_merged_claims(values, more)}
    del merged["preset"]
    _check_needs(name, preset, merged, path)
    return merged


def _merged_claims(values: Mapping[str, object], more: Mapping[str, object]) -> dict[str, object]:
    own, preset = values.get("required_claims"), more.get("required_claims")
    if isinstance(own, dict) and isinstance(preset, dict):
        return {"required_claims": {**preset, **own}}
    return {}


def _is_met(member: str, merged: Mapping[str, object]) -> bool:
    claims = merged.get(member)
    if member == "required_claims" and isinstance(claims, dict):
        return not claims.keys() <= _CLAIMS_OF_EVERYBODY
    return member in merged


def _check_needs(name: str, preset: Preset, merged: Mapping[str, object], path: str) -> None:
    for need in preset.needs:
        if not any(_is_met(member, merged) for member in need.members):
            key = f"{path}.{need.members[0]}" if len(need.members) == 1 else path
            what = "is missing" if len(need.members) == 1 else f"has none of {', '.join(need.members)}"
            raise ConfigurationError(f"{key} {what}, and the preset {name} needs it.", key=key, remedy=need.remedy)
    claims = merged.get("required_claims", {})
    for claim, remedy in preset.needed_claims.items():
        value = claims.get(claim) if isinstance(claims, dict) else None
        listed = value if isinstance(value, list) else [value]
        if not listed or not all(isinstance(text, str) for text in listed):
            key = f"{path}.required_claims.{claim}"
            raise ConfigurationError(f"{key} is not a text, and the preset {name} needs it.", key=key, remedy=remedy)
    rule, issuer = preset.issuer_rule, merged.get("issuer")
    if rule is None or not isinstance(issuer, str) or merged.get("token_kind") not in tuple(rule.token_kinds):
        return
    if not rule.pattern.fullmatch(issuer):
        key = f"{path}.issuer"
        raise ConfigurationError(f"{key} {rule.problem}.", key=key, remedy=rule.remedy)
