"""Device sign-ins over real sockets, with the faults that a provider and a network can have."""

import threading
import time

import pytest

from micromegas_jupyter.auth import OidcAuthProvider
from micromegas_jupyter.config.client import Flow
from micromegas_jupyter.errors import LoginFailed
from tests.fakes.scripted_provider import ScriptedProvider

pytestmark = pytest.mark.integration

DEADLINE_SECONDS = 60


@pytest.fixture
def idp():
    with ScriptedProvider() as running:
        running.device.interval_seconds = 1
        yield running


def begin(idp, **options):
    return OidcAuthProvider.begin_login(idp.issuer, "notebook", **{"flow": Flow.DEVICE, **options})


def test_a_device_sign_in_goes_on_by_itself(idp, tmp_path):
    told = threading.Event()
    pending = begin(idp, token_file=tmp_path / "t.json", scope="openid lake", audience="api")
    pending.on_done(lambda _pending: told.set())

    idp.device.decide(pending.user_code)

    assert told.wait(DEADLINE_SECONDS)
    assert pending.result(0).identity().email == "alice@example.com"
    stored = OidcAuthProvider.from_file(tmp_path / "t.json")
    assert (stored.get_token(), stored.audience, stored.scope) == (pending.result(0).get_token(), "api", "openid lake")
    assert pending.wait_closed(DEADLINE_SECONDS)


def test_a_cancelled_device_sign_in_ends_at_once(idp):
    idp.device.interval_seconds = 300
    pending = begin(idp)
    started = time.monotonic()

    pending.cancel()

    with pytest.raises(LoginFailed, match="canceled"):
        pending.result(DEADLINE_SECONDS)
    assert pending.wait_closed(DEADLINE_SECONDS)
    assert time.monotonic() - started < 9
    assert idp.seen("/token") == []
