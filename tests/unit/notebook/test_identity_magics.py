"""`%micromegas_login`, `%micromegas_whoami` and `%micromegas_logout` in a shell; kernels are tested in kernels."""

import pytest
from IPython.core.interactiveshell import InteractiveShell

from micromegas_jupyter.errors import ConfigurationError, ServerUnavailable
from tests.fakes.notebook_world import FakePersonalProvider, FakeServiceProvider, FakeWorld

SIGNED_IN = "Signed in as Alice Martin (alice@example.com) at id.example.com until 15:42 UTC, renews by itself.\n"


def test_whoami_shows_the_sign_in_even_when_the_server_does_not_answer(
    shell: InteractiveShell, world: FakeWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    world.whoami_failure = ServerUnavailable("lake.example.com does not answer.", remedy="Try later.")

    done = shell.run_cell("%micromegas_whoami")

    assert isinstance(done.error_in_exec, ServerUnavailable)
    assert capsys.readouterr().out == (
        f"{SIGNED_IN}lake.example.com does not answer.\n✗ lake.example.com does not answer. Try later. · AVAIL003\n"
    )


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
