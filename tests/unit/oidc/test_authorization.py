"""Tests of `oidc.authorization`: a browser's request, its callback, token requests and answers; no secret shows."""

from dataclasses import FrozenInstanceError, replace
from datetime import timedelta
from types import SimpleNamespace
from unittest.mock import Mock, call
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest
from cryptography.hazmat.primitives import serialization

from micromegas_jupyter.core.system import Secret
from micromegas_jupyter.errors import (
    ConfigurationError,
    LoginFailed,
    LoginRefused,
    LoginRequired,
    ProviderMisbehaved,
    ProviderUnavailable,
    UsageError,
)
from micromegas_jupyter.oidc import authorization as module
from micromegas_jupyter.oidc.authorization import (
    AuthorizationRequest,
    ProviderMetadata,
    parse_callback,
    parse_token_exchange_answer,
)
from micromegas_jupyter.oidc.jwt import parse_key_set, parse_token, verify_signature
from micromegas_jupyter.oidc.private_key import parse_private_key
from tests.fakes.mint import NOW, NOW_SECONDS, ec_key
from tests.fakes.tracebacks import traceback_with_variables

TYPE = "urn:ietf:params:oauth:token-type:"
RESOURCE = "https://lake.example.com"
REQUEST = AuthorizationRequest(
    url="u", redirect_uri="r", scope="s", state=Secret("st"), nonce=Secret("no"), code_verifier=Secret("ve"),
    resource=RESOURCE,
)  # fmt: skip
ASSERTED = {
    "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
    "client_assertion": Secret("a.b.c"),
}
EXCHANGED = {
    "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
    "subject_token": Secret("a.b.c"),
    "subject_token_type": f"{TYPE}jwt",
}
CREDENTIALS = {"grant_type": "client_credentials"}
REFRESH = {"grant_type": "refresh_token", "refresh_token": Secret("ref")}
WANTED = {"scope": "s", "audience": "a", "resource": RESOURCE}
NOTHING = {"scope": None, "audience": None, "resource": None}


def test_a_sign_in_cannot_change_once_it_has_begun():
    with pytest.raises(FrozenInstanceError):
        REQUEST.redirect_uri = "https://evil.example/callback"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (
            module.build_code_request(REQUEST, Secret("co")),
            {"grant_type": "authorization_code", "code": Secret("co"), "redirect_uri": "r",
             "code_verifier": Secret("ve"), "resource": RESOURCE},
        ),
        (module.build_refresh_request(Secret("ref"), granted_scope="openid x"), {**REFRESH, "scope": "openid x"}),
        (module.build_refresh_request(Secret("ref"), granted_scope="api://lake/.default"), REFRESH),
        (
            module.build_refresh_request(Secret("ref"), granted_scope=None, resource=RESOURCE),
            {**REFRESH, "resource": RESOURCE},
        ),
        (module.build_client_credentials_request(**WANTED), {**CREDENTIALS, **WANTED}),
        (module.build_client_assertion_request(Secret("a.b.c"), **NOTHING), {**CREDENTIALS, **ASSERTED}),
        (module.build_client_assertion_request(Secret("a.b.c"), **WANTED), {**CREDENTIALS, **ASSERTED, **WANTED}),
        (module.build_token_exchange_request(Secret("a.b.c"), **NOTHING), EXCHANGED),
        (module.build_token_exchange_request(Secret("a.b.c"), **WANTED), {**EXCHANGED, **WANTED}),
        (
            module.build_jwt_bearer_request(Secret("a.b.c")),
            {"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": Secret("a.b.c")},
        ),
        (module.build_revocation_request(Secret("t"), kind="refresh_token"),
         {"token": Secret("t"), "token_type_hint": "refresh_token"}),
    ],
)  # fmt: skip
def test_each_request_has_the_fields_of_its_rfc_and_hides_its_secrets(fields, expected):
    assert fields == expected
    assert "a.b.c" not in repr(fields)


PEM = ec_key().private.private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
)
KEY = parse_private_key(Secret(PEM.decode()), key_id="ec", algorithm=None, source_name="key")
SECRET = Secret("p w+d/é")
# base64 of "a%3Ab:p+w%2Bd%2F%C3%A9"
BASIC = {"Authorization": Secret("Basic YSUzQWI6cCt3JTJCZCUyRiVDMyVBOQ==")}


def authenticate(supported, credential):
    randomness = SimpleNamespace(token_urlsafe=lambda nbytes: f"{nbytes} bytes")
    return module.build_client_authentication(
        supported, client_id="a:b", client_credential=credential,
        assertion_audience="https://id.example.com/token", now=NOW, randomness=randomness,
    )  # fmt: skip


class TestClientAuthentication:
    """How a client proves itself follows from its credential and from what the provider takes."""

    @pytest.mark.parametrize(
        ("supported", "credential", "fields", "headers"),
        [
            (None, None, {"client_id": "a:b"}, {}),
            (("client_secret_basic",), None, {"client_id": "a:b"}, {}),
            (None, SECRET, {}, BASIC),
            (("client_secret_post", "client_secret_basic"), SECRET, {}, BASIC),
            (("client_secret_post", "private_key_jwt"), SECRET, {"client_id": "a:b", "client_secret": SECRET}, {}),
        ],
    )
    def test_a_client_names_itself_in_the_body_or_the_header(self, supported, credential, fields, headers):
        found = authenticate(supported, credential)

        assert (found.fields, found.headers) == (fields, headers)
        assert "YSUz" not in repr(found)

    @pytest.mark.parametrize("supported", [None, ("client_secret_basic", "private_key_jwt")])
    def test_an_assertion_is_signed_and_says_who_the_client_is_to_its_audience_for_minutes_only(self, supported):
        found = authenticate(supported, KEY)
        parsed = parse_token(found.fields["client_assertion"].reveal())

        verify_signature(parsed, parse_key_set({"keys": [ec_key().jwk()]}))
        assert dict(parsed.header) == {"alg": "ES256", "typ": "JWT", "kid": "ec"}
        who = {"iss": "a:b", "sub": "a:b", "aud": "https://id.example.com/token", "jti": "24 bytes"}
        assert dict(parsed.claims) == {**who, "iat": NOW_SECONDS, "exp": NOW_SECONDS + 120}
        assert (found.fields["client_id"], found.headers) == ("a:b", {})
        assert found.fields["client_assertion_type"] == ASSERTED["client_assertion_type"]
        assert "eyJ" not in repr(found)

    @pytest.mark.parametrize(
        ("supported", "credential", "key"),
        [
            ((), SECRET, "MICROMEGAS_OIDC_CLIENT_SECRET"),
            (("none", "private_key_jwt"), SECRET, "MICROMEGAS_OIDC_CLIENT_SECRET"),
            (("client_secret_basic",), KEY, "MICROMEGAS_OIDC_PRIVATE_KEY_FILE"),
        ],
    )
    def test_a_proof_that_the_provider_cannot_take_is_a_configuration_error(self, supported, credential, key):
        with pytest.raises(ConfigurationError) as caught:
            authenticate(supported, credential)

        assert caught.value.key == key


ANSWER = {
    "access_token": "acc", "token_type": "bearer", "id_token": "idt", "refresh_token": "ref", "expires_in": 3600,
    "scope": "openid",
}  # fmt: skip
TOKENS = ("access_token", "id_token", "refresh_token")


def parse(**changes):
    body = {name: value for name, value in {**ANSWER, **changes}.items() if value is not None}
    return module.parse_token_answer(body, now=NOW, requested_scope="openid email")


class TestAnswer:
    """A successful answer of the token endpoint."""

    def test_it_becomes_a_set_of_tokens_that_do_not_show(self):
        assert parse() == module.TokenSet(
            access_token=Secret("acc"), token_type="bearer", id_token=Secret("idt"), refresh_token=Secret("ref"),
            obtained_at=NOW, expires_at=NOW + timedelta(hours=1), scope="openid",
        )  # fmt: skip
        assert "sesame" not in repr(parse(access_token="sesame-1", id_token="sesame-2", refresh_token="sesame-3"))

    def test_it_may_leave_out_all_but_the_access_token(self):
        found = parse(id_token=None, refresh_token="", expires_in=None, scope=None)

        assert (found.id_token, found.refresh_token, found.expires_at) == (None, None, None)
        assert found.scope == "openid email"

    @pytest.mark.parametrize(
        ("seconds", "life"), [("300", 300), (300, 300), (300.0, 300), (1e18, 10 * 365 * 24 * 3600)]
    )
    def test_a_lifetime_may_be_written_as_text_and_is_cut_at_ten_years(self, seconds, life):
        assert parse(expires_in=seconds).expires_at == NOW + timedelta(seconds=life)

    @pytest.mark.parametrize(
        "changes",
        [
            *({"expires_in": seconds} for seconds in (True, -1, "soon", "1e3", [], {}, "9" * 11)),
            *({"token_type": kind} for kind in ("DPoP", "mac", "", None, 1)),
            *({name: token} for name in TOKENS for token in (1, ["a"], "a\nb", "é", "a" * 65537)),
            *({"access_token": None}, {"scope": ["openid"]}),
        ],
    )
    def test_a_malformed_member_is_refused(self, changes):
        with pytest.raises(ProviderMisbehaved):
            parse(**changes)


EXCHANGE_ANSWER = {
    "access_token": "issued", "issued_token_type": f"{TYPE}access_token", "token_type": "Bearer", "expires_in": 60
}  # fmt: skip


class TestExchangeAnswer:
    """A successful answer of RFC 8693."""

    @pytest.mark.parametrize(
        ("kind", "token_type"),
        [(f"{TYPE}access_token", "N_A"), (f"{TYPE}jwt", "n_a"), (f"{TYPE}id_token", "Bearer"), (None, "Bearer")],
    )
    def test_a_token_that_can_be_sent_is_accepted_whatever_its_kind(self, kind, token_type):
        answer = {**EXCHANGE_ANSWER, "issued_token_type": kind, "token_type": token_type}

        assert parse_token_exchange_answer(answer, now=NOW, requested_scope=None).access_token == Secret("issued")

    @pytest.mark.parametrize(
        "changes",
        [
            {"issued_token_type": f"{TYPE}refresh_token"}, {"issued_token_type": f"{TYPE}saml2"},
            {"issued_token_type": ["x"]}, {"token_type": "N_A", "issued_token_type": None}, {"token_type": "DPoP"},
            {"access_token": ""}, {"expires_in": -1},
        ],
    )  # fmt: skip
    def test_an_answer_that_cannot_be_used_is_refused(self, changes):
        with pytest.raises(ProviderMisbehaved) as caught:
            parse_token_exchange_answer({**EXCHANGE_ANSWER, **changes}, now=NOW, requested_scope=None)

        assert caught.value.remedy
        assert "issued" not in caught.value.what


@pytest.mark.parametrize("read", [module.parse_token_answer, parse_token_exchange_answer])
@pytest.mark.parametrize(
    "body",
    [
        None, {"token_type": "bearer"}, ["s3same"], {**ANSWER, "access_token": "s3same", "token_type": "DPoP"},
        {**ANSWER, "access_token": "s3same\n"}, {**ANSWER, "access_token": "s3same", "refresh_token": ["s3same"]},
        {**ANSWER, "access_token": "s3same", "expires_in": -1},
        {**ANSWER, "access_token": "s3same", "issued_token_type": f"{TYPE}saml2", "token_type": "N_A"},
    ],
)  # fmt: skip
def test_a_refusal_shows_nothing_of_the_answer_not_even_with_all_variables(read, body):
    with pytest.raises(ProviderMisbehaved) as caught:
        read(body, now=NOW, requested_scope=None)

    shown = traceback_with_variables(caught.value)
    assert "requested_scope = None" in shown
    assert "s3same" not in shown


@pytest.mark.parametrize(
    ("code", "is_refresh", "expected"),
    [
        ("invalid_grant", True, LoginRequired), ("invalid_scope", True, LoginRequired),
        ("invalid_client", True, LoginFailed), ("unauthorized_client", True, LoginFailed),
        ("slow_down", True, ProviderUnavailable), ("slow_down", False, ProviderUnavailable),
        ("invalid_grant", False, LoginFailed), ("invalid_scope", False, LoginFailed),
        ("invalid_client", False, LoginFailed), ("server_error", True, ProviderUnavailable),
        ("temporarily_unavailable", False, ProviderUnavailable),
    ],
)  # fmt: skip
def test_each_refusal_of_tokens_has_its_class_and_does_not_repeat_what_was_sent(code, is_refresh, expected):
    body = {"error": code, "error_description": "bad token s3same"}
    error = module.build_token_error(body, is_refresh=is_refresh, secrets=[Secret("s3same")])

    assert type(error) is expected
    assert code in str(error)
    assert "s3same" not in str(error)
    if isinstance(error, LoginFailed):
        assert error.provider_code == code
        assert ("client secret" in error.remedy) is (code in {"invalid_client", "unauthorized_client"})


METADATA = ProviderMetadata(
    issuer="https://id.example.com", jwks_uri="https://id.example.com/keys",
    authorization_endpoint="https://id.example.com/authorize?tenant=1", token_endpoint="https://id.example.com/token",
)  # fmt: skip
ANNOUNCING = replace(METADATA, sends_issuer_in_callback=True)
# The verifier of RFC 7636 appendix B is the third draw.
DRAWN = ["state-1", "nonce-1", "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"]


def build(metadata=METADATA, **changes):
    arguments = {"redirect_uri": "http://127.0.0.1:1234/callback", "scope": "openid email", **changes}
    arguments.setdefault("randomness", Mock(token_urlsafe=Mock(side_effect=DRAWN)))
    return module.build_authorization_request(metadata, client_id="note book", **arguments)


def query_of(request):
    pairs = parse_qsl(urlsplit(request.url).query)
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


def test_a_request_carries_state_nonce_and_an_s256_challenge():
    draw = Mock(side_effect=DRAWN)
    request = build(randomness=SimpleNamespace(token_urlsafe=draw))

    assert not [secret for secret in (*DRAWN, "E9Melhoa") if secret in repr(request)]
    assert draw.mock_calls == [call(32)] * 3
    assert request.url.startswith("https://id.example.com/authorize?tenant=1&")
    assert query_of(request) == {
        "tenant": "1", "response_type": "code", "client_id": "note book", "scope": "openid email",
        "redirect_uri": "http://127.0.0.1:1234/callback", "state": "state-1", "nonce": "nonce-1",
        "code_challenge": "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM", "code_challenge_method": "S256",
    }  # fmt: skip


def test_audience_and_extra_parameters_are_sent():
    extra = {"access_type": "offline", "prompt": "login"}
    query = query_of(build(audience="api", resource="urn:lake:1", extra_parameters=extra))

    assert (query["audience"], query["access_type"], query["prompt"]) == ("api", "offline", "login")
    assert query["resource"] == build(resource="urn:lake:1").resource == "urn:lake:1"
    asked = query_of(build(scope="email offline_access"))
    assert (asked["scope"], asked["prompt"]) == ("openid email offline_access", "consent")


@pytest.mark.parametrize(
    "changes",
    [{"pkce_methods": ("plain",)}, {"pkce_methods": ()}, {"authorization_endpoint": None}, {"token_endpoint": None}],
    ids=str,
)
def test_a_provider_that_lists_pkce_without_s256_or_lacks_an_endpoint_is_refused(changes):
    with pytest.raises(ProviderMisbehaved):
        build(replace(METADATA, **changes))


@pytest.mark.parametrize(
    "name", ["state", "nonce", "redirect_uri", "code_challenge_method", "response_mode", "request", "resource"]
)
def test_a_parameter_of_the_protocol_cannot_be_replaced_nor_a_resource_given_twice(name):
    with pytest.raises(UsageError):
        build(resource="https://lake.example.com", extra_parameters={name: "x"})


@pytest.mark.parametrize("scope", ["", " openid", "openid  email", 'open"id', "openid\n", "openid é"])
def test_a_malformed_scope_is_a_usage_error(scope):
    with pytest.raises(UsageError):
        module.complete_scope(scope)


def test_a_callback_gives_its_code():
    query = "code=c0de&state=state-1"
    code = parse_callback(f"{query}&iss=https%3A%2F%2Fid.example.com", request=build(), metadata=ANNOUNCING)

    assert code.reveal() == "c0de" == parse_callback(query, request=build(), metadata=METADATA).reveal()
    assert "c0de" not in repr(code)
    with pytest.raises(ProviderMisbehaved):  # the issuer was announced
        parse_callback(query, request=build(), metadata=ANNOUNCING)


@pytest.mark.parametrize(
    "query",
    ["", "code=c", "state=state-2", "state=", "state=state-1&state=state-1", "state=%FF", "x&" * 60 + "state=state-1"],
)
def test_a_callback_with_another_state_is_not_of_this_request(query):
    request = build()

    assert not module.is_callback_of(query, request)
    with pytest.raises(ProviderMisbehaved):
        parse_callback(query, request=request, metadata=METADATA)


@pytest.mark.parametrize("metadata", [METADATA, ANNOUNCING])
@pytest.mark.parametrize(
    "rest",
    [
        # another issuer
        *(
            urlencode({"iss": issuer, **result})
            for issuer in ("https://evil.example", "https://id.example.com/", "")
            for result in ({"code": "c"}, {"error": "access_denied"})
        ),
        # no usable code
        *("", "code=", "code=a&code=b", "code=%0a", "code=%C3%A9", "code=" + "a" * 4097),
    ],
)
def test_a_callback_of_another_issuer_or_without_one_usable_code_is_refused(rest, metadata):
    with pytest.raises(ProviderMisbehaved):
        parse_callback(f"state=state-1&{rest}", request=build(), metadata=metadata)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        *((code, LoginRefused) for code in ("access_denied", "unauthorized_client")),
        *((code, ProviderUnavailable) for code in ("server_error", "temporarily_unavailable")),
    ],
)
def test_each_error_of_the_provider_has_its_class(code, expected):
    with pytest.raises(expected) as caught:
        parse_callback(f"state=state-1&error={code}", request=build(), metadata=METADATA)

    assert type(caught.value) is expected


@pytest.mark.parametrize(
    "resource",
    ["lake", "/lake", "//lake.example.com", "https://lake#part", "https://la ke", "https://lake\n", "x:" + "a" * 2047],
)
def test_what_is_not_an_absolute_uri_or_has_a_fragment_is_refused(resource):
    with pytest.raises(UsageError):
        module.resource_fields(resource)
