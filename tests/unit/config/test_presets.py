"""Tests of `settings.presets`."""

import pytest

from micromegas_jupyter.config.issuers import PRESETS, IssuerSetting, TokenKind, apply_preset, parse_issuer
from micromegas_jupyter.errors import ConfigurationError

ORGANIZATION = {"repository_owner_id": "1234"}
COMPLETE: dict[str, dict[str, object]] = {
    "google": {"audience": "app.apps.googleusercontent.com", "required_claims": {"hd": "example.com"}},
    "entra": {"audience": "api", "tenants": ["0b1c"]},
    "okta": {"audience": "api://default", "issuer": "https://example.okta.com/oauth2/default"},
    "auth0": {"audience": "lake", "issuer": "https://example.eu.auth0.com/"},
    "keycloak": {"audience": "lake", "issuer": "https://id.example.com/realms/lake"},
    "cognito": {"issuer": "https://cognito-idp.eu-central-1.amazonaws.com/pool", "client_ids": ["app"]},
    "dex": {"audience": "lake", "issuer": "https://id.example.com/dex"},
    "github_actions": {"audience": "lake", "subjects": ["repo:example/lake:*"], "required_claims": ORGANIZATION},
    "kubernetes": {"audience": "lake", "issuer": "https://kubernetes.default.svc", "jwks_file": "/keys.json"},
}


def parse(preset: str, *, without: str = "", **members: object) -> IssuerSetting:
    entry = {"preset": preset, **COMPLETE[preset], **members}
    entry.pop(without, None)
    [setting] = parse_issuer(entry, "ENTRY", known_roles=None)
    return setting


def refusal(preset: str, *, without: str = "", **members: object) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        parse(preset, without=without, **members)
    return caught.value


def test_every_preset_is_tried_here():
    assert list(COMPLETE) == list(PRESETS)


@pytest.mark.parametrize(
    ("preset", "issuer", "kind", "group_claims"),
    [
        ("google", "https://accounts.google.com", TokenKind.ID, None),
        ("entra", "https://login.microsoftonline.com/0b1c/v2.0", TokenKind.ACCESS, (("groups",), ("roles",))),
        ("okta", "https://example.okta.com/oauth2/default", TokenKind.ACCESS, None),
        ("auth0", "https://example.eu.auth0.com/", TokenKind.ACCESS, None),
        (
            "keycloak",
            "https://id.example.com/realms/lake",
            TokenKind.ACCESS,
            (("realm_access", "roles"), ("groups",)),
        ),
        (
            "cognito",
            "https://cognito-idp.eu-central-1.amazonaws.com/pool",
            TokenKind.ACCESS,
            (("cognito:groups",),),
        ),
        ("dex", "https://id.example.com/dex", TokenKind.ID, (("groups",),)),
        ("github_actions", "https://token.actions.githubusercontent.com", TokenKind.ID, None),
        ("kubernetes", "https://kubernetes.default.svc", TokenKind.EITHER, None),
    ],
)
def test_a_preset_fills_in_what_is_known_of_its_provider(preset, issuer, kind, group_claims):
    setting = parse(preset)

    assert (setting.issuer, setting.token_kind, setting.group_claims) == (issuer, kind, group_claims)


def test_google_signs_with_two_names():
    assert parse("google").aliases == ("accounts.google.com",)


@pytest.mark.parametrize(
    "claims", [{}, {"email_verified": True}, {"iss": "https://accounts.google.com", "aud": "app", "exp": 1}]
)
def test_claims_that_every_token_has_keep_nobody_out_at_google(claims):
    error = refusal("google", required_claims=claims)

    assert "client_ids" in str(error)
    assert parse("google", required_claims={**claims, "hd": "example.com"}).required_claims["hd"] == ("example.com",)


def test_claims_that_are_no_object_are_refused_as_such():
    assert refusal("google", required_claims=["hd"]).key == "ENTRY.required_claims"


def test_an_address_from_entra_is_not_trusted_and_its_tenant_is_pinned():
    setting = parse("entra")

    assert setting.is_trusted_for_email is False
    assert setting.tenant == "0b1c"
    assert setting.required_claims == {"tid": ("0b1c",)}


def test_what_the_entry_says_wins_over_the_preset():
    setting = parse("entra", token_kind="id", trusted_for_email=True, groups_claim="roles")

    assert (setting.token_kind, setting.is_trusted_for_email) == (TokenKind.ID, True)
    assert setting.group_claims == (("roles",),)


def test_an_entra_issuer_with_its_tenant_written_out_needs_no_tenants():
    setting = parse("entra", without="tenants", issuer="https://login.microsoftonline.com/0b1c/v2.0")

    assert setting.tenant is None


def test_cognitos_access_tokens_have_no_audience():
    setting = parse("cognito", required_claims={"scope": "lake/read"})

    assert setting.audiences == ()
    assert setting.client_ids == ("app",)
    assert setting.required_claims == {"token_use": ("access",), "scope": ("lake/read",)}


def test_cognitos_id_tokens_have_an_audience():
    setting = parse("cognito", without="client_ids", token_kind="id", audience="app")

    assert setting.audiences == ("app",)
    assert setting.required_claims == {"token_use": ("id",)}


def test_the_preset_itself_is_no_member_any_more():
    assert "preset" not in apply_preset({"preset": "dex", "issuer": "https://id.example.com/dex"}, "ENTRY")


def test_an_entry_without_a_preset_stays_as_it_is():
    assert apply_preset({"issuer": 5}, "ENTRY") == {"issuer": 5}


@pytest.mark.parametrize("preset", ["", "Google", "gitlab", None, 5, []])
def test_an_unknown_preset_is_refused_by_its_place(preset):
    with pytest.raises(ConfigurationError) as caught:
        apply_preset({"preset": preset}, "ENTRY")

    assert caught.value.key == "ENTRY.preset"


def test_the_known_presets_are_listed():
    with pytest.raises(ConfigurationError) as caught:
        apply_preset({"preset": "gitlab"}, "ENTRY")

    assert all(name in caught.value.remedy for name in PRESETS)


@pytest.mark.parametrize(
    ("preset", "without", "key", "word"),
    [
        ("google", "audience", "ENTRY.audience", "audience"),
        ("google", "required_claims", "ENTRY", "client_ids"),
        ("entra", "tenants", "ENTRY.tenants", "tenants"),
        ("okta", "issuer", "ENTRY.issuer", "/oauth2/default"),
        ("auth0", "issuer", "ENTRY.issuer", "slash"),
        ("keycloak", "issuer", "ENTRY.issuer", "/realms/"),
        ("cognito", "issuer", "ENTRY.issuer", "cognito-idp"),
        ("cognito", "client_ids", "ENTRY.client_ids", "applications"),
        ("dex", "issuer", "ENTRY.issuer", "/dex"),
        ("github_actions", "subjects", "ENTRY.subjects", "repo:"),
        ("github_actions", "required_claims", "ENTRY.required_claims.repository_owner_id", "number"),
        ("github_actions", "audience", "ENTRY.audience", "audience"),
        ("kubernetes", "issuer", "ENTRY.issuer", "kubernetes.default.svc"),
        ("kubernetes", "jwks_file", "ENTRY", "jwks_url"),
    ],
)
def test_what_a_preset_needs_is_asked_for(preset, without, key, word):
    error = refusal(preset, without=without)

    assert error.key == key
    assert word in error.remedy


@pytest.mark.parametrize("member", [{"jwks_url": "https://k/keys"}, {"discovery_url": "https://k/discovery"}])
def test_kubernetes_may_have_its_keys_in_three_places(member):
    assert parse("kubernetes", without="jwks_file", **member).jwks_file is None


@pytest.mark.parametrize("owner", [1234, [], ["1234", 5], None, True])
def test_the_owner_of_a_github_repository_is_a_text(owner):
    error = refusal("github_actions", required_claims={"repository_owner_id": owner})

    assert error.key == "ENTRY.required_claims.repository_owner_id"


@pytest.mark.parametrize("claims", [{}, {"repository": "example/lake"}, [], None])
def test_the_owner_of_a_github_repository_cannot_be_left_out(claims):
    assert refusal("github_actions", required_claims=claims).key == "ENTRY.required_claims.repository_owner_id"


@pytest.mark.parametrize("subjects", [[], ["*"]])
def test_subjects_at_github_cannot_mean_everybody(subjects):
    assert refusal("github_actions", subjects=subjects).key == "ENTRY.subjects"


@pytest.mark.parametrize("kind", ["access", "either"])
@pytest.mark.parametrize("issuer", ["https://example.okta.com", "https://example.okta.com/", "https://o/oauth2"])
def test_oktas_org_issuer_is_refused_for_access_tokens_with_a_remedy(issuer, kind):
    error = refusal("okta", issuer=issuer, token_kind=kind)

    assert error.key == "ENTRY.issuer"
    assert "custom authorization server" in error.remedy
    assert "/oauth2/default" in error.remedy


def test_oktas_org_issuer_is_accepted_for_id_tokens():
    assert parse("okta", issuer="https://example.okta.com", token_kind="id").issuer == "https://example.okta.com"


def test_auth0s_issuer_ends_in_a_slash():
    error = refusal("auth0", issuer="https://example.eu.auth0.com")

    assert error.key == "ENTRY.issuer"
    assert "slash at the end" in error.remedy


@pytest.mark.parametrize("kind", ["either", "other", None, []])
def test_cognitos_two_kinds_cannot_be_mixed(kind):
    assert refusal("cognito", token_kind=kind).key == "ENTRY.token_kind"


def test_cognitos_access_tokens_cannot_be_asked_for_an_audience():
    error = refusal("cognito", audience="app")

    assert error.key == "ENTRY.audience"
    assert "without_audience" in error.remedy


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("member", ["issuer", "token_kind", "required_claims", "subjects", "aliases"])
def test_a_malformed_member_beside_a_preset_is_refused_as_without_one(preset, member):
    for value in (None, 5, [[]]):
        assert refusal(preset, **{member: value}).key.startswith("ENTRY.")


def test_no_claims_beside_a_preset_leave_the_presets_own():
    assert parse("cognito", required_claims={}).required_claims == {"token_use": ("access",)}
