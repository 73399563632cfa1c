"""`%micromegas_login`, `%micromegas_whoami` and `%micromegas_logout` in a shell; kernels are tested in kernels."""

from dataclasses import replace

import pytest
from IPython.core.interactiveshell import InteractiveShell

from micromegas_jupyter.errors import (
    ConfigurationError,
    ServerUnavailable,
)
from tests.fakes.notebook_world import (
    SECRET_TOKEN,
    SETTINGS,
    START_URL,
    FakeLogin,
    FakePersonalProvider,
    FakeServiceProvider,
    FakeWorld,
)

SIGNED_IN = "Signed in as Alice Martin (alice@example.com) at id.example.com until 15:42 UTC, renews by itself.\n"


def test_a_person_who_is_signed_in_is_told_so(
    shell: InteractiveShell, world: FakeWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    shell.run_line_magic("micromegas_login", "")

    assert capsys.readouterr().out == SIGNED_IN
    assert world.logins == []


def test_in_a_terminal_the_page_is_opened_and_the_sign_in_waited_for(
    shell: InteractiveShell, world: FakeWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    world.stored = None
    world.on_page_opened = FakeLogin.succeed

    shell.run_line_magic("micromegas_login", "")

    assert world.opened_pages == [START_URL]
    assert capsys.readouterr().out == (
        f"Sign in at id.example.com: open {START_URL} until 12:10 UTC. This notebook continues by itself.\n{SIGNED_IN}"
    )


def test_a_profile_is_used_by_later_cells_too(shell: InteractiveShell, world: FakeWorld) -> None:
    shell.run_line_magic("micromegas_login", "--profile prod")
    shell.run_line_magic("sql", "SELECT 1")

    assert world.profiles == ["prod", "prod"]


def test_whoami_says_who_and_what_the_server_answered(
    shell: InteractiveShell, capsys: pytest.CaptureFixture[str]
) -> None:
    shell.run_line_magic("micromegas_whoami", "")

    assert capsys.readouterr().out == (
        f"{SIGNED_IN}lake.example.com:50051: connected as alice@example.com, 14 ms\n"
        "admin · groups: analysts, lake-admins\n"
    )


def test_whoami_shows_the_sign_in_even_when_the_server_does_not_answer(
    shell: InteractiveShell, world: FakeWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    world.whoami_failure = ServerUnavailable("lake.example.com does not answer.", remedy="Try later.")

    done = shell.run_cell("%micromegas_whoami")

    assert isinstance(done.error_in_exec, ServerUnavailable)
    assert capsys.readouterr().out == (
        f"{SIGNED_IN}lake.example.com does not answer.\n✗ lake.example.com does not answer. Try later. · AVAIL003\n"
    )


def test_logout_of_a_profile_and_of_the_providers_page(shell: InteractiveShell, world: FakeWorld) -> None:
    shell.run_line_magic("micromegas_logout", "--profile prod --end-session")

    assert world.logouts == [(replace(SETTINGS, profile="prod"), True)]


def test_whoami_shows_what_the_server_says_about_the_credential(
    shell: InteractiveShell, world: FakeWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    world.notices = ("This credential ends in 3 days.",)

    shell.run_line_magic("micromegas_whoami", "")
    shell.run_line_magic("micromegas_whoami", "")
    shell.run_line_magic("sql", "SELECT 1")

    assert capsys.readouterr().out.count("⚠ This credential ends in 3 days.\n") == 2


def test_nothing_that_is_shown_holds_the_token(
    shell: InteractiveShell, world: FakeWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    for magic in ("micromegas_login", "micromegas_whoami", "micromegas_logout"):
        shell.run_line_magic(magic, "")

    captured = capsys.readouterr()
    assert SECRET_TOKEN not in captured.out + captured.err + repr(shell._micromegas_extension.session)


def test_the_configured_service_account_is_used_from_then_on(
    shell: InteractiveShell, world: FakeWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    world.stored = FakeServiceProvider()

    shell.run_line_magic("micromegas_login", "--service-account")
    shell.run_line_magic("sql", "SELECT 1")

    assert capsys.readouterr().out.startswith("Signed in as service account lake-notebooks at id.example.com.\n")
    assert [settings.as_service_account for settings in world.opened_for] == [True]


def test_a_service_account_that_is_not_configured_changes_nothing(
    shell: InteractiveShell, world: FakeWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    world.stored = None
    world.stored_failure = ConfigurationError("A service account needs a client secret.", key="X", remedy="Set it.")

    shell.run_cell("%micromegas_login --service-account")
    world.stored, world.stored_failure = FakePersonalProvider(), None
    shell.run_line_magic("micromegas_login", "")

    assert "✗ A service account needs a client secret. Set it." in capsys.readouterr().out
    assert [settings.as_service_account for settings in world.opened_for] == [False]
