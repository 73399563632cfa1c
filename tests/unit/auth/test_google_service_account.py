"""What needs no endpoint; the exchange itself is tried in `tests/integration/service_accounts`."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.auth.workloads.google_service_account import (
    GoogleServiceAccountProvider,
    parse_service_account_key,
)
from micromegas_jupyter.core.http import ProviderHttp
from micromegas_jupyter.core.protocols import (
    AuthProvider,
)
from micromegas_jupyter.core.secrets import Secret
from micromegas_jupyter.errors import ConfigurationError
from tests.fakes.platform_stand_ins import EMAIL, KEY_ID, GoogleTokenEndpoint
from tests.fakes.tracebacks import traceback_with_variables

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def google() -> Iterator[GoogleTokenEndpoint]:
    with GoogleTokenEndpoint() as endpoint:
        yield endpoint


def test_a_key_file_of_the_console_is_read(google: GoogleTokenEndpoint) -> None:
    key = parse_service_account_key(Secret(google.key_file()), source_name="service_account_file")

    assert (key.email, key.token_uri) == (EMAIL, google.token_uri)
    assert (key.private_key.key_id, key.private_key.algorithm) == (KEY_ID, "RS256")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"type": "authorized_user"}, "is not a service account's key"),
        ({"type": "external_account"}, "is not a service account's key"),
        ({"type": None}, "is not a service account's key"),
        ({"client_email": None}, "has no client_email"),
        ({"client_email": 7}, "has no client_email"),
        ({"private_key": None}, "has no private_key"),
        ({"private_key_id": ""}, "has no private_key_id"),
        ({"token_uri": None}, "has no token_uri"),
        ({"private_key": "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"}, "damaged key"),
        ({"token_uri": "http://oauth2.example.com/token"}, "http"),
        ({"token_uri": "https://user@oauth2.example.com/token"}, "user"),
        ({"token_uri": "oauth2.example.com"}, "https"),
    ],
)
def test_a_file_that_is_no_usable_key_is_refused_by_the_name_of_its_setting(
    google: GoogleTokenEndpoint, changes: dict[str, object], expected: str
) -> None:
    with pytest.raises(ConfigurationError, match=expected) as caught:
        parse_service_account_key(Secret(google.key_file(**changes)), source_name="service_account_file")

    assert caught.value.key == "service_account_file"
    assert "BEGIN" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"type": "service_account", "type": "service_account"}'])
def test_text_that_is_no_object_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="is not a JSON object"):
        parse_service_account_key(Secret(text), source_name="service_account_file")


@pytest.mark.parametrize(("audience", "scope"), [(None, None), ("", ""), ("lake", "read")])
def test_there_is_either_an_audience_or_a_scope(
    google: GoogleTokenEndpoint, audience: str | None, scope: str | None
) -> None:
    key = parse_service_account_key(Secret(google.key_file()), source_name="service_account_file")

    with pytest.raises(ConfigurationError) as caught:
        GoogleServiceAccountProvider(key, audience=audience, scope=scope, http=ProviderHttp())

    assert "MICROMEGAS_OIDC_AUDIENCE" in caught.value.remedy


def test_neither_key_nor_provider_can_be_pickled_or_show_the_key(google: GoogleTokenEndpoint) -> None:
    key = parse_service_account_key(Secret(google.key_file()), source_name="service_account_file")
    provider = GoogleServiceAccountProvider(key, audience="lake", http=ProviderHttp())

    for value in (key, provider):
        with pytest.raises(TypeError):
            pickle.dumps(value)
        assert "RSA" not in repr(value)
        assert "BEGIN" not in repr(value)
    assert EMAIL in repr(provider)
    assert isinstance(provider, AuthProvider)


def test_a_member_that_is_refused_is_not_shown_even_with_all_variables(google: GoogleTokenEndpoint) -> None:
    text = google.key_file(private_key=["-----BEGIN PRIVATE KEY-----", "s3same"])

    with pytest.raises(ConfigurationError) as caught:
        parse_service_account_key(Secret(text), source_name="service_account_file")

    shown = traceback_with_variables(caught.value)
    assert "source_name = 'service_account_file'" in shown
    assert "s3same" not in shown


def test_nothing_is_due_before_there_is_a_token(google: GoogleTokenEndpoint) -> None:
    key = parse_service_account_key(Secret(google.key_file()), source_name="service_account_file")

    assert GoogleServiceAccountProvider(key, audience="lake", http=ProviderHttp()).renewal_due_at() is None
