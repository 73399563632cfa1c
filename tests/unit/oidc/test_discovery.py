"""Discovery: documents, and what of a provider's text a person is shown."""

import pytest

from micromegas_jupyter.core.system import Secret
from micromegas_jupyter.errors import ProviderMisbehaved
from micromegas_jupyter.oidc import authorization
from micromegas_jupyter.oidc.authorization import parse_jwks_uri, parse_metadata

ISSUER = "https://id.example.com/tenant"
KEYS_URL = "https://keys.example.com/keys"
ENDPOINTS = {
    "authorization_endpoint": "https://id.example.com/authorize",
    "token_endpoint": "https://id.example.com/token",
    "revocation_endpoint": "https://id.example.com/revoke",
    "device_authorization_endpoint": "https://id.example.com/device",
    "end_session_endpoint": "https://id.example.com/end",
}


def document(**changes):
    """A complete document; a change to None removes the member."""
    members = {
        "issuer": ISSUER, "jwks_uri": KEYS_URL, **ENDPOINTS,
        "authorization_response_iss_parameter_supported": True,
        "token_endpoint_auth_methods_supported": ["client_secret_basic", "none"],
        "code_challenge_methods_supported": ["S256", "plain"],
        **changes,
    }  # fmt: skip
    return {name: value for name, value in members.items() if value is not None}


def test_every_endpoint_and_ability_is_kept():
    assert parse_metadata(document(), issuer=ISSUER) == authorization.ProviderMetadata(
        issuer=ISSUER, jwks_uri=KEYS_URL, **ENDPOINTS, sends_issuer_in_callback=True,
        token_endpoint_auth_methods=("client_secret_basic", "none"), pkce_methods=("S256", "plain"),
    )  # fmt: skip


def test_an_issuer_of_machines_needs_no_more_than_keys():
    found = parse_metadata({"issuer": ISSUER, "jwks_uri": "https://id.example.com/keys"}, issuer=ISSUER)

    assert (found.authorization_endpoint, found.sends_issuer_in_callback, found.pkce_methods) == (None, False, None)
    with pytest.raises(ProviderMisbehaved):
        found.require_token_endpoint()


@pytest.mark.parametrize(
    ("stated", "configured", "is_offered"),
    [
        (ISSUER + "/", ISSUER, True),
        ("https://id.example.com/realms/a-realm-with-a-long-name", ISSUER, True),
        ("http://127.0.0.1:8080/realms/demo", "http://127.0.0.1:8080", True),
        *((stated, ISSUER, True) for stated in ("https://id.example.com", "https://evil.example")),
        *((stated, ISSUER, False) for stated in (ISSUER.upper(), 1, [ISSUER])),
        *(
            (stated, ISSUER, False)
            for stated in (
                "http://id.example.com/tenant",  # not encrypted
                "http://127.0.0.1:8080",  # this machine, named by another one
                "https://alice@id.example.com", "https://id.example.com/?a=b", "https://id.example.com/#a",
                "https://id.example.com/{tenantid}/v2.0", "https://id.example.com/ now",
                "https://id.example.com/\x1b[2J", "https://id.example.com/`reboot`", "https://id.example.com/<b>",
                "https://id.example.com/" + "a" * 200, "javascript:alert(1)", "", None,
            )
        ),
    ],
)  # fmt: skip
def test_the_issuer_that_a_document_is_made_out_for_is_offered_where_it_can_be_set(stated, configured, is_offered):
    with pytest.raises(ProviderMisbehaved) as caught:
        parse_metadata(document(issuer=stated), issuer=configured)

    assert f"of {configured} is for a different issuer" in caught.value.what
    assert not is_offered or f"({stated})" in caught.value.what
    assert caught.value.remedy.startswith(f"If {stated} is your provider" if is_offered else "Set the issuer exactly")
    assert not set(caught.value.what) & set("\x1b<>")


@pytest.mark.parametrize("name", ["jwks_uri", *ENDPOINTS])
def test_an_endpoint_that_may_not_be_called_is_refused(name):
    for url in ("http://id.example.com/x", "http://127.0.0.1/x", "https://a@b.example/", 1, ""):
        with pytest.raises(ProviderMisbehaved):
            parse_metadata(document(**{name: url}), issuer=ISSUER)


def test_a_provider_on_this_machine_may_use_http_on_this_machine():
    issuer = "http://127.0.0.1:8080"
    body = {"issuer": issuer, "jwks_uri": "http://127.0.0.1:8080/keys"}

    assert parse_metadata(body, issuer=issuer).jwks_uri == "http://127.0.0.1:8080/keys"


@pytest.mark.parametrize(
    "body",
    [
        *(None, [], "text", 1, document(jwks_uri=None)),
        *(document(code_challenge_methods_supported=listed) for listed in ("S256", [1], {"S256": True})),
    ],
)
def test_a_document_without_keys_or_of_the_wrong_type_is_refused(body):
    with pytest.raises(ProviderMisbehaved):
        parse_metadata(body, issuer=ISSUER)


@pytest.mark.parametrize("value", ["true", 1, False])
def test_the_iss_parameter_is_announced_by_json_true_only(value):
    body = document(authorization_response_iss_parameter_supported=value)

    assert not parse_metadata(body, issuer=ISSUER).sends_issuer_in_callback


class TestKeysAddress:
    """Where the keys are, for those who need nothing else of the document."""

    def test_the_tenant_may_stand_as_a_place_in_the_issuer(self):
        body = document(issuer="https://login.example.com/{tenantid}/v2.0")

        assert parse_jwks_uri(body, issuer="https://login.example.com/t1/v2.0", tenant="t1")
        assert parse_jwks_uri(document(), issuer=ISSUER, tenant="t1")

    @pytest.mark.parametrize(
        ("path", "tenant"),
        [
            ("{tenantid}/v2.0", None), ("{tenantid}/v2.0", "t2"), ("{tenantid}/v2.0/", "t1"),
            ("{TENANTID}/v2.0", "t1"), ("{tenant}/v2.0", "t1"), ("t2/v2.0", "t1"),
        ],
    )  # fmt: skip
    def test_another_tenant_or_another_place_is_refused(self, path, tenant):
        body = document(issuer=f"https://login.example.com/{path}")

        with pytest.raises(ProviderMisbehaved):
            parse_jwks_uri(body, issuer="https://login.example.com/t1/v2.0", tenant=tenant)

    def test_a_document_from_this_machine_may_name_http_on_it_and_one_from_elsewhere_may_not(self):
        issuer, url = "http://127.0.0.1:8001", "http://127.0.0.1:8001/keys"

        assert parse_jwks_uri(document(jwks_uri=url), issuer=ISSUER, read_from="http://127.0.0.1:8001/document") == url
        with pytest.raises(ProviderMisbehaved):  # whatever the issuer is
            parse_jwks_uri({"issuer": issuer, "jwks_uri": url}, issuer=issuer, read_from="https://id.example.com/d")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("The user said no.", "The user said no."),
        ("two\nlines\r\n\tand \x1b[31mcolour\x07", "two lines and [31mcolour"),
        ("<script>alert(1)</script>", "script alert(1) /script"),
        ("code " + "a" * 40 + " was used", "code … was used"),
        ("left\u202eright", "left right"),
        *((f"bad {written}", "bad …") for written in ("p w+d/% longer", "p w+d/%", "p+w%2Bd%2F%25", "p%20w%2Bd%2F%25")),
        ("word " * 100, ("word " * 40).rstrip() + " …"),
    ],
)
def test_only_plain_short_text_of_a_provider_is_shown(text, shown):
    assert authorization.clean_provider_text(text, secrets=[Secret("p w+d/%"), Secret("p w+d/% longer")]) == shown


@pytest.mark.parametrize(
    ("code", "description", "shown"),
    [
        ("access_denied", None, "access_denied"),
        ("access_denied", "The user\nsaid no", "access_denied: The user said no"),
        ("<b>", "why", "an unreadable error code: why"), (17, {"a": 1}, "an unreadable error code"),
        *((code, None, "an unreadable error code") for code in ("a" * 65, "s3same", "a_client.s3same", "s3same_x")),
    ],
)  # fmt: skip
def test_an_error_is_described_by_code_and_cleaned_description(code, description, shown):
    assert authorization.describe_provider_error(code, description, secrets=[Secret("s3same")]) == shown
