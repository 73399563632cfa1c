"""`micromegas login` as a process of its own, in each of its ways, on a terminal and without one."""

import re
import subprocess
import sys
from urllib.parse import parse_qs, urlsplit

import pytest

from micromegas_jupyter.config.client import Flow
from micromegas_jupyter.demo.provider.scripted_person import sign_in
from micromegas_jupyter.wiring import client_side
from tests.fakes.ports import free_port
from tests.fakes.terminal import WAIT_SECONDS, ProgramAtTerminal, make_browser
from tests.fakes.waiting import wait_until

pytestmark = pytest.mark.integration

CLI = [sys.executable, "-m", "micromegas_jupyter.cli"]


def at_terminal(*arguments, environ):
    """Start a command at a terminal, with its standard output apart."""
    return ProgramAtTerminal([*CLI, *arguments], environ=environ, pipes_output=True)


@pytest.fixture
def over_ssh(person):
    """A person at a terminal over SSH, without a display."""
    kept = {
        name: value for name, value in person.items() if name not in {"DISPLAY", "WAYLAND_DISPLAY", "CI", "BROWSER"}
    }
    return {**kept, "SSH_CONNECTION": "10.0.0.1 50000 10.0.0.2 22", "TERM": "xterm-256color", "PYTHONUTF8": "1"}


@pytest.fixture
def at_screen(over_ssh):
    return {name: value for name, value in over_ssh.items() if name != "SSH_CONNECTION"}


def test_a_code_over_ssh_signs_in_and_nothing_opens_its_address(stack, over_ssh):
    terminal = at_terminal("login", environ=over_ssh)

    address, code = terminal.wait_for(r"Go to (\S+) and type (\S+)\. Only type it").groups()
    terminal.wait_for(r"\d:\d\d left\.")
    sign_in(f"{address}?user_code={code}")
    output, exit_code = terminal.output()

    assert exit_code == 0, terminal.text
    assert output.startswith("Signed in as Alice Martin <alice@example.com> · ")
    assert "your browser run on different machines" in terminal.text
    assert "\x1b[97;40m" in terminal.text
    assert f"{address}?user_code=" not in terminal.text
    assert client_side.stored_provider(client_side.load_client_settings(environ=over_ssh), over_ssh) is not None


def test_a_pasted_address_signs_in_after_another_try_and_is_not_shown(stack, over_ssh):
    terminal = at_terminal("login", "--flow", "paste", environ=over_ssh)

    address = terminal.wait_for(r"Open (\S+) in a browser")[1]
    end = sign_in(address, visit_callback=False)
    terminal.wait_for("Paste the address")
    terminal.type("http://127.0.0.1/something\r")
    terminal.wait_for("isn't the URL")
    terminal.type(f"{end}\r")
    output, exit_code = terminal.output()

    assert exit_code == 0, terminal.text
    assert output.startswith("Signed in as Alice Martin")
    assert "code=" not in terminal.text
    settings = client_side.load_client_settings(environ=over_ssh)
    assert client_side.remembered_flow(settings, over_ssh) is Flow.PASTE


@pytest.mark.parametrize("flow", ["browser", "device", "paste"])
def test_an_interrupt_leaves_at_once_and_keeps_nothing(stack, over_ssh, tmp_path, flow):
    terminal = at_terminal("login", "--flow", flow, environ=over_ssh)

    terminal.wait_for(r"left\.|Paste the address")
    terminal.interrupt()
    output, exit_code = terminal.output()

    assert (output, exit_code) == ("", 130)
    assert "Traceback" not in terminal.text
    assert not list((tmp_path / "config").glob("tokens*.json"))
    assert not (tmp_path / "config" / "choices.json").exists()


@pytest.fixture
def own_browser(tmp_path):
    return make_browser(tmp_path / "my-browser")


def test_a_terminal_with_a_browser_opens_it(stack, at_screen, own_browser):
    terminal = at_terminal("login", environ={**at_screen, "BROWSER": own_browser})

    output, exit_code = terminal.output()

    assert exit_code == 0, terminal.text
    assert output.startswith("Signed in as Alice Martin")
    assert "Sign in in your browser; if none opens, open http://127.0.0.1:" in terminal.text


def test_a_browser_that_does_not_open_is_followed_by_a_code_and_a_line_about_it(stack, at_screen):
    terminal = at_terminal("login", environ={**at_screen, "BROWSER": "/nowhere/a-browser"})

    address, code = terminal.wait_for(r"Go to (\S+) and type (\S+)\.").groups()
    sign_in(f"{address}?user_code={code}")
    _, exit_code = terminal.output()

    assert exit_code == 0, terminal.text
    assert "No browser opened here. Continuing with a code that you type on any device." in terminal.text


def test_a_text_browser_does_not_take_over_the_terminal(stack, at_screen, tmp_path):
    started = tmp_path / "started"
    (tmp_path / "bin").mkdir()
    lynx = tmp_path / "bin" / "lynx"
    lynx.write_text(f"#!/bin/sh\ntouch {started}\n")
    lynx.chmod(0o755)
    environ = {**at_screen, "BROWSER": "lynx", "PATH": f"{tmp_path / 'bin'}:{at_screen['PATH']}"}
    terminal = at_terminal("login", environ=environ)

    terminal.wait_for(r"Go to \S+ and type")
    terminal.interrupt()
    terminal.output()

    assert "No graphical browser is available." in terminal.text
    assert not started.exists()


@pytest.mark.parametrize("variables", [{}, {"MICROMEGAS_OIDC_FLOW": "device"}, {"DISPLAY": ":0", "BROWSER": "true"}])
def test_without_a_terminal_login_fails_at_once_with_the_remedy(stack, person, micromegas, variables):
    result = micromegas("login", environ={**person, **variables})

    assert (result.returncode, result.stdout) == (3, "")
    assert "no user can sign in" in result.stderr
    assert "Run `micromegas login` in a terminal" in result.stderr
    assert "AUTH001" in result.stderr


def test_in_ci_a_terminal_is_nobody(stack, over_ssh):
    terminal = at_terminal("login", environ={**over_ssh, "CI": "true"})

    _, exit_code = terminal.output()

    assert exit_code == 3
    assert "no user can sign in" in terminal.text


def test_a_flow_that_is_named_works_without_a_terminal(stack, person):
    process = subprocess.Popen(
        [*CLI, "login", "--flow", "paste"], env=person, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    shown = ""
    while not (found := re.search(r"Open (\S+) in a browser", shown)):
        line = process.stderr.readline()
        assert line
        shown += line

    output, errors = process.communicate(sign_in(found[1], visit_callback=False) + "\n", timeout=WAIT_SECONDS)

    assert process.returncode == 0, errors
    assert output.startswith("Signed in as Alice Martin")


def test_a_query_can_sign_in_afresh_and_keeps_nothing(stack, at_screen, own_browser, tmp_path):
    terminal = at_terminal("query", "SELECT 1 AS one", "--oidc", environ={**at_screen, "BROWSER": own_browser})

    output, exit_code = terminal.output()

    assert (output.split(), exit_code) == (["one", "-----", "1"], 0), terminal.text
    assert not list((tmp_path / "config").glob("tokens*.json"))


def test_a_query_at_a_terminal_signs_in_by_itself(stack, at_screen, own_browser):
    environ = {**at_screen, "BROWSER": str(own_browser)}
    refused = at_terminal("query", "SELECT 7 AS n", "--no-login", environ=environ).output()
    terminal = at_terminal("query", "SELECT 7 AS n", "--format", "csv", environ=environ)
    signed_in = terminal.output()
    again = at_terminal("query", "SELECT 8 AS n", "--no-login", environ=environ).output()

    assert refused == ("", 3)
    assert signed_in == ("n\n7\n", 0), terminal.text
    assert again[1] == 0
    assert "You are not signed in: opening your browser." in terminal.text


def test_login_takes_provider_and_application_as_options(stack, person, micromegas):
    bare = {name: value for name, value in person.items() if "OIDC" not in name}
    issuer, client_id = person["MICROMEGAS_OIDC_ISSUER"], person["MICROMEGAS_OIDC_CLIENT_ID"]

    unnamed = micromegas("login", environ=bare)
    named = micromegas("login", "--issuer", issuer, "--client-id", client_id, environ=bare)

    assert (unnamed.returncode, named.returncode) == (2, 3)
    assert "No identity provider is configured" in unnamed.stderr
    assert f"Users can't sign in to {issuer} from here." in named.stderr


def test_login_asks_for_the_scope_and_the_audience_that_are_named(stack, over_ssh):
    options = ("--scope", "openid email", "--audience", "lake")
    terminal = at_terminal("login", "--flow", "paste", *options, environ=over_ssh)

    asked = parse_qs(urlsplit(terminal.wait_for(r"Open (\S+) in a browser")[1]).query)
    terminal.interrupt()
    terminal.output()

    assert (asked["scope"], asked["audience"]) == (["openid email"], ["lake"])


def test_logout_can_end_the_session_at_the_provider_in_the_persons_browser(stack, at_screen, own_browser, tmp_path):
    at_terminal("login", environ={**at_screen, "BROWSER": own_browser}).output()
    opened, recorder = tmp_path / "opened", tmp_path / "recorder"
    recorder.write_text(f'#!/bin/sh\necho "$1" > {opened}.new && mv {opened}.new {opened}\n')
    recorder.chmod(0o755)

    output, exit_code = at_terminal("logout", "--end-session", environ={**at_screen, "BROWSER": str(recorder)}).output()
    wait_until(opened.exists, "the browser is told what to open")

    assert (exit_code, "refresh token revoked" in output) == (0, True)
    assert opened.read_text().startswith("http://127.0.0.1:")
    assert "id_token_hint" not in opened.read_text()


def test_a_named_flow_is_remembered_and_auto_forgets_it(stack, at_screen, own_browser, tmp_path):
    remembered = []
    for flow in ("browser", "auto"):
        at_terminal("login", "--flow", flow, environ={**at_screen, "BROWSER": own_browser}).output()
        choices = tmp_path / "config" / "choices.json"
        remembered.append("browser" in choices.read_text() if choices.exists() else False)

    assert remembered == [True, False]


def test_the_redirect_address_that_is_set_is_the_one_that_is_listened_at(stack, over_ssh):
    port = free_port()
    address = f"http://127.0.0.1:{port}/callback"
    terminal = at_terminal("login", "--flow", "browser", environ={**over_ssh, "MICROMEGAS_OIDC_REDIRECT_URI": address})

    shown = terminal.wait_for(r"open (http://127\.0\.0\.1:\d+/start/\S+)")[1]
    sign_in(shown)
    output, exit_code = terminal.output()

    assert urlsplit(shown).port == port
    assert (exit_code, output.startswith("Signed in as Alice Martin")) == (0, True)
