from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from IPython.core.completer import provisionalcompleter

from micromegas_jupyter.errors import ConfigurationError
from micromegas_jupyter.notebook.extension import register, unregister

if TYPE_CHECKING:
    from collections.abc import Iterator

    from IPython.core.interactiveshell import InteractiveShell

    from tests.fakes.notebook_world import FakeWorld


@pytest.fixture
def shell(
    bare_shell: InteractiveShell, world: FakeWorld, monkeypatch: pytest.MonkeyPatch
) -> Iterator[InteractiveShell]:
    # The first completion waits for the answer, which a loaded machine may take its time for.
    monkeypatch.setattr("micromegas_jupyter.notebook.completion.matcher.FIRST_ANSWER_SECONDS", 60.0)
    register(bare_shell, world.dependencies())
    yield bare_shell
    world.tables.may_answer.set()
    unregister(bare_shell)


def offered(shell: InteractiveShell, marked: str) -> list[tuple[str, str]]:
    """Return what IPython offers at the `|` in a cell: the text and its type."""
    before, after = marked.split("|")
    with provisionalcompleter():
        found = list(shell.Completer.completions(before + after, len(before)))
    return [(completion.text, completion.type) for completion in found]


def test_a_sql_cell_is_completed_from_the_server_and_with_nothing_else(shell: InteractiveShell) -> None:
    shell.user_ns["log_frame"] = 1

    assert offered(shell, "%%sql\nSELECT * FROM log|") == [("log_entries", "table")]
    assert offered(shell, "%%micromegas_sql\nSELECT l.le| FROM log_entries l") == [("level", "column")]
    assert offered(shell, "rows = %sql SELECT va| FROM measures")[0] == ("value", "column")


def test_what_is_there_already_is_replaced(shell: InteractiveShell) -> None:
    with provisionalcompleter():
        (found,) = shell.Completer.completions("%%sql\nSELECT l.le FROM log_entries l", 17)

    assert (found.start, found.end, found.text) == (15, 17, "level")


def test_variables_that_can_be_bound_are_offered_behind_a_colon(shell: InteractiveShell) -> None:
    shell.user_ns.update(max_level=3, max_frame=object(), _max_hidden=1, max_names=["a"], max_of=max)

    assert offered(shell, "%%sql\nSELECT :max|") == [("max_level", "variable"), ("max_names", "variable")]


def test_options_of_the_magic_are_offered_on_its_line(shell: InteractiveShell) -> None:
    assert ("--begin", "option") in offered(shell, "%%sql --|\nSELECT 1")
    assert offered(shell, "%%sql --prof|\n") == [("--profile", "option")]
    assert offered(shell, "%sql --trace|") == [("--traceback", "option")]


def test_the_profile_that_the_cell_names_says_which_server(shell: InteractiveShell, world: FakeWorld) -> None:
    offered(shell, "%%sql --profile prod\nSELECT * FROM |")

    assert world.profiles == ["prod"]


@pytest.fixture
def production(shell: InteractiveShell, world: FakeWorld) -> str:
    """Give two servers names; returns the address of the one that is called `production`."""
    uri = "grpc+tls://prod.example.com:50051"
    shell.run_cell(f"%micromegas_connect {uri} --as production")
    shell.run_cell("%micromegas_connect grpc+tls://other.example.com:50051 --as other")
    return uri


def test_the_connection_that_the_cell_names_says_which_server(
    shell: InteractiveShell, world: FakeWorld, production: str
) -> None:
    tables = offered(shell, "%%sql --connection production\nSELECT * FROM log|")

    assert tables == [("log_entries", "table")]
    assert [settings.uri for settings in world.opened_for] == [production]


@pytest.mark.parametrize("magic", ["%sql", "%%sql", "%micromegas_tables"])
def test_the_names_of_connections_are_offered_behind_the_option(
    shell: InteractiveShell, production: str, magic: str
) -> None:
    assert offered(shell, f"{magic} --connection pr|") == [("production", "value")]
    assert offered(shell, f"{magic} --connection |") == [("production", "value"), ("other", "value")]


def test_a_name_that_stands_for_nothing_is_silent(
    shell: InteractiveShell, world: FakeWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ("SELECT", "keyword") in offered(shell, "%%sql --connection nobody\nSEL|")
    assert world.opened_for == []
    assert capsys.readouterr() == ("", "")


def test_the_magic_that_shows_tables_completes_them_and_its_options(
    shell: InteractiveShell, world: FakeWorld, production: str
) -> None:
    assert offered(shell, "%micromegas_tables --connection production log|") == [("log_entries", "table")]
    assert offered(shell, "%micromegas_tables --cou|") == [("--count", "option")]
    assert [settings.uri for settings in world.opened_for] == [production]


def test_other_cells_are_completed_as_before(shell: InteractiveShell) -> None:
    shell.user_ns["level_of_detail"] = 1

    found = offered(shell, "level_of|")

    assert [text for text, _ in found] == ["level_of_detail"]


def test_settings_that_cannot_be_read_are_silent(
    shell: InteractiveShell, world: FakeWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise ConfigurationError("No.", key="K", remedy="")

    shell._micromegas_extension.session.settings = fail

    assert ("SELECT", "keyword") in offered(shell, "%%sql\nSEL|")
    assert capsys.readouterr() == ("", "")


def test_unloading_ends_completion(shell: InteractiveShell) -> None:
    unregister(shell)

    assert ("log_entries", "table") not in offered(shell, "%%sql\nSELECT * FROM log|")
    assert shell.Completer.custom_matchers == []
