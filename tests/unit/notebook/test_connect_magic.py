"""`%micromegas_connect`, the names for `--connection`, and who uses them."""

import re
from dataclasses import replace

import pytest

from micromegas_jupyter.errors import ConfigurationError, ServerUnavailable, UsageError
from tests.fakes.notebook_world import SETTINGS, FakePersonalProvider

OTHER = "grpc+tls://other.example.com:443"


@pytest.fixture(autouse=True)
def _two_profiles(world):
    world.profile_settings = {
        "prod": {"uri": "grpc+tls://prod.example.com:50051"},
        "free": {"uri": "grpc://free.example.com:50051", "issuer": None, "client_id": None},
    }


def servers(world):
    return [settings.uri for settings in world.opened_for]


def test_later_cells_use_the_server_that_was_named_and_it_is_said_who_gets_the_tokens(shell, world, capsys):
    shell.run_cell(f"%micromegas_connect {OTHER}")
    said = capsys.readouterr().out
    shell.run_cell("rows = %sql SELECT 1")

    assert said == (
        "Later cells use other.example.com:443. ⚠ Tokens of id.example.com go to other.example.com:443 at your "
        "request; the settings send them to lake.example.com:50051.\n"
    )
    assert servers(world) == [OTHER]
    assert world.opened_for[0].issuer == SETTINGS.issuer


def test_a_name_serves_one_statement_and_changes_nothing_else(shell, world, capsys):
    shell.run_cell("%micromegas_connect --profile prod --as production")
    said = capsys.readouterr().out
    shell.run_cell("one = %sql --connection production SELECT 1")
    shell.run_cell("two = %sql SELECT 1")

    assert said.startswith("--connection production means prod.example.com:50051 (profile prod).")
    assert servers(world) == ["grpc+tls://prod.example.com:50051", SETTINGS.uri]


def test_without_arguments_the_connections_are_listed(shell):
    empty = shell.run_line_magic("micromegas_connect", "")
    shell.run_cell("%micromegas_connect --profile prod --as production")
    shell.run_cell(f"%micromegas_connect {OTHER} --as other")
    named = shell.run_line_magic("micromegas_connect", "")
    shell.run_cell("%micromegas_connect other")
    used = shell.run_line_magic("micromegas_connect", "")

    assert [row[1:3] for row in empty.rows] == [("", "lake.example.com:50051")]
    assert [line.split() for line in repr(named).splitlines()[2:]] == [
        ["●", "lake.example.com:50051", "id.example.com"],
        ["production", "prod.example.com:50051", "prod", "id.example.com"],
        ["other", "other.example.com:443", "id.example.com"],
        ["●", "in", "use"],
    ]
    assert [row[:2] for row in used.rows] == [("", "production"), ("●", "other")]


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("grpc://", "not a Flight SQL URI"),
        ("lake.example.com:50051", "not a Flight SQL URI"),
        ("grpc+tls://me:secret@lake.example.com", "contains a user name"),
        (
            "grpc://lake.example.com:50051",
            "is not encrypted: others on the network could read the token. Use grpc.tls://",
        ),
        ("{servers[0]}", "Expressions in braces are not evaluated."),
        ("nobody", 'There is no connection named "nobody". %micromegas_connect URI'),
        (f"{OTHER} --as 'not a name'", "is not a valid connection name"),
    ],
)
def test_what_cannot_be_connected_to_is_refused_at_once(shell, world, line, what):
    with pytest.raises(UsageError, match=re.escape(what).replace(r"grpc\.tls", "grpc.tls")) as refused:
        shell.run_line_magic("micromegas_connect", line)

    assert "secret" not in str(refused.value)
    shell.run_cell("rows = %sql SELECT 1")
    assert servers(world) == [SETTINGS.uri]


@pytest.mark.parametrize("argument", ["{server}", "$server"])
def test_a_variable_can_hold_a_whole_argument(shell, world, argument):
    shell.user_ns["server"] = OTHER
    shell.run_line_magic("micromegas_connect", argument)
    with pytest.raises(UsageError, match='There is no variable named "sever"'):
        shell.run_line_magic("micromegas_connect", argument.replace("server", "sever"))
    shell.run_cell("rows = %sql SELECT 1")

    assert servers(world) == [OTHER]


def test_a_sign_in_elsewhere_keeps_the_server_that_was_named(shell, world):
    shell.run_cell(f"%micromegas_connect {OTHER}")
    shell.run_cell("%micromegas_login --audience other")
    shell.run_cell("rows = %sql SELECT 1")
    shell.run_cell("%micromegas_login --profile prod")

    assert world.opened_for[0] == replace(SETTINGS, uri=OTHER, audience="other")
    assert world.opened_for[-1].uri == "grpc+tls://prod.example.com:50051"


SIGNED_IN = (
    "Signed in as Alice Martin (alice@example.com)\n"
    "id.example.com · expires at 15:42 UTC, renews by itself\nlake.example.com does not answer.\n"
    "Groups: analysts, lake-admins\n"
)


def test_whoami_shows_the_sign_in_even_when_the_server_does_not_answer(shell, world, capsys):
    world.whoami_failure = ServerUnavailable("lake.example.com does not answer.", remedy="Try later.")

    done = shell.run_cell("%micromegas_whoami")

    assert isinstance(done.error_in_exec, ServerUnavailable)
    assert capsys.readouterr().out == (f"{SIGNED_IN}✗ lake.example.com does not answer. Try later. · AVAIL003\n")


def test_a_service_account_that_is_not_configured_changes_nothing(shell, world, capsys):
    world.stored = None
    world.stored_failure = ConfigurationError("A service account needs a client secret.", key="X", remedy="Set it.")

    shell.run_cell("%micromegas_login --service-account")
    world.stored, world.stored_failure = FakePersonalProvider(), None
    shell.run_line_magic("micromegas_login", "")

    assert "✗ A service account needs a client secret. Set it." in capsys.readouterr().out
    assert [settings.as_service_account for settings in world.opened_for] == [False]
