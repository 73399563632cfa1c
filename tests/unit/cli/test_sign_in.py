"""`micromegas login`, `logout` and `whoami`: what a person sees, and a pasted address that nobody sees."""

import io
import json
import os
import pty
import re
import subprocess
import sys
import termios
import threading
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from micromegas_jupyter.auth import OidcAuthProvider
from micromegas_jupyter.cli.main import logout_main, run
from micromegas_jupyter.cli.sign_in_commands import (
    MAX_LINE_BYTES,
    HiddenInput,
    SignInTerminal,
    local_line,
    sign_in,
    signed_in_line,
)
from micromegas_jupyter.client.commands import ServerIdentity
from micromegas_jupyter.config.client import Bearer, ClientSettings, Flow
from micromegas_jupyter.core.system import SYSTEM_CLOCK
from micromegas_jupyter.errors import LoginFailed, LoginRequired, LoginTimedOut
from micromegas_jupyter.wiring import sign_in as signing_in
from tests.fakes.mint import ec_key, mint_raw
from tests.fakes.scripted_provider import ScriptedProvider
from tests.unit.wiring.conftest import environ, idp, settings

__all__ = ["environ", "idp", "settings"]

SETTINGS = ClientSettings(issuer="https://id.example.com", client_id="robot")
LONG_ADDRESS = "http://127.0.0.1:48080/callback?code=" + "c" * 6000
CAPABLE = {"TERM": "xterm-256color"}


class Terminal(io.StringIO):
    """A terminal that keeps what is written to it."""

    encoding = "utf-8"

    def isatty(self):
        return True


def test_a_sign_in_that_worked_says_whose_it_is_as_far_as_the_tokens_do(clock):
    idp = ScriptedProvider(clock=clock)
    named = OidcAuthProvider(idp.issuer, "notebook", token=idp.stored_token(ends_in_seconds=3600), clock=clock)
    ends_at = int(SYSTEM_CLOCK.now().timestamp()) + 600
    token = {"access_token": "opaque", "token_type": "Bearer", "expires_at": ends_at}
    settings = ClientSettings(issuer="https://id.example.com", client_id="notebook", bearer=Bearer.ACCESS_TOKEN)
    unnamed = OidcAuthProvider(settings.issuer, "notebook", token=token, bearer=Bearer.ACCESS_TOKEN)

    assert signed_in_line(named, now=clock.now()).startswith("Signed in as Alice Example <alice@example.com> · ")
    assert signed_in_line(unnamed, now=clock.now()) == "Signed in."
    assert local_line(settings, unnamed) == "signed in at id.example.com; the sign-in does not say who you are"


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        ({"email": "robot@lake.example.com", "azp": "9876"}, "robot@lake.example.com"),
        ({"client_id": "robot", "azp": "9876"}, "robot"),
        ({"email": 5}, "1234"),
        ({"email": "a\x1b[2Jb@example.com"}, "a[2Jb@example.com"),
    ],
)
def test_a_program_is_named_by_what_its_token_says(claims, expected):
    ends = int(SYSTEM_CLOCK.now().timestamp()) + 630
    whole = {"iss": "https://accounts.example.com", "sub": "1234", "exp": ends, **claims}
    token = mint_raw(json.dumps(whole).encode(), key=ec_key())

    line = local_line(SETTINGS, SimpleNamespace(get_token=lambda: token))

    assert line == f"{expected} (service account) · accounts.example.com · token valid 10 min, renews by itself"
    opaque = SimpleNamespace(get_token=lambda: "a.b.c")
    assert local_line(SETTINGS, opaque) == "robot (service account) · id.example.com"


def test_a_fresh_sign_in_needs_none_of_the_slow_libraries(tmp_path):
    idp = ScriptedProvider()
    stored = {"issuer": idp.issuer, "client_id": idp.client_id, "token": idp.stored_token(ends_in_seconds=3600)}
    (tmp_path / "tokens.json").write_text(json.dumps(stored))
    (tmp_path / "tokens.json").chmod(0o600)
    slow = ("authlib", "filelock", "joserfc", "numpy", "pandas", "pyarrow", "requests", "webbrowser")
    program = (
        "import sys; from micromegas_jupyter.wiring import client_side; "
        "from micromegas_jupyter.cli import sign_in_commands; "
        "settings = client_side.load_client_settings(); "
        "print(sign_in_commands.local_line(settings, client_side.stored_provider(settings)).split()[0], "
        f"[name for name in {slow!r} if name in sys.modules])"
    )
    provider = {"MICROMEGAS_OIDC_ISSUER": idp.issuer, "MICROMEGAS_OIDC_CLIENT_ID": idp.client_id}
    environ = {**os.environ, "MICROMEGAS_CONFIG_DIR": str(tmp_path), **provider}

    result = subprocess.run([sys.executable, "-c", program], env=environ, capture_output=True, text=True, check=True)

    assert result.stdout.strip() == "Alice []"


def test_logout_ends_the_named_profile_here_and_one_line_says_that_the_provider_was_out_of_reach(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("MICROMEGAS_CONFIG_DIR", str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"profiles": {"work": {}, "home": {}}}))
    token = {"access_token": "very-secret", "refresh_token": "very-secret-too"}
    for name in ("tokens-work.json", "tokens-home.json"):
        document = {"issuer": "http://127.0.0.1:1", "client_id": "notebook", "token": token}
        (tmp_path / name).write_text(json.dumps(document))

    assert run(["logout", "--profile", "none"]) == 2
    assert run(["logout", "--profile", "work"]) == 0

    out = capsys.readouterr().out
    assert re.match(r"Signed out of 127\.0\.0\.1:\d+: 1 file removed\. .* could not be reached to revoke", out)
    assert out.count("\n") == 1
    assert "very-secret" not in out
    assert [path.name for path in tmp_path.glob("tokens-*.json")] == ["tokens-home.json"]


def test_the_older_name_of_logout_signs_out_of_every_profile(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MICROMEGAS_CONFIG_DIR", str(tmp_path))
    monkeypatch.setattr("sys.argv", ["micromegas_logout"])
    (tmp_path / "config.json").write_text(json.dumps({"profiles": {"work": {}, "home": {}}}))
    document = {"issuer": "http://127.0.0.1:1", "client_id": "notebook", "token": {"access_token": "a"}}
    for name in ("tokens-work.json", "tokens-home.json", "tokens.json"):
        (tmp_path / name).write_text(json.dumps(document))
    for name, value in (("ANALYTICS_URI", "grpc://127.0.0.1:1"), ("OIDC_ISSUER", document["issuer"])):
        monkeypatch.setenv(f"MICROMEGAS_{name}", value)
    monkeypatch.setenv("MICROMEGAS_OIDC_CLIENT_ID", document["client_id"])

    with pytest.raises(SystemExit) as left:
        logout_main()

    lines = capsys.readouterr().out.splitlines()
    assert left.value.code == 0
    assert [line.partition(": ")[0] for line in lines] == ["home", "work", "no profile"]
    assert list(tmp_path.glob("tokens*.json")) == []


def test_who_has_no_role_is_told_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MICROMEGAS_CONFIG_DIR", str(tmp_path))
    identity = ServerIdentity(subject="bob", issuer="i", auth_type="oidc", is_admin=True, reads_nothing=True)
    monkeypatch.setattr("micromegas_jupyter.client.flight_client.FlightSQLClient.whoami", lambda _self: identity)

    assert run(["whoami"]) == 0

    out = capsys.readouterr().out
    assert re.search(r"server localhost:50051 knows you as bob \(admin\) · \d+ ms", out)
    assert "You have no role on this server" in out


@pytest.mark.parametrize(
    ("stream", "variables", "is_plain"),
    [(Terminal(), CAPABLE, False), (Terminal(), {"TERM": "dumb"}, True), (io.StringIO(), CAPABLE, True)],
)
def test_a_code_is_shown_with_a_warning_its_picture_and_the_time_left(settings, environ, stream, variables, is_plain):
    pending = signing_in.begin_login(settings, flow=Flow.DEVICE, environ=environ)

    SignInTerminal(stream, source=io.StringIO(), environ=variables).show(pending)
    pending.cancel()
    pending.wait_closed(30)

    text = stream.getvalue()
    assert f"Go to {pending.verification_uri} and type {pending.user_code}. Only type it if you started this." in text
    assert re.search(r"9:5\d left|10:00 left", text)
    assert pending.verification_uri_complete not in text
    assert ("\x1b[97;40m" not in text) is is_plain
    assert ("\r" not in text) is is_plain


@pytest.mark.parametrize("name", ["MICROMEGAS_OIDC_CLIENT_SECRET", "MICROMEGAS_OIDC_PROXY"])
def test_a_browser_does_not_inherit_what_is_secret(settings, environ, monkeypatch, name):
    monkeypatch.setenv(name, "sesame")

    with pytest.raises(LoginRequired):
        sign_in(settings, environ={**environ, "CI": "true"})

    assert name not in os.environ


@pytest.fixture
def terminal():
    """A terminal of the operating system: what the program reads, and the person's side; it is restored."""
    person, program = pty.openpty()
    with os.fdopen(program, "r") as source:
        before = termios.tcgetattr(source.fileno())
        yield source, person
        assert termios.tcgetattr(source.fileno()) == before
    os.close(person)


def _is_echoing(source):
    return bool(termios.tcgetattr(source.fileno())[3] & termios.ECHO)


@contextmanager
def _typed(text):
    """Return a prompter whose input is this text and no more."""
    reading, writing = os.pipe()
    os.write(writing, text)
    os.close(writing)
    with os.fdopen(reading) as source:
        yield HiddenInput(source, io.StringIO())


def test_lines_are_read_one_by_one_and_empty_ones_are_no_answer():
    with _typed(b"first\n\n  \nsecond\r\n") as prompter:
        assert [prompter.prompt("?", timeout_seconds=10) for _ in range(2)] == ["first", "second"]
        with pytest.raises(LoginFailed, match="canceled"):
            prompter.prompt("?", timeout_seconds=10)


def test_a_line_that_never_ends_or_comes_too_late_ends_the_sign_in(terminal):
    with _typed(b"x" * (MAX_LINE_BYTES + 2000)) as prompter, pytest.raises(LoginFailed, match="too long"):
        prompter.prompt("?", timeout_seconds=10)
    with pytest.raises(LoginTimedOut):
        HiddenInput(terminal[0], io.StringIO()).prompt("?", timeout_seconds=0)


def test_a_terminal_does_not_show_what_is_pasted_however_long_it_is(terminal):
    source, person = terminal
    answers = []
    asking = threading.Thread(
        target=lambda: answers.append(HiddenInput(source, io.StringIO()).prompt("?", timeout_seconds=20)), daemon=True
    )
    asking.start()
    while _is_echoing(source):
        assert asking.is_alive()

    left = LONG_ADDRESS.encode() + b"\r"
    while left:  # as a terminal program does, which the program's side may hold up
        left = left[os.write(person, left[:1000]) :]
    asking.join(60)

    assert answers == [LONG_ADDRESS]
    os.set_blocking(person, False)
    with pytest.raises(BlockingIOError):
        os.read(person, 10)


def test_what_is_pasted_as_soon_as_the_question_appears_is_not_shown(terminal):
    source, person = terminal
    echoes = []

    class Screen(io.StringIO):
        def write(self, text):
            echoes.append(_is_echoing(source))
            return super().write(text)

    os.write(person, b"answer\n")
    HiddenInput(source, Screen()).prompt("?", timeout_seconds=10)

    assert echoes == [False, True]


def test_what_is_pasted_between_two_questions_is_not_shown_and_answers_the_next(terminal):
    source, person = terminal
    prompter = HiddenInput(source, io.StringIO())

    prompter.hide()
    assert not _is_echoing(source)
    os.write(person, b"between\r")
    assert prompter.prompt("?", timeout_seconds=10) == "between"
    assert not _is_echoing(source)
    prompter.close()
