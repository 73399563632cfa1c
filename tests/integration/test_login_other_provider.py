"""The client half against two providers that share no code with each other: one of ours, one by others.

The same people wrote the demo's provider and the client, so only the other one can show a common mistake.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.auth import OidcAuthProvider, OidcClientCredentialsProvider
from micromegas_jupyter.core.system import SYSTEM_CLOCK
from micromegas_jupyter.demo.provider import DemoProvider
from micromegas_jupyter.demo.provider.scripted_person import ScriptedPerson
from micromegas_jupyter.errors import LoginFailed, LoginRefused, LoginRequired
from tests.fakes.clock import FakeClock
from tests.fakes.raw_client import claims_of
from tests.integration.other_provider.person import OtherScriptedPerson

if TYPE_CHECKING:
    from collections.abc import Callable

    from micromegas_jupyter.core.system import Secret

pytestmark = pytest.mark.integration


@dataclass(frozen=True, slots=True, kw_only=True)
class Make:
    """One provider as a client meets it.

    Attributes:
        issuer: Its issuer URL.
        client_id: The public application.
        person: Makes somebody who signs in there, given a name and whether they allow.
        authorize_params: What this make wants to see before it gives a refresh token.
        service_client_id: The service account.
        service_secret: Its secret.
        audience: The audience of the service account's tokens.
    """

    issuer: str
    client_id: str
    person: Callable[[str, bool], ScriptedPerson | OtherScriptedPerson]
    authorize_params: dict[str, str]
    service_client_id: str
    service_secret: Secret
    audience: str

    def login(self, token_file, *, person="alice", clock):
        with self.person(person, True) as browser:
            return OidcAuthProvider.login(
                self.issuer,
                self.client_id,
                token_file=token_file,
                browser=browser,
                timeout_seconds=30,
                authorize_params=self.authorize_params,
                clock=clock,
            )


@pytest.fixture
def demo_make():
    with DemoProvider() as running:
        yield Make(
            issuer=running.issuer,
            client_id=running.client_id,
            person=lambda name, allow: ScriptedPerson(person=name, allow=allow),
            authorize_params={},
            service_client_id=running.service_client_id,
            service_secret=running.service_secret,
            audience=running.lake_audience,
        )


@pytest.fixture
def other_make(other_provider):
    return Make(
        issuer=other_provider.issuer,
        client_id=other_provider.client_id,
        person=lambda name, allow: OtherScriptedPerson(person=name, allow=allow),
        authorize_params={"prompt": "consent"},
        service_client_id=other_provider.service_client_id,
        service_secret=other_provider.service_secret,
        audience=other_provider.resource,
    )


@pytest.fixture(params=["demo_make", "other_make"])
def make(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def clock():
    """The real time, but it moves only when told: the other provider's clock cannot be set."""
    return FakeClock(SYSTEM_CLOCK.now())


@pytest.fixture
def token_file(tmp_path):
    return tmp_path / "tokens.json"


def test_a_person_signs_in_and_the_token_is_theirs(make, token_file, clock):
    provider = make.login(token_file, person="bob", clock=clock)

    claims = claims_of(provider.get_token())
    assert claims["iss"] == make.issuer
    assert claims["aud"] == make.client_id
    assert claims["email"] == "bob@example.com"
    assert provider.identity().name == "Bob Singh"
    assert provider.identity().renews is True


def test_the_sign_in_is_taken_up_from_its_file(make, token_file, clock):
    token = make.login(token_file, clock=clock).get_token()

    assert OidcAuthProvider.from_file(token_file, clock=clock).get_token() == token
    assert token_file.stat().st_mode & 0o777 == 0o600


def test_a_token_that_ends_is_renewed_and_stored(make, token_file, clock):
    provider = make.login(token_file, clock=clock)
    before = provider.get_token()
    stored_before = json.loads(token_file.read_text())["token"]

    expires_at = datetime.fromtimestamp(int(str(claims_of(before)["exp"])), tz=clock.now().tzinfo)
    clock.advance((expires_at - timedelta(seconds=5) - clock.now()).total_seconds())
    after = provider.get_token()

    stored_after = json.loads(token_file.read_text())["token"]
    # Within one second the other make signs the same ID token again, so the rest of the answer tells them apart.
    assert stored_after["access_token"] != stored_before["access_token"]
    assert claims_of(after)["sub"] == claims_of(before)["sub"]
    assert stored_after["id_token"] == after
    assert stored_after["refresh_token"] != stored_before["refresh_token"]


def test_a_person_who_says_no_leaves_no_sign_in(make, token_file, clock):
    with make.person("alice", False) as browser, pytest.raises(LoginRefused):
        OidcAuthProvider.login(
            make.issuer, make.client_id, token_file=token_file, browser=browser, timeout_seconds=30, clock=clock
        )

    assert not token_file.exists()


def test_after_signing_out_the_refresh_token_is_worth_nothing(make, token_file, clock):
    provider = make.login(token_file, clock=clock)
    copied = json.loads(token_file.read_text())["token"]
    report = provider.logout()

    assert report.refresh_token_revoked is True
    assert not token_file.exists()
    with pytest.raises(LoginRequired):
        provider.get_token()
    copy = OidcAuthProvider(make.issuer, make.client_id, token=copied, clock=clock)
    clock.advance(3600)
    with pytest.raises(LoginRequired):
        copy.get_token()


def test_a_service_account_gets_a_token_for_the_lake(make):
    provider = OidcClientCredentialsProvider(make.issuer, make.service_client_id, make.service_secret)

    claims = claims_of(provider.get_token())

    assert claims["iss"] == make.issuer
    assert claims["aud"] == make.audience
    assert claims["client_id"] == make.service_client_id


def test_a_service_account_with_a_wrong_secret_is_refused(make):
    provider = OidcClientCredentialsProvider(make.issuer, make.service_client_id, "wrong")

    with pytest.raises(LoginFailed):
        provider.get_token()
