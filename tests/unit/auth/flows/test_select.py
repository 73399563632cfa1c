"""The choice of the flow: each row of the table, and what overrides it."""

import sys
import threading
import types
import webbrowser
from unittest.mock import Mock

import pytest

from micromegas_jupyter.auth.flows import base
from micromegas_jupyter.auth.flows.base import (
    BASIC_FLOWS,
    GraphicalBrowser,
    RuntimeEnvironment,
    RuntimeInfo,
    available_flows,
    choose_flow,
    detect_environment,
    gather_runtime_info,
    has_graphical_browser,
)
from micromegas_jupyter.config.client import Flow

ALL = frozenset(Flow)
NOBODY = (RuntimeEnvironment.UNATTENDED, RuntimeEnvironment.NO_TERMINAL)
KERNEL = RuntimeInfo(has_kernel=True, allows_input=True)
ALONE = RuntimeInfo(has_kernel=True, allows_input=False)
TERMINAL = RuntimeInfo(has_terminal=True, has_browser=True)
SSH = {"SSH_CONNECTION": "10.0.0.1 50000 10.0.0.2 22"}
SCREEN = {"DISPLAY": ":0"}
HUB = {"KERNEL_MICROMEGAS_HUB": "http://127.0.0.1:8000/services/micromegas/", "JUPYTERHUB_API_TOKEN": "t"}
OPTED_IN = {"JUPYTERHUB_API_TOKEN": "x", "KERNEL_MICROMEGAS_REDIRECT": "/user/alice/"}
URL = "http://127.0.0.1:41000/start"

HUB_FIRST = [Flow.HUB, Flow.REDIRECT, Flow.DEVICE, Flow.PASTE]
REDIRECT_FIRST = [Flow.REDIRECT, Flow.DEVICE, Flow.PASTE]
LOOPBACK_FIRST = [Flow.BROWSER, Flow.DEVICE, Flow.PASTE]
DEVICE_FIRST = [Flow.DEVICE, Flow.PASTE]

ROWS = [
    ({}, ALONE, RuntimeEnvironment.UNATTENDED, [None]),
    ({"KERNEL_MICROMEGAS_REDIRECT": "/"}, ALONE, RuntimeEnvironment.UNATTENDED, [None]),
    ({"JUPYTERHUB_USER": "alice"}, ALONE, RuntimeEnvironment.UNATTENDED, [None]),
    (HUB, ALONE, RuntimeEnvironment.UNATTENDED, [Flow.HUB]),
    (HUB, KERNEL, RuntimeEnvironment.HUB_WITH_SERVICE, HUB_FIRST),
    ({**HUB, **OPTED_IN}, KERNEL, RuntimeEnvironment.HUB_WITH_SERVICE, HUB_FIRST),
    ({**HUB, "JUPYTERHUB_API_TOKEN": ""}, KERNEL, RuntimeEnvironment.HUB_WITH_SERVICE, DEVICE_FIRST),
    ({"KERNEL_MICROMEGAS_REDIRECT": "/"}, KERNEL, RuntimeEnvironment.JUPYTER_WITH_REDIRECT, REDIRECT_FIRST),
    ({"KERNEL_MICROMEGAS_REDIRECT": "/", **SSH}, KERNEL, RuntimeEnvironment.JUPYTER_WITH_REDIRECT, REDIRECT_FIRST),
    (OPTED_IN, KERNEL, RuntimeEnvironment.JUPYTER_WITH_REDIRECT, REDIRECT_FIRST),
    ({"JUPYTERHUB_USER": "alice"}, KERNEL, RuntimeEnvironment.HUB, DEVICE_FIRST),
    ({}, RuntimeInfo(has_kernel=True, allows_input=True, is_colab=True), RuntimeEnvironment.COLAB, DEVICE_FIRST),
    ({"VSCODE_PID": "1", **SSH}, KERNEL, RuntimeEnvironment.VSCODE_REMOTE, DEVICE_FIRST),
    ({"VSCODE_CWD": "/", "CODESPACES": "true"}, KERNEL, RuntimeEnvironment.VSCODE_REMOTE, DEVICE_FIRST),
    ({"VSCODE_CWD": "/", "REMOTE_CONTAINERS": "true"}, KERNEL, RuntimeEnvironment.VSCODE_REMOTE, DEVICE_FIRST),
    (SSH, KERNEL, RuntimeEnvironment.REMOTE_JUPYTER, DEVICE_FIRST),
    ({"VSCODE_PID": "1"}, KERNEL, RuntimeEnvironment.VSCODE, LOOPBACK_FIRST),
    ({}, KERNEL, RuntimeEnvironment.JUPYTER, LOOPBACK_FIRST),
    ({"KERNEL_MICROMEGAS_REDIRECT": ""}, RuntimeInfo(has_kernel=True), RuntimeEnvironment.JUPYTER, LOOPBACK_FIRST),
    ({}, RuntimeInfo(has_browser=True), RuntimeEnvironment.NO_TERMINAL, [None]),
    ({"CI": "true"}, TERMINAL, RuntimeEnvironment.NO_TERMINAL, [None]),
    ({**HUB, "CI": "true"}, TERMINAL, RuntimeEnvironment.NO_TERMINAL, [Flow.HUB]),
    (HUB, TERMINAL, RuntimeEnvironment.HUB_TERMINAL, HUB_FIRST),
    (SSH, RuntimeInfo(has_terminal=True), RuntimeEnvironment.REMOTE_TERMINAL, DEVICE_FIRST),
    ({**SSH, "DISPLAY": "localhost:10.0"}, TERMINAL, RuntimeEnvironment.TERMINAL, LOOPBACK_FIRST),
    # A terminal of the lab inherits the variable, and has no kernel to receive an answer.
    ({"KERNEL_MICROMEGAS_REDIRECT": "/", "CI": "false"}, TERMINAL, RuntimeEnvironment.TERMINAL, LOOPBACK_FIRST),
    ({**HUB, "JUPYTERHUB_API_TOKEN": "", "CI": ""}, TERMINAL, RuntimeEnvironment.TERMINAL, LOOPBACK_FIRST),
    ({}, RuntimeInfo(has_terminal=True), RuntimeEnvironment.TERMINAL_WITHOUT_BROWSER, DEVICE_FIRST),
]


@pytest.mark.parametrize(("environ", "facts", "expected", "flows"), ROWS)
def test_each_environment_is_detected_and_has_its_flows_in_order(environ, facts, expected, flows):
    choice = choose_flow(detect_environment(environ, facts), can_device=True, available=available_flows(environ, facts))

    assert choice.environment is expected
    assert [choice.flow, *choice.fallbacks] == flows
    assert choice.origin == "environment"
    assert bool(choice.remedy) is (choice.flow is None)


@pytest.mark.parametrize(
    ("where", "can_device", "available", "expected", "skipped"),
    [
        (RuntimeEnvironment.JUPYTER_WITH_REDIRECT, True, BASIC_FLOWS, [Flow.DEVICE, Flow.PASTE], [Flow.REDIRECT]),
        (RuntimeEnvironment.REMOTE_TERMINAL, False, BASIC_FLOWS, [Flow.PASTE], [Flow.DEVICE]),
        (RuntimeEnvironment.REMOTE_TERMINAL, None, BASIC_FLOWS, [Flow.DEVICE, Flow.PASTE], []),
        (RuntimeEnvironment.HUB, False, {Flow.BROWSER, Flow.DEVICE}, [None], [Flow.DEVICE, Flow.PASTE]),
    ],
)
def test_a_flow_that_is_not_possible_is_skipped_and_named(where, can_device, available, expected, skipped):
    choice = choose_flow(where, can_device=can_device, available=available)

    assert [choice.flow, *choice.fallbacks] == expected
    assert [found.flow for found in choice.skipped] == skipped
    assert all(found.reason for found in choice.skipped)
    assert ("micromegas login" in choice.remedy) is (choice.flow is None)


@pytest.mark.parametrize(
    ("where", "wanted", "origin", "can_device", "expected"),
    [
        (RuntimeEnvironment.JUPYTER, Flow.PASTE, "argument", None, [Flow.PASTE]),
        (RuntimeEnvironment.REMOTE_TERMINAL, Flow.BROWSER, "argument", None, [Flow.BROWSER]),
        (RuntimeEnvironment.REMOTE_TERMINAL, Flow.BROWSER, "MICROMEGAS_OIDC_FLOW", None, [Flow.BROWSER, *DEVICE_FIRST]),
        (RuntimeEnvironment.REMOTE_TERMINAL, Flow.BROWSER, "remembered", None, [Flow.BROWSER, *DEVICE_FIRST]),
        (RuntimeEnvironment.TERMINAL, Flow.DEVICE, "argument", False, [None]),
        (RuntimeEnvironment.TERMINAL, Flow.DEVICE, "MICROMEGAS_OIDC_FLOW", False, [None]),
        (RuntimeEnvironment.NO_TERMINAL, Flow.DEVICE, "argument", None, [Flow.DEVICE]),
        (RuntimeEnvironment.UNATTENDED, Flow.DEVICE, "argument", None, [None]),
    ],
)
def test_a_persons_choice_wins_and_only_a_lasting_one_has_fallbacks(where, wanted, origin, can_device, expected):
    choice = choose_flow(where, wanted=wanted, origin=origin, can_device=can_device)

    assert [choice.flow, *choice.fallbacks] == expected
    assert choice.origin == origin or where is RuntimeEnvironment.UNATTENDED
    assert bool(choice.remedy) is (choice.flow is None)


def test_an_earlier_choice_that_is_not_possible_any_more_is_skipped():
    choice = choose_flow(RuntimeEnvironment.TERMINAL, wanted=Flow.DEVICE, origin="remembered", can_device=False)

    assert (choice.flow, choice.origin, choice.fallbacks) == (Flow.BROWSER, "environment", (Flow.PASTE,))
    assert [found.flow for found in choice.skipped] == [Flow.DEVICE]


@pytest.mark.parametrize("where", NOBODY)
@pytest.mark.parametrize("origin", ["MICROMEGAS_OIDC_FLOW", "remembered"])
def test_where_nobody_is_there_no_lasting_choice_makes_a_program_wait(where, origin):
    choice = choose_flow(where, wanted=Flow.BROWSER, origin=origin, can_device=True)

    assert choice.flow is None
    for name in ("CLIENT_SECRET", "PRIVATE_KEY_FILE", "WORKLOAD"):
        assert f"MICROMEGAS_OIDC_{name}" in choice.remedy
    for flow in (None, Flow.HUB):
        by_hub = choose_flow(where, wanted=flow, available=ALL)
        assert (by_hub.flow, by_hub.fallbacks) == (Flow.HUB, ())


# What a process finds out


@pytest.mark.parametrize(
    ("request_of_front_end", "expected"),
    [
        ({"content": {"allow_stdin": True}}, True),
        ({"content": {"allow_stdin": False}}, False),
        ({"content": {}}, False),
        ({}, None),
    ],
)
def test_a_kernel_knows_whether_a_person_can_answer(monkeypatch, request_of_front_end, expected):
    module = types.ModuleType("IPython.core.getipython")
    kernel = types.SimpleNamespace(get_parent={"shell": request_of_front_end}.__getitem__)
    module.get_ipython = lambda: types.SimpleNamespace(kernel=kernel)
    monkeypatch.setitem(sys.modules, "IPython.core.getipython", module)

    facts = gather_runtime_info(environ={})

    assert (facts.has_kernel, facts.allows_input, facts.is_colab) == (True, expected, False)
    monkeypatch.setattr("importlib.util.find_spec", {"google.colab": object()}.get)
    assert gather_runtime_info(environ={}).is_colab
    monkeypatch.setattr("importlib.util.find_spec", Mock(side_effect=ModuleNotFoundError("google")))
    assert not gather_runtime_info(environ={}).is_colab


def test_closed_streams_are_no_terminal(monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    monkeypatch.setattr(sys, "stderr", None)

    assert not gather_runtime_info(environ={}).has_terminal


@pytest.mark.parametrize(
    ("environ", "name", "platform", "expected"),
    [
        (SCREEN, "firefox", "linux", True),
        ({"WAYLAND_DISPLAY": "wayland-0"}, "firefox", "linux", True),
        ({"BROWSER": "my-browser"}, "firefox", "linux", True),
        ({}, "firefox", "linux", False),
        ({}, "firefox", "darwin", True),
        (SSH, "firefox", "darwin", False),
        (SCREEN, None, "linux", False),
        (SCREEN, "w3m", "linux", False),
        (SCREEN, "/usr/bin/links", "linux", False),
    ],
)
def test_a_browser_counts_if_it_opens_a_window_on_the_persons_screen(monkeypatch, environ, name, platform, expected):
    opened = []

    def get():
        if name is None:
            raise webbrowser.Error("could not locate runnable browser")
        return types.SimpleNamespace(name=name, open=lambda url, new: opened.append((url, new)) or True)

    monkeypatch.setattr(webbrowser, "get", get)
    monkeypatch.setattr(sys, "platform", platform)

    assert has_graphical_browser(environ) is expected
    assert GraphicalBrowser(environ).open(URL) is expected
    assert opened == ([(URL, 2)] if expected else [])


def test_a_browser_that_stays_in_the_foreground_holds_nobody_up(monkeypatch):
    released = threading.Event()
    foreground = types.SimpleNamespace(name="firefox", open=lambda _url, **_options: released.wait(30))
    monkeypatch.setattr(base, "BROWSER_START_SECONDS", 0.05)
    monkeypatch.setattr(webbrowser, "get", lambda: foreground)

    try:
        assert GraphicalBrowser(SCREEN).open(URL)
    finally:
        released.set()
