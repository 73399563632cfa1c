"""Which browser is opened, and which is left alone."""

import sys
import threading
import webbrowser

import pytest

from micromegas_jupyter.auth.flows import environment
from micromegas_jupyter.auth.flows.environment import GraphicalBrowser, has_graphical_browser, is_remote_session

SCREEN = {"DISPLAY": ":0"}
SSH = {"SSH_CONNECTION": "10.0.0.1 50000 10.0.0.2 22"}
URL = "http://127.0.0.1:41000/start"


class ScriptedController(webbrowser.BaseBrowser):
    def __init__(self, name="firefox", answer=True):
        super().__init__(name)
        self.opened = []
        self._answer = answer

    def open(self, url, new=0, **_options):
        self.opened.append((url, new))
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer


@pytest.fixture
def installed(monkeypatch):
    """Put a controller in the place of what `webbrowser` finds on this machine; None for nothing."""

    def install(controller):
        def get():
            if controller is None:
                raise webbrowser.Error("could not locate runnable browser")
            return controller

        monkeypatch.setattr(webbrowser, "get", get)
        monkeypatch.setattr(sys, "platform", "linux")
        return controller

    return install


@pytest.mark.parametrize("environ", [SCREEN, {"WAYLAND_DISPLAY": "wayland-0"}, {"BROWSER": "my-browser"}])
def test_a_browser_on_a_screen_is_one(installed, environ):
    installed(ScriptedController())

    assert has_graphical_browser(environ)


def test_without_a_screen_there_is_none(installed):
    installed(ScriptedController())

    assert not has_graphical_browser({})


def test_other_systems_need_no_variable_for_their_screen(installed, monkeypatch):
    installed(ScriptedController())
    monkeypatch.setattr(sys, "platform", "darwin")

    assert has_graphical_browser({})


def test_a_screen_without_a_browser_has_none(installed):
    installed(None)

    assert not has_graphical_browser(SCREEN)


@pytest.mark.parametrize("name", ["lynx", "w3m", "www-browser", "/usr/bin/links"])
def test_a_browser_that_would_take_over_the_terminal_does_not_count(installed, name):
    controller = installed(ScriptedController(name))

    assert not has_graphical_browser(SCREEN)
    assert not GraphicalBrowser(SCREEN).open(URL)
    assert controller.opened == []


def test_a_screen_that_the_person_does_not_see_does_not_count(installed, monkeypatch):
    installed(ScriptedController())
    monkeypatch.setattr(sys, "platform", "darwin")

    assert not has_graphical_browser(SSH)


def test_a_display_that_ssh_forwards_is_one():
    assert is_remote_session(SSH)
    assert not is_remote_session({**SSH, **SCREEN})


def test_the_page_is_opened_in_a_new_tab(installed):
    controller = installed(ScriptedController())

    assert GraphicalBrowser(SCREEN).open(URL)
    assert controller.opened == [(URL, 2)]


@pytest.mark.parametrize("answer", [False, webbrowser.Error("no"), OSError("no")])
def test_a_browser_that_does_not_start_is_reported(installed, answer):
    installed(ScriptedController(answer=answer))

    assert not GraphicalBrowser(SCREEN).open(URL)


def test_a_browser_that_stays_in_the_foreground_holds_nobody_up(installed, monkeypatch):
    released = threading.Event()
    monkeypatch.setattr(environment, "BROWSER_START_SECONDS", 0.05)

    class Foreground(ScriptedController):
        def open(self, url, new=0, **_options):
            released.wait(30)
            return False

    installed(Foreground())

    try:
        assert GraphicalBrowser(SCREEN).open(URL)
    finally:
        released.set()
