"""What is not offered is refused by its name, with what to do instead."""

import pytest

from micromegas_jupyter.errors import StatementRefused, UnsupportedRequest
from micromegas_jupyter.flightsql.commands import (
    _refuse_command,
    printable_name,
    refuse_action,
    refuse_method,
    refuse_transaction,
)


@pytest.mark.parametrize("name", ["CommandStatementUpdate", "CommandPreparedStatementUpdate"])
def test_an_update_is_a_refused_statement(name: str) -> None:
    error = _refuse_command(name)

    assert type(error) is StatementRefused
    assert "not executemany" in error.remedy


@pytest.mark.parametrize(
    ("error", "what", "remedy"),
    [
        (_refuse_command("CommandStatementSubstraitPlan"), "CommandStatementSubstraitPlan", "Send SQL."),
        (refuse_action("CreatePreparedSubstraitPlan"), "the action CreatePreparedSubstraitPlan", "Send SQL."),
        (refuse_action("BeginSavepoint"), "the action BeginSavepoint", "Leave transactions out"),
        (refuse_method("/arrow.flight.protocol.FlightService/ListFlights"), "ListFlights", "CommandGetTables"),
        (refuse_method("/x/Unknown"), "/x/Unknown", ""),
        (refuse_transaction(), "no transactions", "autocommit"),
    ],
)
def test_what_is_not_offered_comes_with_what_to_do(error: UnsupportedRequest, what: str, remedy: str) -> None:
    assert type(error) is UnsupportedRequest
    assert what in error.what
    assert remedy in error.remedy


def test_a_name_is_shown_short_and_printable() -> None:
    assert printable_name("A\nB\u2028" + "C" * 500) == "A?B?" + "C" * 76
