"""A person signs in, against a provider on loopback: what is shown, kept, tried next and refused."""

import socket
from dataclasses import replace

import pytest
import requests

from micromegas_jupyter.config.client import Flow, TokenStorage
from micromegas_jupyter.errors import LoginFailed, LoginRefused, TokenStoreError, UsageError
from micromegas_jupyter.wiring.sign_in import login
from tests.fakes.scripted_browser import ScriptedBrowser
from tests.fakes.scripted_provider import Reply


class NoBrowser:
    def open(self, url):
        return False


def _browse(url):
    """Follow the provider's page to the address that a person would copy."""
    return requests.get(url, allow_redirects=False, timeout=30).headers["Location"]


class Person:
    """Reads what is shown, and pastes what a script says."""

    def __init__(self, *answers):
        self.heard = []
        self.shown = []
        self._answers = list(answers)

    def show(self, pending):
        self.shown.append(pending)

    def ask(self, question):
        answer = self._answers.pop(0)
        return answer(self.shown[-1]) if callable(answer) else answer


def test_a_sign_in_that_is_not_to_be_kept_is_not(settings, environ, tmp_path):
    provider = login(settings, browser=ScriptedBrowser(), store=False, environ=environ)

    assert provider.identity().email == "alice@example.com"
    assert not (tmp_path / "config").exists()


def test_a_browser_that_does_not_open_is_followed_by_the_announced_fallback(settings, environ):
    person = Person(lambda pending: _browse(pending.start_url))

    login(
        settings, flow=Flow.BROWSER, fallbacks=[Flow.PASTE], browser=NoBrowser(), announce=person.heard.append,
        show=person.show, prompt=person.ask, environ=environ,
    )  # fmt: skip

    assert person.heard == ["No browser opened here. Continuing with an address that you open yourself."]
    assert [pending.flow for pending in person.shown] == [Flow.BROWSER, Flow.PASTE]


def test_a_provider_that_refuses_the_device_sign_in_is_followed_by_the_announced_fallback(settings, environ, idp):
    idp.reply_once("/device_authorization", Reply(status=400, body={"error": "unauthorized_client"}))
    person = Person(lambda pending: _browse(pending.start_url))

    login(
        settings, flow=Flow.DEVICE, fallbacks=[Flow.PASTE], announce=person.heard.append, show=person.show,
        prompt=person.ask, environ=environ,
    )  # fmt: skip

    assert "unauthorized_client" in person.heard[0]
    assert person.heard[0].endswith("Continuing with an address that you open yourself.")


def test_without_a_usable_keyring_no_flow_is_tried(settings, environ, idp):
    settings = replace(settings, storage=TokenStorage.KEYRING)
    environ |= {"PYTHON_KEYRING_BACKEND": "keyring.backends.fail.Keyring"}

    with pytest.raises(TokenStoreError, match="keyring"):
        login(settings, flow=Flow.BROWSER, fallbacks=[Flow.PASTE], prompt=lambda _: "", environ=environ)

    assert idp.requests == []


def test_an_application_that_the_provider_does_not_know_gets_no_fallback(settings, environ, idp):
    person = Person("no address")
    idp.reply_once("/device_authorization", Reply(status=401, body={"error": "invalid_client"}))

    with pytest.raises(LoginFailed, match="invalid_client"):
        login(
            settings, flow=Flow.DEVICE, fallbacks=[Flow.PASTE], announce=person.heard.append, show=person.show,
            environ=environ, prompt=person.ask,
        )  # fmt: skip

    assert person.heard == []


def test_an_address_that_does_not_fit_is_asked_for_again(settings, environ):
    person = Person("http://127.0.0.1/nothing", lambda pending: _browse(pending.start_url))

    login(
        settings, flow=Flow.PASTE, announce=person.heard.append, show=person.show, prompt=person.ask, environ=environ
    )  # fmt: skip

    assert len(person.heard) == 1
    assert "not the address" in person.heard[0]


def test_addresses_that_never_fit_end_the_sign_in(settings, environ):
    person = Person("one", "two", "three", "four")

    with pytest.raises(LoginFailed, match="None of the pasted addresses"):
        login(settings, flow=Flow.PASTE, prompt=person.ask, show=person.show, environ=environ)


def test_a_refusal_that_is_pasted_is_told(settings, environ, idp):
    idp.callback_changes |= {"code": None, "error": "access_denied"}
    person = Person(lambda pending: _browse(pending.start_url))

    with pytest.raises(LoginRefused):
        login(settings, flow=Flow.PASTE, prompt=person.ask, show=person.show, environ=environ)


def test_pasting_needs_somebody_who_can(settings, environ):
    with pytest.raises(UsageError, match="paste"):
        login(settings, flow=Flow.PASTE, environ=environ)


def test_an_interrupt_ends_the_sign_in_and_stops_listening(settings, environ):
    person = Person("no address")

    class Interrupted:
        def open(self, url):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        login(settings, browser=Interrupted(), show=person.show, environ=environ)

    (pending,) = person.shown
    port = int(pending.start_url.split(":")[2].split("/")[0])
    assert pending.done
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0
