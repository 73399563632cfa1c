"""Sign-ins that go on by themselves while the caller does something else."""

from __future__ import annotations

import contextvars
import threading
from typing import TYPE_CHECKING

import pytest
import requests

from micromegas_jupyter.auth import OidcAuthProvider, PendingLogin
from micromegas_jupyter.errors import LoginFailed
from tests.fakes.scripted_browser import ScriptedBrowser

if TYPE_CHECKING:
    from tests.fakes.scripted_provider import ScriptedProvider

pytestmark = pytest.mark.integration


def begin(idp: ScriptedProvider, **options: object) -> PendingLogin:
    return OidcAuthProvider.begin_login(idp.issuer, "notebook", **{"timeout_seconds": 10, **options})  # type: ignore[arg-type]


def test_whoever_wants_to_know_the_end_is_told_once_in_their_own_context(idp):
    cell = contextvars.ContextVar("cell", default="none")
    told: list[tuple[bool, str]] = []
    ended = threading.Event()
    cell.set("seven")
    pending = begin(idp)

    def broken(_pending: PendingLogin) -> None:
        raise RuntimeError("a widget that is gone")

    def note(login: PendingLogin) -> None:
        told.append((login.done, cell.get()))
        ended.set()

    pending.on_done(broken)
    pending.on_done(note)
    ScriptedBrowser().open(pending.start_url)

    assert ended.wait(30)
    pending.on_done(note)
    assert told == [(True, "seven"), (True, "seven")]
    pending.wait_closed(30)


def test_a_cancelled_login_ends_at_once_and_closes_its_listener(idp):
    pending = begin(idp)

    pending.cancel()
    pending.cancel()

    with pytest.raises(LoginFailed) as caught:
        pending.result(30)
    assert type(caught.value) is LoginFailed
    assert pending.wait_closed(30)
    with pytest.raises(requests.ConnectionError):
        requests.get(pending.start_url, timeout=30)


def test_a_login_that_is_waited_for_shows_nothing_secret_in_its_repr(idp):
    pending = begin(idp)

    assert repr(pending) == f"PendingLogin(done=False, expires_at={pending.expires_at.isoformat()})"
    pending.cancel()
    assert pending.wait_closed(30)
