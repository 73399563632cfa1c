"""A Google service account's key file, against a stand-in of the token endpoint over real HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.auth.workloads.google_service_account import (
    GoogleServiceAccountProvider,
    parse_service_account_key,
)
from micromegas_jupyter.core.http import ProviderHttp
from micromegas_jupyter.core.system import Secret
from micromegas_jupyter.errors import LoginFailed, ProviderMisbehaved, ProviderUnavailable
from tests.fakes.clock import FakeClock
from tests.fakes.loopback_http import Reply
from tests.fakes.platform_stand_ins import PLATFORM_KEY, GoogleTokenEndpoint, verified_claims

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.integration


@pytest.fixture
def google(clock: FakeClock) -> Iterator[GoogleTokenEndpoint]:
    with GoogleTokenEndpoint(clock=clock) as running:
        yield running


def provider(
    google: GoogleTokenEndpoint, clock: FakeClock, *, audience: str | None = "lake", scope: str | None = None
) -> GoogleServiceAccountProvider:
    key = parse_service_account_key(Secret(google.key_file()), source_name="service_account_file")
    return GoogleServiceAccountProvider(key, audience=audience, scope=scope, http=ProviderHttp(), clock=clock)


def test_an_id_token_for_the_audience_is_the_bearer_and_is_kept(google, clock):
    account = provider(google, clock)

    token = account.get_token()
    again = account.get_token()

    claims = verified_claims(token, PLATFORM_KEY, key_id=PLATFORM_KEY.kid)
    assert claims is not None
    assert claims["aud"] == "lake"
    assert again == token
    assert len(google.calls) == 1


def test_a_scope_gets_an_access_token(google, clock):
    account = provider(google, clock, audience=None, scope="https://www.googleapis.com/auth/cloud-platform")

    assert account.get_token().startswith("ya29.")


def test_a_wrong_clock_is_allowed_for(google):
    slow = FakeClock(google.clock.now())
    slow.advance(-1800)
    account = provider(google, slow)

    first = account.get_token()
    slow.advance(3310)
    google.clock.advance(3310)  # type: ignore[attr-defined]
    second = account.get_token()

    assert first != second
    assert len(google.calls) == 3, "one refusal to learn the difference, then one call for each token"


def test_a_key_that_is_gone_is_a_failed_login_with_its_remedy(google, clock):
    key = parse_service_account_key(
        Secret(google.key_file(private_key_id="removed")), source_name="service_account_file"
    )
    account = GoogleServiceAccountProvider(key, audience="lake", http=ProviderHttp(), clock=clock)

    with pytest.raises(LoginFailed) as caught:
        account.get_token()

    assert type(caught.value) is LoginFailed
    assert "Invalid JWT Signature" in caught.value.what
    assert "Keys" in caught.value.remedy


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (Reply(status=503, body={}), ProviderUnavailable),
        (Reply(status=302, headers={"Location": "http://127.0.0.1:1/"}), ProviderMisbehaved),
        (Reply(text="<html>", headers={"Content-Type": "text/html"}), ProviderMisbehaved),
        (Reply(text="{"), ProviderMisbehaved),
        (Reply(text='{"id_token": "' + "x" * 1_100_000 + '"}'), ProviderMisbehaved),
        (Reply(body={"id_token": "a.b.c"}), ProviderMisbehaved),
        (Reply(body={"id_token": 7}), ProviderMisbehaved),
        (Reply(body={}), ProviderMisbehaved),
        (Reply(body=[]), ProviderMisbehaved),
        (Reply(status=400, body={}), ProviderMisbehaved),
    ],
)
def test_each_fault_ends_in_its_own_class_with_a_remedy(google, clock, reply, expected):
    google.reply_once(reply)

    with pytest.raises(expected) as caught:
        provider(google, clock).get_token()

    assert type(caught.value) is expected
    assert caught.value.remedy  # type: ignore[attr-defined]
