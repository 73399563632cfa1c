"""`micromegas login`, `logout` and `whoami`: the lines about who is signed in, and what a person runs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from datetime import timedelta
from pathlib import Path, PurePath
from typing import Any

import pytest

from micromegas_jupyter.auth import Identity, OidcAuthProvider, StaticTokenAuthProvider
from micromegas_jupyter.cli.main import build_parser, run
from micromegas_jupyter.cli.sign_in_commands import identity_line, local_line, server_line, signed_in_line, time_left
from micromegas_jupyter.client.commands import ServerIdentity
from micromegas_jupyter.config.client import Bearer, ClientSettings
from micromegas_jupyter.core.system import SYSTEM_CLOCK
from tests.fakes.mint import ec_key, mint_raw
from tests.fakes.scripted_provider import ScriptedProvider

SETTINGS = ClientSettings(issuer="https://id.example.com", client_id="robot")
ISSUER = "http://127.0.0.1:1"


class ServiceProvider:
    """Gives one token, or fails."""

    def __init__(self, answer):
        self._answer = answer

    def get_token(self):
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer


def _identity(clock, **changes):
    values = {
        "subject": "alice-1",
        "name": "Alice Martin",
        "email": "alice@example.com",
        "issuer": "https://id.example.com/realms/lake",
        "expires_at": clock.now() + timedelta(minutes=58, seconds=12),
        "renews": True,
    }
    return Identity(**{**values, **changes})


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "Alice Martin <alice@example.com> · id.example.com · token valid 58 min, renews by itself"),
        ({"renews": False}, "Alice Martin <alice@example.com> · id.example.com · token valid 58 min"),
        ({"name": None}, "alice@example.com · id.example.com · token valid 58 min, renews by itself"),
        ({"name": None, "email": None}, "alice-1 · id.example.com · token valid 58 min, renews by itself"),
        ({"email": None}, "Alice Martin · id.example.com · token valid 58 min, renews by itself"),
    ],
)
def test_a_person_is_named_by_what_is_known(clock, changes, expected):
    assert identity_line(_identity(clock, **changes), now=clock.now()) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0, "token expired"),
        (-5, "token expired"),
        (45, "token valid 45 s"),
        (60, "token valid 1 min"),
        (7199, "token valid 119 min"),
        (36_240, "token valid 10 h 4 min"),
    ],
)
def test_time_left_is_told_in_the_unit_that_fits(clock, seconds, expected):
    assert time_left(clock.now() + timedelta(seconds=seconds), clock.now()) == expected


def test_the_server_line_names_server_caller_and_time():
    identity = ServerIdentity(
        subject="alice-1", email="alice@example.com", issuer="https://id.example.com", auth_type="oidc", is_admin=True
    )

    line = server_line("lake.example.com:50051", identity, 14.2)

    assert line == "server lake.example.com:50051 knows you as alice@example.com (admin) · 14 ms"


def test_a_sign_in_that_worked_says_whose_it_is_as_far_as_the_tokens_do(clock):
    idp = ScriptedProvider(clock=clock)
    named = OidcAuthProvider(idp.issuer, "notebook", token=idp.stored_token(ends_in_seconds=3600), clock=clock)
    token = {"access_token": "opaque", "token_type": "Bearer", "refresh_token": "r"}
    unnamed = OidcAuthProvider("https://id.example.com", "notebook", token=token, clock=clock)

    assert signed_in_line(named, now=clock.now()).startswith("Signed in as Alice Example <alice@example.com> · ")
    assert signed_in_line(unnamed, now=clock.now()) == "Signed in."


def test_an_api_key_is_named_by_its_file_and_not_shown():
    settings = ClientSettings(api_key_file=PurePath("/secrets/of/robot.key"))

    assert local_line(settings, StaticTokenAuthProvider("the-key")) == "API key from robot.key"


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        ({"email": "robot@lake.example.com", "azp": "9876"}, "robot@lake.example.com"),
        ({"client_id": "robot", "azp": "9876"}, "robot"),
        ({"azp": "robot"}, "robot"),
        ({"appid": "robot"}, "robot"),
        ({}, "1234"),
        ({"email": 5}, "1234"),
        ({"email": "a\x1b[2Jb@example.com"}, "a[2Jb@example.com"),
    ],
)
def test_a_program_is_named_by_what_its_token_says(claims, expected):
    ends = int(SYSTEM_CLOCK.now().timestamp()) + 630
    whole = {"iss": "https://accounts.example.com", "sub": "1234", "exp": ends, **claims}
    token = mint_raw(json.dumps(whole).encode(), key=ec_key())

    line = local_line(SETTINGS, ServiceProvider(token))

    assert line == f"{expected} (service account) · accounts.example.com · token valid 10 min, renews by itself"


@pytest.mark.parametrize("token", ["opaque", "a.b.c"])
def test_a_token_that_says_nothing_leaves_what_the_settings_say(token):
    assert local_line(SETTINGS, ServiceProvider(token)) == "robot (service account) · id.example.com"


def test_a_fresh_sign_in_needs_none_of_the_slow_libraries(tmp_path):
    idp = ScriptedProvider()
    stored = {"issuer": idp.issuer, "client_id": idp.client_id, "token": idp.stored_token(ends_in_seconds=3600)}
    (tmp_path / "tokens.json").write_text(json.dumps(stored))
    (tmp_path / "tokens.json").chmod(0o600)
    slow = ("authlib", "filelock", "joserfc", "numpy", "pandas", "pyarrow", "requests", "webbrowser")
    program = (
        "import sys; from micromegas_jupyter import wiring, cli; "
        "from micromegas_jupyter.cli import sign_in_commands; "
        "settings = wiring.load_client_settings(); "
        "print(sign_in_commands.local_line(settings, wiring.stored_provider(settings)).split()[0], "
        f"[name for name in {slow!r} if name in sys.modules])"
    )
    environ = {
        "MICROMEGAS_CONFIG_DIR": str(tmp_path),
        "MICROMEGAS_OIDC_ISSUER": idp.issuer,
        "MICROMEGAS_OIDC_CLIENT_ID": idp.client_id,
    }

    result = subprocess.run([sys.executable, "-c", program], env=environ, capture_output=True, text=True, check=True)

    assert result.stdout.strip() == "Alice []"


def test_a_person_whom_the_tokens_do_not_name_is_signed_in_all_the_same():
    settings = ClientSettings(issuer="https://id.example.com", client_id="notebook", bearer=Bearer.ACCESS_TOKEN)
    token = {"access_token": "opaque", "token_type": "Bearer", "expires_at": int(SYSTEM_CLOCK.now().timestamp()) + 600}
    provider = OidcAuthProvider(settings.issuer, "notebook", token=token, bearer=Bearer.ACCESS_TOKEN)

    assert local_line(settings, provider) == "signed in at id.example.com; the sign-in does not say who you are"


def _parsed(*options):
    return build_parser(only="login").parse_args(["login", *options])


@pytest.mark.parametrize("flow", ["auto", "browser", "device", "paste", "hub"])
def test_the_flows_that_a_terminal_can_carry_out_are_offered(flow):
    assert _parsed("--flow", flow).flow == flow


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MICROMEGAS_CONFIG_DIR", str(tmp_path))
    return tmp_path


def keep(path: Path) -> None:
    token = {"access_token": "very-secret", "refresh_token": "very-secret-too"}
    path.write_text(json.dumps({"issuer": ISSUER, "client_id": "notebook", "token": token}))


@pytest.mark.usefixtures("folder")
def test_it_is_no_failure_when_nobody_was_signed_in(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["logout"]) == 0

    assert capsys.readouterr().out == "Nobody was signed in.\n"


def test_a_sign_in_ends_here_and_one_line_says_that_the_provider_was_out_of_reach(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keep(folder / "tokens.json")

    assert run(["logout"]) == 0

    out = capsys.readouterr().out
    assert re.match(
        r"Signed out of 127\.0\.0\.1:\d+: 1 file removed\. 127\.0\.0\.1:\d+ could not be reached to revoke everything "
        r"\(the connection was refused\): you are signed out here, but the refresh token is still valid there\.",
        out,
    )
    assert out.count("\n") == 1
    assert "very-secret" not in out
    assert not (folder / "tokens.json").exists()


def test_only_the_profile_that_is_named_ends(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"profiles": {"work": {}, "home": {}}}))
    keep(folder / "tokens-work.json")
    keep(folder / "tokens-home.json")

    assert run(["logout", "--profile", "work"]) == 0

    assert sorted(path.name for path in folder.glob("tokens-*.json")) == ["tokens-home.json"]


@pytest.mark.parametrize("name", ["..", "a/b", "none"])
def test_a_profile_that_does_not_exist_is_a_usage_error(
    folder: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "config.json").write_text(json.dumps({"profiles": {"work": {}}}))

    assert run(["logout", "--profile", name]) == 2
    assert capsys.readouterr().out == ""


def test_a_sign_in_that_cannot_be_removed_is_a_failure(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "tokens.json").mkdir()

    assert run(["logout"]) != 0

    assert "tokens.json" in capsys.readouterr().err


def test_who_has_no_role_is_told_so(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    identity = ServerIdentity(subject="bob", issuer="i", auth_type="oidc", is_admin=False, reads_nothing=True)
    monkeypatch.setattr("micromegas_jupyter.client.flight_client.FlightSQLClient.whoami", lambda _self: identity)

    assert run(["whoami"]) == 0

    assert "You have no role on this server" in capsys.readouterr().out
