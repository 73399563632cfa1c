from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pytest

from micromegas_jupyter.errors import LoginRequired, ServerUnavailable, UsageError
from tests.fakes.notebook_world import SETTINGS, FakeLogin

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from tests.fakes.notebook_world import FakeWorld


def test_a_terminal_shows_all_tables_with_their_columns(
    shell: InteractiveShell, capsys: pytest.CaptureFixture[str]
) -> None:
    shell.run_line_magic("micromegas_tables", "")

    assert capsys.readouterr().out == (
        "2 tables of lake.example.com:50051\n"
        "\n"
        "log_entries · What programs logged.\n"
        "  time   timestamp[ns, UTC], never null\n"
        "  level  int32                           How severe.\n"
        "  msg    string\n"
        "\n"
        "measures\n"
        "  time   timestamp[ns, UTC]\n"
        "  value  double\n"
    )


def test_a_pattern_leaves_what_matches(shell: InteractiveShell, capsys: pytest.CaptureFixture[str]) -> None:
    shell.run_line_magic("micromegas_tables", "VALUE")

    assert capsys.readouterr().out == "1 of 2 tables of lake.example.com:50051\n\nmeasures\n  value  double\n"


def test_counting_is_asked_for_by_option(
    shell: InteractiveShell, world: FakeWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    times = pa.array([None], pa.timestamp("ns", "UTC"))
    world.script = pa.table([pa.array([7]), times, times], names=["n", "first", "last"]).to_batches()

    shell.run_line_magic("micromegas_tables", "measures --count")

    assert "measures · 7 rows\n" in capsys.readouterr().out


def test_a_table_that_cannot_be_counted_says_why(
    shell: InteractiveShell, world: FakeWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    world.open_failure = ServerUnavailable("lake.example.com does not answer.", remedy="")

    shell.run_line_magic("micromegas_tables", "measures --count")

    assert "measures · Not counted: lake.example.com does not answer.\n" in capsys.readouterr().out


def test_completion_knows_the_tables_from_then_on(shell: InteractiveShell, world: FakeWorld) -> None:
    shell.run_line_magic("micromegas_tables", "")

    assert list(shell._micromegas_extension.schemas.known(SETTINGS).tables) == ["log_entries", "measures"]
    assert world.tables.asked_count == 1


def test_nobody_signed_in_and_a_server_that_does_not_answer_are_errors_of_their_kind(
    shell: InteractiveShell, world: FakeWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    world.tables.failure = ServerUnavailable("lake.example.com does not answer.")
    silent = shell.run_cell("%micromegas_tables")
    world.stored = None
    shell._micromegas_extension.session.connections.drop(SETTINGS)
    signed_out = shell.run_cell("%micromegas_tables")

    assert isinstance(silent.error_in_exec, ServerUnavailable)
    assert isinstance(signed_out.error_in_exec, LoginRequired)
    assert "Traceback" not in capsys.readouterr().out


def test_it_waits_for_a_sign_in_that_goes_on(shell: InteractiveShell, world: FakeWorld) -> None:
    world.stored = None
    world.on_page_opened = FakeLogin.succeed
    shell.run_cell("%micromegas_login")

    assert shell.run_cell("%micromegas_tables").success


def test_a_named_connection_says_whose_tables(
    shell: InteractiveShell, world: FakeWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    shell.run_cell("%micromegas_connect grpc+tls://prod.example.com:50051 --as production")
    capsys.readouterr()

    shell.run_line_magic("micromegas_tables", "measures --connection production")

    assert capsys.readouterr().out.startswith("1 of 2 tables of prod.example.com:50051\n")
    assert [settings.uri for settings in world.opened_for] == ["grpc+tls://prod.example.com:50051"]


def test_nobody_signed_in_for_a_named_connection_says_how_to(shell: InteractiveShell, world: FakeWorld) -> None:
    world.stored = None
    shell.run_cell("%micromegas_connect grpc+tls://prod.example.com:50051 --as production")

    with pytest.raises(LoginRequired, match="Run %micromegas_connect production, then %micromegas_login"):
        shell.run_line_magic("micromegas_tables", "--connection production")


def test_a_connection_and_a_profile_do_not_go_together(shell: InteractiveShell) -> None:
    with pytest.raises(UsageError, match="--connection and --profile cannot be combined"):
        shell.run_line_magic("micromegas_tables", "--connection a --profile b")


def test_an_option_that_is_not_known_is_refused(shell: InteractiveShell) -> None:
    with pytest.raises(UsageError):
        shell.run_line_magic("micromegas_tables", "--unknown")
