"""Sign-ins by code and by pasted address, through real HTTP, at two providers that share no code with each other."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.auth import OidcAuthProvider, PendingLogin
from micromegas_jupyter.auth.flows.base import LoginContext
from micromegas_jupyter.auth.flows.device import DeviceFlow
from micromegas_jupyter.auth.provider_connection import ProviderConnection
from micromegas_jupyter.config.client import Bearer, Flow
from micromegas_jupyter.core.system import SYSTEM_CLOCK
from micromegas_jupyter.demo.provider import DemoProvider
from micromegas_jupyter.demo.provider.scripted_person import sign_in
from micromegas_jupyter.errors import LoginRefused, UsageError
from tests.fakes.clock import FakeClock
from tests.fakes.pause import FakePause
from tests.fakes.raw_client import claims_of
from tests.integration.other_provider.person import sign_in_other

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from micromegas_jupyter.auth.flows.base import LoginFlow
    from tests.integration.other_provider.running import OtherProvider

pytestmark = pytest.mark.integration

DEADLINE_SECONDS = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Make:
    """One provider, and a person who walks through its pages.

    Attributes:
        issuer: Its issuer URL.
        client_id: The public application.
        walk: Follows an address through the pages as a person; returns the address where the browser ends.
    """

    issuer: str
    client_id: str
    walk: Callable[..., str]

    def begin(self, flow: Flow, **options: object) -> PendingLogin:
        return OidcAuthProvider.begin_login(self.issuer, self.client_id, flow=flow, **options)  # type: ignore[arg-type]

    def start_device(self, pause: FakePause, clock: FakeClock) -> LoginFlow:
        """Start a device sign-in whose pauses take no time."""
        connection = ProviderConnection(self.issuer, self.client_id, None, http=None, clock=clock)
        return DeviceFlow(
            LoginContext(connection=connection),
            stopped=pause,
        )


@pytest.fixture
def demo_make() -> Iterator[Make]:
    with DemoProvider() as running:
        yield Make(issuer=running.issuer, client_id=running.client_id, walk=sign_in)


@pytest.fixture
def other_make(other_provider: OtherProvider) -> Make:
    return Make(issuer=other_provider.issuer, client_id=other_provider.client_id, walk=sign_in_other)


@pytest.fixture(params=["demo_make", "other_make"])
def make(request: pytest.FixtureRequest) -> Make:
    return request.getfixturevalue(request.param)


@pytest.fixture
def clock() -> FakeClock:
    """The real time, but it moves only when told: the other provider's clock cannot be set."""
    return FakeClock(SYSTEM_CLOCK.now())


@pytest.fixture
def pause(clock: FakeClock) -> FakePause:
    return FakePause(clock)


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    return tmp_path / "tokens.json"


def test_a_person_types_the_code_and_the_sign_in_is_kept(make: Make, token_file: Path) -> None:
    pending = make.begin(Flow.DEVICE, token_file=token_file)
    assert pending.verification_uri_complete is not None
    assert pending.user_code is not None
    assert pending.user_code in pending.verification_uri_complete

    make.walk(pending.verification_uri_complete, person="bob")

    provider = pending.result(DEADLINE_SECONDS)
    assert provider.identity().email == "bob@example.com"
    assert claims_of(provider.get_token())["aud"] == make.client_id
    assert OidcAuthProvider.from_file(token_file).get_token() == provider.get_token()
    assert provider.identity().renews
    assert pending.wait_closed(DEADLINE_SECONDS)


def test_the_device_sign_in_waits_until_the_person_has_typed(make: Make, pause: FakePause, clock: FakeClock) -> None:
    login = make.start_device(pause, clock)
    pause.meanwhile[3] = lambda: make.walk(login.prompt.verification_uri_complete)

    tokens = login.tokens()

    assert tokens is not None
    assert tokens.id_token is not None
    assert claims_of(tokens.id_token.reveal())["email"] == "alice@example.com"
    assert len(pause.waited) >= 3


def test_a_person_who_refuses_the_device_ends_it(make: Make, pause: FakePause, clock: FakeClock) -> None:
    login = make.start_device(pause, clock)
    pause.meanwhile[1] = lambda: make.walk(login.prompt.verification_uri_complete, allow=False)

    with pytest.raises(LoginRefused):
        login.tokens()


def test_a_code_that_nobody_types_ends_with_its_life(make: Make, pause: FakePause, clock: FakeClock) -> None:
    login = make.start_device(pause, clock)
    began_at = clock.now()

    assert login.tokens() is None

    assert (clock.now() - began_at).total_seconds() == 600
    assert clock.now() == login.prompt.expires_at


def test_nothing_of_a_device_sign_in_that_is_secret_is_logged(
    make: Make, pause: FakePause, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    login = make.start_device(pause, clock)
    pause.meanwhile[1] = lambda: make.walk(login.prompt.verification_uri_complete)
    tokens = login.tokens()
    assert tokens is not None
    assert tokens.refresh_token is not None
    assert tokens.id_token is not None

    shown = f"{caplog.text} {login!r} {vars(login)!r} {tokens!r}"

    secrets = [login._authorization.device_code, tokens.access_token, tokens.refresh_token, tokens.id_token]
    assert not [secret for secret in secrets if secret.reveal() in shown]


def test_a_person_pastes_the_address_and_the_sign_in_is_kept(make: Make, token_file: Path) -> None:
    pending = make.begin(Flow.PASTE, token_file=token_file)

    address = make.walk(pending.start_url, person="bob", visit_callback=False)
    pending.submit(f"  {address}\n")

    provider = pending.result(DEADLINE_SECONDS)
    assert address.startswith("http://127.0.0.1:48080/callback?")
    assert provider.identity().email == "bob@example.com"
    assert json.loads(token_file.read_text())["token"]["id_token"] == provider.get_token()
    assert provider.identity().renews


def test_a_person_who_refuses_has_the_refusal_pasted(make: Make, token_file: Path) -> None:
    pending = make.begin(Flow.PASTE, token_file=token_file)

    pending.submit(make.walk(pending.start_url, allow=False, visit_callback=False))

    with pytest.raises(LoginRefused):
        pending.result(DEADLINE_SECONDS)
    assert not token_file.exists()


def test_the_address_of_another_sign_in_is_not_taken(make: Make) -> None:
    first, second = make.begin(Flow.PASTE), make.begin(Flow.PASTE)
    of_second = make.walk(second.start_url, visit_callback=False)

    with pytest.raises(UsageError):
        first.submit(of_second)
    second.submit(of_second)

    assert second.result(DEADLINE_SECONDS).get_token()
    assert not first.done
    first.cancel()
    assert first.wait_closed(DEADLINE_SECONDS)


def test_an_access_token_for_the_lake_can_be_the_bearer(other_make: Make, other_provider: OtherProvider) -> None:
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
