from __future__ import annotations

from datetime import UTC, datetime

import pytest

from micromegas_jupyter.core.secrets import Secret
from micromegas_jupyter.errors import LoginFailed, LoginRequired, ProviderMisbehaved, ProviderUnavailable
from micromegas_jupyter.oidc.authorization import AuthorizationRequest
from micromegas_jupyter.oidc.tokens import (
    TokenSet,
    build_client_credentials_request,
    build_code_request,
    build_refresh_request,
    build_revocation_request,
    build_token_error,
    merge_refreshed,
    parse_token_answer,
)
from tests.fakes.tracebacks import traceback_with_variables

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
ANSWER = {
    "access_token": "acc",
    "token_type": "bearer",
    "id_token": "idt",
    "refresh_token": "ref",
    "expires_in": 3600,
    "scope": "openid",
}


def parse(**changes: object) -> TokenSet:
    body = {name: value for name, value in {**ANSWER, **changes}.items() if value is not None}
    return parse_token_answer(body, now=NOW, asked_scope="openid email")


def test_an_answer_becomes_a_set_of_tokens() -> None:
    assert parse() == TokenSet(
        access_token=Secret("acc"),
        token_type="bearer",
        id_token=Secret("idt"),
        refresh_token=Secret("ref"),
        obtained_at=NOW,
        expires_at=datetime(2026, 11, 24, 13, 0, tzinfo=UTC),
        scope="openid",
    )


def test_tokens_do_not_show_in_the_repr() -> None:
    shown = repr(parse(access_token="sesame-1", id_token="sesame-2", refresh_token="sesame-3"))

    assert "sesame" not in shown


def test_an_answer_without_scope_means_what_was_asked_for() -> None:
    assert parse(scope=None).scope == "openid email"


def test_an_answer_may_leave_out_all_but_the_access_token() -> None:
    found = parse(id_token=None, refresh_token="", expires_in=None)

    assert (found.id_token, found.refresh_token, found.expires_at) == (None, None, None)


@pytest.mark.parametrize("seconds", ["300", 300, 300.0])
def test_a_lifetime_may_be_written_as_text(seconds: object) -> None:
    assert parse(expires_in=seconds).expires_at == datetime(2026, 11, 24, 12, 5, tzinfo=UTC)


def test_a_lifetime_beyond_ten_years_is_cut() -> None:
    assert parse(expires_in=1e18).expires_at == datetime(2036, 11, 21, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize("seconds", [True, -1, "soon", "1e3", [], {}, "9" * 11])
def test_a_malformed_lifetime_is_refused(seconds: object) -> None:
    with pytest.raises(ProviderMisbehaved):
        parse(expires_in=seconds)


@pytest.mark.parametrize("kind", ["DPoP", "mac", "", None, 1])
def test_a_token_that_is_no_bearer_token_is_refused(kind: object) -> None:
    with pytest.raises(ProviderMisbehaved):
        parse(token_type=kind)


@pytest.mark.parametrize("name", ["access_token", "id_token", "refresh_token"])
@pytest.mark.parametrize("token", [1, ["a"], "a\nb", "é", "a" * 65537])
def test_a_malformed_token_is_refused(name: str, token: object) -> None:
    with pytest.raises(ProviderMisbehaved):
        parse(**{name: token})


UNUSABLE_ANSWERS: dict[str, object] = {
    "another type": {**ANSWER, "access_token": "s3same", "token_type": "DPoP"},
    "a malformed token": {**ANSWER, "access_token": "s3same\n"},
    "a malformed further token": {**ANSWER, "access_token": "s3same", "refresh_token": ["s3same"]},
    "no such scope": {**ANSWER, "access_token": "s3same", "scope": 1},
    "no such life": {**ANSWER, "access_token": "s3same", "expires_in": -1},
    "no object": ["s3same"],
    "text": "s3same",
}


@pytest.mark.parametrize("name", UNUSABLE_ANSWERS)
def test_a_refusal_shows_nothing_of_the_answer_not_even_with_all_variables(name: str) -> None:
    with pytest.raises(ProviderMisbehaved) as caught:
        parse_token_answer(UNUSABLE_ANSWERS[name], now=NOW, asked_scope=None)

    shown = traceback_with_variables(caught.value)
    assert "asked_scope = None" in shown
    assert "s3same" not in shown


@pytest.mark.parametrize("body", [None, [], "text", {"token_type": "bearer"}])
def test_an_answer_without_an_access_token_is_refused(body: object) -> None:
    with pytest.raises(ProviderMisbehaved):
        parse_token_answer(body, now=NOW, asked_scope=None)


def test_a_scope_that_is_not_text_is_refused() -> None:
    with pytest.raises(ProviderMisbehaved):
        parse(scope=["openid"])


def test_a_code_is_exchanged_with_the_verifier_of_its_own_request() -> None:
    request = AuthorizationRequest(
        url="u", redirect_uri="r", scope="s", state=Secret("st"), nonce=Secret("no"), code_verifier=Secret("ve")
    )

    assert build_code_request(request, Secret("co")) == {
        "grant_type": "authorization_code",
        "code": Secret("co"),
        "redirect_uri": "r",
        "code_verifier": Secret("ve"),
    }


def test_a_code_is_exchanged_for_the_resource_that_was_asked_for() -> None:
    request = AuthorizationRequest(
        url="u",
        redirect_uri="r",
        scope="s",
        state=Secret("st"),
        nonce=Secret("no"),
        code_verifier=Secret("ve"),
        resource="https://lake.example.com",
    )

    assert build_code_request(request, Secret("co"))["resource"] == "https://lake.example.com"


@pytest.mark.parametrize(
    ("granted", "sent"),
    [("openid email", {"scope": "openid email"}), ("api://lake/.default", {}), (None, {})],
)
def test_a_refresh_asks_for_no_more_than_was_granted(granted: str | None, sent: dict[str, str]) -> None:
    assert build_refresh_request(Secret("ref"), granted_scope=granted) == {
        "grant_type": "refresh_token",
        "refresh_token": Secret("ref"),
        **sent,
    }


def test_a_service_account_asks_for_scope_and_audience_when_given() -> None:
    assert build_client_credentials_request(scope=None, audience=None) == {"grant_type": "client_credentials"}
    assert build_client_credentials_request(scope="s", audience="a") == {
        "grant_type": "client_credentials",
        "scope": "s",
        "audience": "a",
    }


def test_refreshes_and_service_accounts_name_the_resource() -> None:
    resource = "https://lake.example.com"

    refresh = build_refresh_request(Secret("ref"), granted_scope=None, resource=resource)
    service = build_client_credentials_request(scope=None, audience=None, resource=resource)

    assert refresh["resource"] == resource
    assert service == {"grant_type": "client_credentials", "resource": resource}


def test_a_revocation_says_which_kind_of_token_it_is() -> None:
    assert build_revocation_request(Secret("t"), kind="refresh_token") == {
        "token": Secret("t"),
        "token_type_hint": "refresh_token",
    }


@pytest.mark.parametrize(
    ("code", "is_refresh", "expected"),
    [
        ("invalid_grant", True, LoginRequired),
        ("invalid_scope", True, LoginRequired),
        ("invalid_client", True, LoginFailed),
        ("unauthorized_client", True, LoginFailed),
        ("slow_down", True, ProviderUnavailable),
        ("slow_down", False, ProviderUnavailable),
        ("invalid_grant", False, LoginFailed),
        ("invalid_client", False, LoginFailed),
        ("server_error", True, ProviderUnavailable),
        ("temporarily_unavailable", False, ProviderUnavailable),
    ],
)
def test_each_refusal_of_tokens_has_its_class(code: str, is_refresh: bool, expected: type[Exception]) -> None:
    error = build_token_error({"error": code}, is_refresh=is_refresh)

    assert type(error) is expected
    assert code in str(error)


def test_a_refused_client_is_told_to_check_its_secret() -> None:
    assert (
        build_token_error({"error": "invalid_client"}, is_refresh=True).remedy
        == "Check the client id, and the client secret or private key."
    )


@pytest.mark.parametrize("body", [None, [], {}, {"error": 1}])
def test_a_refusal_without_a_code_breaks_the_protocol(body: object) -> None:
    assert type(build_token_error(body, is_refresh=True)) is ProviderMisbehaved


def test_a_refusal_does_not_repeat_what_was_sent() -> None:
    body = {"error": "invalid_grant", "error_description": "bad token s3same"}

    assert "s3same" not in str(build_token_error(body, is_refresh=True, secrets=[Secret("s3same")]))


def test_a_refresh_keeps_what_the_answer_does_not_bring() -> None:
    old = TokenSet(access_token=Secret("a1"), id_token=Secret("i1"), refresh_token=Secret("r1"), scope="openid")
    new = TokenSet(access_token=Secret("a2"))

    merged = merge_refreshed(old, new)

    assert merged == TokenSet(
        access_token=Secret("a2"), id_token=Secret("i1"), refresh_token=Secret("r1"), scope="openid"
    )


def test_a_refresh_takes_over_what_the_answer_brings() -> None:
    old = TokenSet(access_token=Secret("a1"), id_token=Secret("i1"), refresh_token=Secret("r1"), scope="openid")
    new = TokenSet(access_token=Secret("a2"), id_token=Secret("i2"), refresh_token=Secret("r2"), scope="email")

    assert merge_refreshed(old, new) == new


@pytest.mark.parametrize("code", ["invalid_client", "invalid_grant", "invalid_scope"])
def test_a_refusal_keeps_the_providers_code(code: str) -> None:
    error = build_token_error({"error": code}, is_refresh=False)

    assert isinstance(error, LoginFailed)
    assert error.provider_code == code
