"""Where a program runs, from its environment and what it can find out."""

import sys
import types

import pytest

from micromegas_jupyter.auth.flows.environment import Facts, gather_facts
from micromegas_jupyter.auth.flows.select import RuntimeEnvironment, detect_environment

KERNEL = Facts(has_kernel=True, allows_input=True)
TERMINAL = Facts(has_terminal=True, has_browser=True)
SSH = {"SSH_CONNECTION": "10.0.0.1 50000 10.0.0.2 22"}


class ScriptedKernel:
    """A kernel that was asked to run a cell by some front end."""

    def __init__(self, request):
        self._request = request

    def get_parent(self, channel):
        assert channel == "shell"
        return self._request


HUB = {"KERNEL_MICROMEGAS_HUB": "http://127.0.0.1:8000/services/micromegas/", "JUPYTERHUB_API_TOKEN": "t"}


def _shell(request):
    return types.SimpleNamespace(kernel=ScriptedKernel(request))


@pytest.mark.parametrize(
    ("environ", "facts", "expected"),
    [
        ({}, KERNEL, RuntimeEnvironment.JUPYTER),
        ({}, Facts(has_kernel=True), RuntimeEnvironment.JUPYTER),
        ({"KERNEL_MICROMEGAS_REDIRECT": "1"}, KERNEL, RuntimeEnvironment.JUPYTER_WITH_REDIRECT),
        ({"KERNEL_MICROMEGAS_REDIRECT": ""}, KERNEL, RuntimeEnvironment.JUPYTER),
        ({"KERNEL_MICROMEGAS_HUB": "1", "JUPYTERHUB_USER": "alice"}, KERNEL, RuntimeEnvironment.HUB_WITH_SERVICE),
        ({"JUPYTERHUB_USER": "alice"}, KERNEL, RuntimeEnvironment.HUB),
        ({"VSCODE_PID": "1"}, KERNEL, RuntimeEnvironment.VSCODE),
        ({"VSCODE_PID": "1", **SSH}, KERNEL, RuntimeEnvironment.VSCODE_REMOTE),
        ({"VSCODE_CWD": "/", "CODESPACES": "true"}, KERNEL, RuntimeEnvironment.VSCODE_REMOTE),
        ({"VSCODE_CWD": "/", "REMOTE_CONTAINERS": "true"}, KERNEL, RuntimeEnvironment.VSCODE_REMOTE),
        (SSH, KERNEL, RuntimeEnvironment.REMOTE_JUPYTER),
        ({}, Facts(has_kernel=True, allows_input=True, is_colab=True), RuntimeEnvironment.COLAB),
        ({}, Facts(has_kernel=True, allows_input=False), RuntimeEnvironment.UNATTENDED),
        ({}, TERMINAL, RuntimeEnvironment.TERMINAL),
        ({}, Facts(has_terminal=True), RuntimeEnvironment.TERMINAL_WITHOUT_BROWSER),
        (SSH, Facts(has_terminal=True), RuntimeEnvironment.REMOTE_TERMINAL),
        ({}, Facts(has_browser=True), RuntimeEnvironment.NO_TERMINAL),
        (HUB, TERMINAL, RuntimeEnvironment.HUB_TERMINAL),
        ({**HUB, "JUPYTERHUB_API_TOKEN": ""}, TERMINAL, RuntimeEnvironment.TERMINAL),
        ({**HUB, "CI": "true"}, TERMINAL, RuntimeEnvironment.NO_TERMINAL),
        ({"CI": "true"}, TERMINAL, RuntimeEnvironment.NO_TERMINAL),
        ({"CI": "false"}, TERMINAL, RuntimeEnvironment.TERMINAL),
        ({"CI": ""}, TERMINAL, RuntimeEnvironment.TERMINAL),
    ],
)
def test_environment_are_recognised(environ, facts, expected):
    assert detect_environment(environ, facts) is expected


def test_a_redirect_that_the_server_offers_on_a_hub_counts_and_the_hubs_service_before_it():
    allowed = {"JUPYTERHUB_API_TOKEN": "x", "KERNEL_MICROMEGAS_REDIRECT": "/user/alice/"}

    assert detect_environment(allowed, KERNEL) is RuntimeEnvironment.JUPYTER_WITH_REDIRECT
    assert detect_environment({**allowed, "KERNEL_MICROMEGAS_HUB": "1"}, KERNEL) is RuntimeEnvironment.HUB_WITH_SERVICE


@pytest.mark.parametrize("variable", ["KERNEL_MICROMEGAS_REDIRECT", "KERNEL_MICROMEGAS_HUB", "JUPYTERHUB_USER"])
def test_a_notebook_that_nobody_watches_is_unattended_wherever_it_runs(variable):
    assert (
        detect_environment({variable: "1"}, Facts(has_kernel=True, allows_input=False)) is RuntimeEnvironment.UNATTENDED
    )


def test_a_redirect_counts_before_ssh():
    assert (
        detect_environment({"KERNEL_MICROMEGAS_REDIRECT": "1", **SSH}, KERNEL)
        is RuntimeEnvironment.JUPYTER_WITH_REDIRECT
    )


def test_a_terminal_over_ssh_with_a_forwarded_display_has_its_browser():
    assert detect_environment({**SSH, "DISPLAY": "localhost:10.0"}, TERMINAL) is RuntimeEnvironment.TERMINAL


@pytest.mark.parametrize(
    ("request_of_front_end", "expected"),
    [
        ({"content": {"allow_stdin": True}}, True),
        ({"content": {"allow_stdin": False}}, False),
        ({"content": {}}, False),
        ({}, None),
    ],
)
def test_a_kernel_knows_whether_a_person_can_answer(request_of_front_end, expected):
    facts = gather_facts(environ={}, shell=_shell(request_of_front_end))

    assert (facts.has_kernel, facts.allows_input) == (True, expected)


def test_a_shell_without_a_kernel_is_a_terminal():
    assert not gather_facts(environ={}, shell=types.SimpleNamespace(kernel=None)).has_kernel


def test_the_shell_of_this_process_is_found(monkeypatch):
    module = types.ModuleType("IPython.core.getipython")
    module.get_ipython = lambda: _shell({"content": {"allow_stdin": False}})
    monkeypatch.setitem(sys.modules, "IPython.core.getipython", module)

    facts = gather_facts(environ={})

    assert (facts.has_kernel, facts.allows_input) == (True, False)


def test_a_process_without_ipython_has_no_kernel(monkeypatch):
    monkeypatch.delitem(sys.modules, "IPython.core.getipython", raising=False)

    assert not gather_facts(environ={}).has_kernel


def test_colab_is_known_by_its_package(monkeypatch, tmp_path):
    (tmp_path / "google").mkdir()
    (tmp_path / "google" / "colab.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "google", raising=False)

    assert gather_facts(environ={}, shell=_shell({})).is_colab


def test_another_package_of_google_is_not_colab():
    assert not gather_facts(environ={}, shell=_shell({})).is_colab


class _Stream:
    def __init__(self, answer):
        self._answer = answer

    def isatty(self):
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer


@pytest.mark.parametrize(
    ("stdin", "stderr", "expected"),
    [
        (_Stream(True), _Stream(False), True),
        (_Stream(False), _Stream(True), True),
        (_Stream(False), _Stream(False), False),
        (None, _Stream(ValueError("closed")), False),
    ],
)
def test_one_of_two_streams_makes_a_terminal(monkeypatch, stdin, stderr, expected):
    monkeypatch.setattr(sys, "stdin", stdin)
    monkeypatch.setattr(sys, "stderr", stderr)
    monkeypatch.delitem(sys.modules, "IPython.core.getipython", raising=False)

    assert gather_facts(environ={}).has_terminal is expected
