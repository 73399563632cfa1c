"""Device sign-ins over real sockets, with the faults that a provider and a network can have."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.auth import OidcAuthProvider, PendingLogin
from micromegas_jupyter.auth.flows.base import LoginContext
from micromegas_jupyter.auth.flows.device import DeviceFlow
from micromegas_jupyter.auth.provider_connection import ProviderConnection
from micromegas_jupyter.config.client import Flow
from micromegas_jupyter.core.http import ProviderHttp
from micromegas_jupyter.core.system import SYSTEM_CLOCK
from micromegas_jupyter.errors import LoginFailed, ProviderUnavailable
from tests.fakes.clock import FakeClock
from tests.fakes.pause import FakePause
from tests.fakes.raw_server import RawServer, hang
from tests.fakes.scripted_provider import ScriptedProvider

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.integration

DEADLINE_SECONDS = 60


@pytest.fixture
def idp() -> Iterator[ScriptedProvider]:
    with ScriptedProvider() as running:
        running.device.interval_seconds = 1
        yield running


def begin(idp: ScriptedProvider, **options: object) -> PendingLogin:
    return OidcAuthProvider.begin_login(idp.issuer, "notebook", **{"flow": Flow.DEVICE, **options})  # type: ignore[arg-type]


def test_a_device_sign_in_goes_on_by_itself(idp: ScriptedProvider, tmp_path: Path) -> None:
    told = threading.Event()
    pending = begin(idp, token_file=tmp_path / "t.json", scope="openid lake", audience="api")
    pending.on_done(lambda _pending: told.set())

    idp.device.decide(pending.user_code)

    assert told.wait(DEADLINE_SECONDS)
    assert pending.result(0).identity().email == "alice@example.com"
    stored = OidcAuthProvider.from_file(tmp_path / "t.json")
    assert (stored.get_token(), stored.audience, stored.scope) == (pending.result(0).get_token(), "api", "openid lake")
    assert pending.wait_closed(DEADLINE_SECONDS)


def test_a_cancelled_device_sign_in_ends_at_once(idp: ScriptedProvider) -> None:
    idp.device.interval_seconds = 300
    pending = begin(idp)
    started = time.monotonic()

    pending.cancel()

    with pytest.raises(LoginFailed, match="cancelled"):
        pending.result(DEADLINE_SECONDS)
    assert pending.wait_closed(DEADLINE_SECONDS)
    assert time.monotonic() - started < 9
    assert idp.seen("/token") == []


def test_a_provider_that_hangs_is_asked_again_until_the_code_ends(
    idp: ScriptedProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = FakeClock(SYSTEM_CLOCK.now())
    pause = FakePause(clock)
    idp.device.interval_seconds, idp.device.lifetime_seconds = 5, 60
    with RawServer(hang) as server:
        idp.metadata_changes["token_endpoint"] = server.url
        http = ProviderHttp()
        connection = ProviderConnection(idp.issuer, "notebook", None, http=http, clock=clock)
        login = DeviceFlow(
            LoginContext(connection=connection),
            stopped=pause,
        )
        # From here on only what hangs is asked.
        monkeypatch.setattr(http, "_timeout_seconds", 0.2)

        with pytest.raises(ProviderUnavailable):
            login.tokens()

    assert [round(seconds) for seconds in pause.waited] == [5, 10, 20, 25]


def test_no_secret_of_a_device_sign_in_is_shown_or_logged_at_any_level(
    idp: ScriptedProvider, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG, logger="micromegas_jupyter")
    pending = begin(idp)
    (device_code,) = idp.device.device_codes()
    idp.device.decide(pending.user_code)

    provider = pending.result(DEADLINE_SECONDS)

    printed = capfd.readouterr()
    records = "".join(repr(vars(record)) for record in caplog.records if "micro" in record.name)
    said = f"{printed.out} {printed.err} {records} {pending!r} {vars(pending)!r} {provider!r} {vars(provider)!r}"
    secrets = [device_code, provider.get_token(bearer="id_token"), provider.get_token(bearer="access_token")]
    assert not [secret for secret in secrets if secret in said]
