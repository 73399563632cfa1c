"""The client half against two providers that share no code with each other: one of ours, one by others.

The same people wrote the demo's provider and the client, so only the other one can show a common mistake.
"""

import json
from datetime import datetime, timedelta

import pytest

from micromegas_jupyter.auth import OidcAuthProvider, OidcClientCredentialsProvider
from micromegas_jupyter.auth.flows.base import LoginRequest
from micromegas_jupyter.auth.flows.device import DeviceFlow
from micromegas_jupyter.auth.provider_connection import ProviderConnection
from micromegas_jupyter.config.client import Bearer, Flow
from micromegas_jupyter.core.system import SYSTEM_CLOCK
from micromegas_jupyter.demo.provider import DemoProvider
from micromegas_jupyter.demo.provider.scripted_person import ScriptedPerson, sign_in
from micromegas_jupyter.errors import LoginFailed, LoginRefused, LoginRequired, UsageError
from tests.fakes.clock import FakeClock
from tests.fakes.pause import FakePause
from tests.fakes.raw_client import claims_of
from tests.integration.other_provider.person import OtherScriptedPerson, sign_in_other

pytestmark = pytest.mark.integration

DEADLINE_SECONDS = 60


class Make:
    """One provider as a client meets it."""

    def __init__(self, running, *, person, walk, audience, **authorize_params):
        self.issuer, self.client_id, self.audience = running.issuer, running.client_id, audience
        self.service_account = (running.service_client_id, running.service_secret)
        self.person = person  # makes somebody who signs in there by browser
        self.walk = walk  # follows an address through the pages as a person; returns where the browser ends
        self.authorize_params = authorize_params  # what this make wants to see before it gives a refresh token

    def login(self, token_file, *, person="alice", allow=True, clock):
        options = {"timeout_seconds": 30, "authorize_params": self.authorize_params, "clock": clock}
        with self.person(person=person, allow=allow) as browser:
            return OidcAuthProvider.login(
                self.issuer, self.client_id, token_file=token_file, browser=browser, **options
            )

    def begin(self, flow, **options):
        return OidcAuthProvider.begin_login(self.issuer, self.client_id, flow=flow, **options)


@pytest.fixture
def demo_make():
    with DemoProvider(device_interval_seconds=1) as running:
        yield Make(running, person=ScriptedPerson, walk=sign_in, audience=running.lake_audience)


@pytest.fixture
def other_make(other_provider):
    options = {"person": OtherScriptedPerson, "walk": sign_in_other, "audience": other_provider.resource}
    return Make(other_provider, **options, prompt="consent")


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
    assert (claims["iss"], claims["aud"], claims["email"]) == (make.issuer, make.client_id, "bob@example.com")
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
    with pytest.raises(LoginRefused):
        make.login(token_file, allow=False, clock=clock)

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
    client_id, secret = make.service_account
    provider = OidcClientCredentialsProvider(make.issuer, client_id, secret)
    wrong = OidcClientCredentialsProvider(make.issuer, client_id, "wrong")

    claims = claims_of(provider.get_token())
    with pytest.raises(LoginFailed):
        wrong.get_token()

    assert (claims["iss"], claims["aud"], claims["client_id"]) == (make.issuer, make.audience, client_id)


def test_a_person_types_the_code_and_the_sign_in_is_kept(make, token_file):
    pending = make.begin(Flow.DEVICE, token_file=token_file)
    assert pending.user_code in pending.verification_uri_complete

    make.walk(pending.verification_uri_complete, person="bob")

    provider = pending.result(DEADLINE_SECONDS)
    assert provider.identity().email == "bob@example.com"
    assert claims_of(provider.get_token())["aud"] == make.client_id
    assert OidcAuthProvider.from_file(token_file).get_token() == provider.get_token()
    assert provider.identity().renews
    assert pending.wait_closed(DEADLINE_SECONDS)


@pytest.mark.parametrize("allow", [True, False])
def test_the_device_sign_in_waits_until_the_person_has_answered(make, clock, allow):
    pause = FakePause(clock)
    connection = ProviderConnection(make.issuer, make.client_id, None, http=None, clock=clock)
    login = DeviceFlow(LoginRequest(connection=connection), stopped=pause)
    pause.meanwhile[3] = lambda: make.walk(login.prompt.verification_uri_complete, allow=allow)

    if allow:
        assert claims_of(login.tokens().id_token.reveal())["email"] == "alice@example.com"
    else:
        with pytest.raises(LoginRefused):
            login.tokens()

    assert len(pause.waited) >= 3


def test_a_person_pastes_the_address_and_the_sign_in_is_kept(make, token_file):
    pending = make.begin(Flow.PASTE, token_file=token_file)

    address = make.walk(pending.start_url, person="bob", visit_callback=False)
    pending.submit(f"  {address}\n")

    provider = pending.result(DEADLINE_SECONDS)
    assert address.startswith("http://127.0.0.1:48080/callback?")
    assert provider.identity().email == "bob@example.com"
    assert json.loads(token_file.read_text())["token"]["id_token"] == provider.get_token()
    assert provider.identity().renews


def test_the_address_of_another_sign_in_is_not_taken(make):
    first, second = make.begin(Flow.PASTE), make.begin(Flow.PASTE)
    of_second = make.walk(second.start_url, visit_callback=False)

    with pytest.raises(UsageError):
        first.submit(of_second)
    second.submit(of_second)

    assert second.result(DEADLINE_SECONDS).get_token()
    assert not first.done
    first.cancel()
    assert first.wait_closed(DEADLINE_SECONDS)


def test_an_access_token_for_the_lake_can_be_the_bearer(other_make, other_provider):
    pending = other_make.begin(
        Flow.PASTE,
        bearer=Bearer.ACCESS_TOKEN,
        resource=other_provider.resource,
        scope="openid email offline_access lake",
    )

    pending.submit(other_make.walk(pending.start_url, visit_callback=False))
    provider = pending.result(DEADLINE_SECONDS)

    claims = claims_of(provider.get_token())
    assert (claims["aud"], claims["scope"]) == (other_provider.resource, "lake")
    assert claims_of(provider.get_token(bearer=Bearer.ID_TOKEN))["aud"] == other_make.client_id
    assert provider.identity().email == "alice@example.com"
